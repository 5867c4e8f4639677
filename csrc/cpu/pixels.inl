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

// Joins whole vectors; returns how many pixels that were.
inline int64_t join_vectors(uint8_t* dst, const uint8_t* src, int64_t stride, int64_t n) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    __m256i plane[3];
    for (int c = 0; c < 3; ++c) {
      fetch_ahead<512>(src + c * stride + i);
      plane[c] = _mm256_loadu_si256((const __m256i*)(src + c * stride + i));
    }
    for (int v = 0; v < 3; ++v) {
      __m256i joined = _mm256_setzero_si256();
      for (int c = 0; c < 3; ++c) {
        const __m256i mask =
            _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i*)kJoinMasks.byte[v][c]));
        joined = _mm256_or_si256(joined, _mm256_shuffle_epi8(plane[c], mask));
      }
      __m128i* p = (__m128i*)(dst + 3 * i) + v;
      _mm_storeu_si128(p, _mm256_castsi256_si128(joined));
      _mm_storeu_si128(p + 3, _mm256_extracti128_si256(joined, 1));
    }
  }
  return i;
}

// Reverses whole vectors; returns how many pixels that were.
inline int64_t reverse_vectors(uint8_t* dst, const uint8_t* src, int64_t n, int64_t channels) {
  int64_t i = 0;
  if (channels == 1) {
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    for (; i + 32 <= n; i += 32) {
      const __m256i bytes = _mm256_loadu_si256((const __m256i*)(src + n - 32 - i));
      const __m256i reversed = _mm256_shuffle_epi8(bytes, order);
      _mm256_storeu_si256((__m256i*)(dst + i), _mm256_permute2x128_si256(reversed, reversed, 1));
    }
  } else if (channels == 3) {
    // Five pixels a step, behind one byte that is left out, so that nothing past src is read. The
    // byte that is stored too many is overwritten next.
    const __m128i order = _mm_setr_epi8(13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, -1);
    for (; i + 6 <= n; i += 5) {
      const __m128i bytes = _mm_loadu_si128((const __m128i*)(src + 3 * (n - 5 - i) - 1));
      _mm_storeu_si128((__m128i*)(dst + 3 * i), _mm_shuffle_epi8(bytes, order));
    }
  }
  return i;
}
#endif

void join_three(uint8_t* __restrict dst, const uint8_t* __restrict src, int64_t stride, int64_t n) {
  int64_t i = 0;
#if defined(FUSED_MIXUP_AVX2)
  i = join_vectors(dst, src, stride, n);
#endif
  for (; i < n; ++i) {
    for (int c = 0; c < 3; ++c) dst[3 * i + c] = src[c * stride + i];
  }
}

void reverse(uint8_t* __restrict dst, const uint8_t* __restrict src, int64_t n, int64_t channels) {
  int64_t i = 0;
#if defined(FUSED_MIXUP_AVX2)
  i = reverse_vectors(dst, src, n, channels);
#endif
  for (; i < n; ++i) {
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
  return {join_three, reverse, inverse_is_exact, widen<Half>, widen<BFloat16>};
}
