// Bytes on AVX2: blends them and takes channels apart, whole vectors at a time. The kernels for
// every type do the rest of a run.

#if defined(FUSED_MIXUP_AVX2)
// (2^23 + v)·w - 2^23·w in one FMA: the bias 2^23·w is exact, so that v·w is rounded once, as
// everywhere.
struct ByteWeight {
  __m256 weight, bias;

  explicit ByteWeight(float w) : weight(_mm256_set1_ps(w)), bias(_mm256_set1_ps(w * 8388608.0f)) {}
  __m256 times(__m256 biased) const { return _mm256_fmsub_ps(biased, weight, bias); }
  // Packing clamps values to a byte if they fit 32 bits.
  static bool fits(float w) { return w >= -1e6f && w <= 1e6f; }
};

// Half of 32 bytes as floats 2^23 + v, whose bits are 0x4B000000 + v. Packing later undoes the
// order in which unpacking puts the bytes. (Half of them at a time: the floats of a whole vector
// and the weights would not fit the registers.)
struct BiasedBytes {
  __m256 first, second;

  BiasedBytes(__m256i bytes, int half) {
    const __m256i zero = _mm256_setzero_si256(), bias = _mm256_set1_epi16(0x4B00);
    const __m256i words =
        half == 0 ? _mm256_unpacklo_epi8(bytes, zero) : _mm256_unpackhi_epi8(bytes, zero);
    first = (__m256)_mm256_unpacklo_epi16(words, bias);
    second = (__m256)_mm256_unpackhi_epi16(words, bias);
  }
};

// u·a + v·b, rounded, as words.
inline __m256i blended(const BiasedBytes& u, const ByteWeight& a, const BiasedBytes& v,
                       const ByteWeight& b) {
  const __m256i first = _mm256_cvtps_epi32(_mm256_add_ps(a.times(u.first), b.times(v.first)));
  const __m256i second = _mm256_cvtps_epi32(_mm256_add_ps(a.times(u.second), b.times(v.second)));
  return _mm256_packs_epi32(first, second);
}

inline __m256i load_bytes(const uint8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline void store_packed(uint8_t* p, const __m256i* words) {
  _mm256_storeu_si256((__m256i*)p, _mm256_packus_epi16(words[0], words[1]));
}

// Blends whole vectors of bytes with two thirds of the instructions of map2. Returns how many
// elements that were.
inline int64_t blend_bytes(uint8_t* dst, const uint8_t* a, const uint8_t* b, const uint8_t* ahead,
                           int64_t n, float w0, float w1) {
  if (!ByteWeight::fits(w0) || !ByteWeight::fits(w1)) return 0;
  const ByteWeight own(w0), other(w1);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    __builtin_prefetch(ahead + i);
    const __m256i bytes_a = load_bytes(a + i), bytes_b = load_bytes(b + i);
    __m256i words[2];
    for (int half = 0; half < 2; ++half) {
      words[half] = blended({bytes_a, half}, own, {bytes_b, half}, other);
    }
    store_packed(dst + i, words);
  }
  return i;
}

// blend_bytes() for blend_pair, with a fifth fewer instructions again: both outputs come from the
// same floats. kAlike: both rows have the weights of the first, which then stay in registers.
template <bool kAlike>
inline int64_t blend_byte_pairs(uint8_t* dst_a, uint8_t* dst_b, const uint8_t* a, const uint8_t* b,
                                int64_t n, float a0, float a1, float b0, float b1) {
  if (!ByteWeight::fits(a0) || !ByteWeight::fits(a1)) return 0;
  if (!ByteWeight::fits(b0) || !ByteWeight::fits(b1)) return 0;
  const ByteWeight own_a(a0), other_a(a1);
  const ByteWeight own_b(kAlike ? a0 : b0), other_b(kAlike ? a1 : b1);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    fetch_ahead<1, 1024>(a + i);
    fetch_ahead<1, 1024>(b + i);
    const __m256i bytes_a = load_bytes(a + i), bytes_b = load_bytes(b + i);
    __m256i words_a[2], words_b[2];
    for (int half = 0; half < 2; ++half) {
      const BiasedBytes u(bytes_a, half), v(bytes_b, half);
      words_a[half] = blended(u, own_a, v, other_a);
      words_b[half] = blended(v, own_b, u, other_b);
    }
    store_packed(dst_a + i, words_a);
    store_packed(dst_b + i, words_b);
  }
  return i;
}

// Splits pixels of three bytes into three planes, whole vectors at a time. Returns how many pixels
// that were. 48 bytes lie in three registers; no two of them have channel c at the same place, so
// that two blends collect it.
inline int64_t split_bytes(uint8_t* dst, int64_t stride, const uint8_t* src, int64_t n) {
  // Byte k of the mask: whether k mod 3 is 1, or 2.
  const __m256i is_1 = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0));
  const __m256i is_2 = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0));
  // Where the pixels of each channel lie after the blends, in their order.
  const __m256i order[] = {_mm256_broadcastsi128_si256(
                               _mm_setr_epi8(0, 3, 6, 9, 12, 15, 2, 5, 8, 11, 14, 1, 4, 7, 10, 13)),
                           _mm256_broadcastsi128_si256(
                               _mm_setr_epi8(1, 4, 7, 10, 13, 0, 3, 6, 9, 12, 15, 2, 5, 8, 11, 14)),
                           _mm256_broadcastsi128_si256(_mm_setr_epi8(2, 5, 8, 11, 14, 1, 4, 7, 10,
                                                                     13, 0, 3, 6, 9, 12, 15))};
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m128i* p = (const __m128i*)(src + 3 * i);
    __m256i v[3];  // the low half of 16 pixels, the high half of the 16 after them
    for (int k = 0; k < 3; ++k) {
      v[k] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(p + k)),
                                     _mm_loadu_si128(p + k + 3), 1);
    }
    for (int c = 0; c < 3; ++c) {
      // Register k holds channel c at the places that are c - k mod 3 (16 is 1 mod 3).
      const __m256i mixed =
          _mm256_blendv_epi8(_mm256_blendv_epi8(v[c], v[(c + 2) % 3], is_1), v[(c + 1) % 3], is_2);
      _mm256_storeu_si256((__m256i*)(dst + c * stride + i), _mm256_shuffle_epi8(mixed, order[c]));
    }
  }
  return i;
}
#endif
