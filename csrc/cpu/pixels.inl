// Brings the bytes of pixels into another order, for one instruction set.

#if defined(FUSED_MIXUP_AVX2)
// Byte j of vector v of three joined planes: the place in plane c from which it comes, or none.
struct JoinMasks {
  alignas(16) int8_t byte[3][3][16] = {};

  constexpr JoinMasks() {
    for (int v = 0; v < 3; ++v) {
      for (int c = 0; c < 3; ++c) {
        for (int j = 0; j < 16; ++j) {
          byte[v][c][j] = int8_t((16 * v + j) % 3 == c ? (16 * v + j) / 3 : -1);
        }
      }
    }
  }
};
constexpr JoinMasks kJoinMasks;

// Joins 32 pixels.
inline void join_vector(uint8_t* dst, const uint8_t* src, int64_t stride) {
  __m256i plane[3];
  for (int c = 0; c < 3; ++c) {
    fetch_ahead<1, 512>(src + c * stride);
    plane[c] = bit_load<__m256i>(src + c * stride);
  }
  for (int v = 0; v < 3; ++v) {
    __m256i joined = _mm256_setzero_si256();
    for (int c = 0; c < 3; ++c) {
      const __m256i mask =
          _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i*)kJoinMasks.byte[v][c]));
      joined = _mm256_or_si256(joined, _mm256_shuffle_epi8(plane[c], mask));
    }
    __m128i* p = (__m128i*)dst + v;
    _mm_storeu_si128(p, _mm256_castsi256_si128(joined));
    _mm_storeu_si128(p + 3, _mm256_extracti128_si256(joined, 1));
  }
}

// dst = 32 bytes in reverse order.
inline void reverse_vector(uint8_t* dst, const uint8_t* src) {
  const __m256i order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  const __m256i reversed = _mm256_shuffle_epi8(bit_load<__m256i>(src), order);
  _mm256_storeu_si256((__m256i*)dst, _mm256_permute2x128_si256(reversed, reversed, 1));
}

// reverse() for at least 6 pixels of three bytes, five at a time. No byte outside is read or
// written: what is loaded and stored too many is the neighbour's.
inline void reverse_three(uint8_t* dst, const uint8_t* src, int64_t n) {
  const __m128i order = _mm_setr_epi8(13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, -1);
  for (int64_t i = 0; i + 6 <= n; i += 5) {
    fetch_ahead<1, 1024>(src + 3 * i);
    const __m128i bytes = _mm_loadu_si128((const __m128i*)(src + 3 * (n - 5 - i) - 1));
    _mm_storeu_si128((__m128i*)(dst + 3 * i), _mm_shuffle_epi8(bytes, order));
  }
  const __m128i last = _mm_setr_epi8(12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2, -1);
  const __m128i reversed = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i*)src), last);
  _mm_storel_epi64((__m128i*)(dst + 3 * (n - 5)), reversed);
  _mm_storel_epi64((__m128i*)(dst + 3 * (n - 5) + 7), _mm_srli_si128(reversed, 7));
}
#endif

void join_three(uint8_t* __restrict dst, const uint8_t* __restrict src, int64_t stride, int64_t n) {
#if defined(FUSED_MIXUP_AVX2)
  if (n >= 32) {
    for (int64_t i = 0; i + 32 <= n; i += 32) join_vector(dst + 3 * i, src + i, stride);
    return join_vector(dst + 3 * (n - 32), src + n - 32, stride);  // the rest, and some once more
  }
#endif
  for (int64_t i = 0; i < n; ++i) {
    for (int c = 0; c < 3; ++c) dst[3 * i + c] = src[c * stride + i];
  }
}

void reverse(uint8_t* __restrict dst, const uint8_t* __restrict src, int64_t n, int64_t channels) {
#if defined(FUSED_MIXUP_AVX2)
  if (channels == 3 && n >= 6) return reverse_three(dst, src, n);
  if (channels == 1 && n >= 32) {
    for (int64_t i = 0; i + 32 <= n; i += 32) reverse_vector(dst + i, src + n - 32 - i);
    return reverse_vector(dst + n - 32, src);
  }
#endif
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t c = 0; c < channels; ++c) {
      dst[i * channels + c] = src[(n - 1 - i) * channels + c];
    }
  }
}

template <typename T>
void widen(float* dst, const T* src, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes<float> <= n; i += kLanes<float>) store(dst + i, load(src + i));
  if (i < n) store_part<float>(dst + i, load_part<float>(src + i, n - i), n - i);
}

constexpr PixelKernels pixel_table() {
  return {join_three, reverse, inverse_is_exact, widen<Half>, widen<BFloat16>, noise};
}
