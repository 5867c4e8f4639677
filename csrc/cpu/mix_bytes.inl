// Bytes on AVX2 and AVX-512: blends them and takes channels apart, whole vectors at a time. The
// kernels for every type do the rest of a run.

#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
#if defined(FUSED_MIXUP_AVX512)
typedef __m512i Bytes;
// Within each 16 bytes, as of AVX2: pairs of the low or the high halves of a and b.
inline Bytes low_bytes(Bytes a, Bytes b) { return _mm512_unpacklo_epi8(a, b); }
inline Bytes high_bytes(Bytes a, Bytes b) { return _mm512_unpackhi_epi8(a, b); }
inline Bytes low_words(Bytes a, Bytes b) { return _mm512_unpacklo_epi16(a, b); }
inline Bytes high_words(Bytes a, Bytes b) { return _mm512_unpackhi_epi16(a, b); }
inline Bytes round_to_int(VF v) { return _mm512_cvtps_epi32((__m512)v); }
inline Bytes pack_ints(Bytes a, Bytes b) { return _mm512_packs_epi32(a, b); }
inline Bytes pack_words(Bytes a, Bytes b) { return _mm512_packus_epi16(a, b); }
#else
typedef __m256i Bytes;
inline Bytes low_bytes(Bytes a, Bytes b) { return _mm256_unpacklo_epi8(a, b); }
inline Bytes high_bytes(Bytes a, Bytes b) { return _mm256_unpackhi_epi8(a, b); }
inline Bytes low_words(Bytes a, Bytes b) { return _mm256_unpacklo_epi16(a, b); }
inline Bytes high_words(Bytes a, Bytes b) { return _mm256_unpackhi_epi16(a, b); }
inline Bytes round_to_int(VF v) { return _mm256_cvtps_epi32((__m256)v); }
inline Bytes pack_ints(Bytes a, Bytes b) { return _mm256_packs_epi32(a, b); }
inline Bytes pack_words(Bytes a, Bytes b) { return _mm256_packus_epi16(a, b); }
#endif

// (2^23 + v)·w - 2^23·w in one FMA: the bias 2^23·w is exact, so that v·w is rounded once, as
// everywhere.
struct ByteWeight {
  VF weight, bias;

  explicit ByteWeight(float w) : weight(splat(w)), bias(splat(w * -8388608.0f)) {}
  VF times(VF biased) const { return multiply_add(biased, weight, bias); }
  // Packing clamps values to a byte if they fit 32 bits.
  static bool fits(float w) { return w >= -1e6f && w <= 1e6f; }
};

// Half of a vector of bytes as floats 2^23 + v, whose bits are 0x4B000000 + v. Packing later undoes
// the order in which unpacking puts the bytes. (Half of them at a time: the floats of a whole
// vector and the weights would not fit the registers.)
struct BiasedBytes {
  VF first, second;

  BiasedBytes(Bytes bytes, int half) {
    const Bytes bias = (Bytes)(VI{} + 0x4B004B00u);
    const Bytes words = half == 0 ? low_bytes(bytes, Bytes{}) : high_bytes(bytes, Bytes{});
    first = (VF)low_words(words, bias);
    second = (VF)high_words(words, bias);
  }
};

// u·a + v·b, rounded, as words.
inline Bytes blended(const BiasedBytes& u, const ByteWeight& a, const BiasedBytes& v,
                     const ByteWeight& b) {
  const Bytes first = round_to_int(a.times(u.first) + b.times(v.first));
  const Bytes second = round_to_int(a.times(u.second) + b.times(v.second));
  return pack_ints(first, second);
}

inline void store_packed(uint8_t* p, const Bytes* words) {
  const Bytes packed = pack_words(words[0], words[1]);
  __builtin_memcpy(p, &packed, sizeof(packed));
}

// Blends whole vectors of bytes with two thirds of the instructions of map2. Returns how many
// elements that were.
inline int64_t blend_bytes(uint8_t* dst, const uint8_t* a, const uint8_t* b, const uint8_t* ahead,
                           int64_t n, float w0, float w1) {
  if (!ByteWeight::fits(w0) || !ByteWeight::fits(w1)) return 0;
  const ByteWeight own(w0), other(w1);
  int64_t i = 0;
  for (; i + kVectorBytes <= n; i += kVectorBytes) {
    __builtin_prefetch(ahead + i);
    const Bytes bytes_a = bit_load<Bytes>(a + i), bytes_b = bit_load<Bytes>(b + i);
    Bytes words[2];
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
  for (; i + kVectorBytes <= n; i += kVectorBytes) {
    fetch_ahead<kVectorBytes, 1024>(a + i);
    fetch_ahead<kVectorBytes, 1024>(b + i);
    const Bytes bytes_a = bit_load<Bytes>(a + i), bytes_b = bit_load<Bytes>(b + i);
    Bytes words_a[2], words_b[2];
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

// blend_bytes() for blend_chain.
inline int64_t blend_byte_chain(uint8_t* const* dst, const uint8_t* const* r, int64_t n,
                                const float* own, const float* other) {
  for (int k = 0; k < kChainRows; ++k) {
    if (!ByteWeight::fits(own[k]) || !ByteWeight::fits(other[k])) return 0;
  }
  int64_t i = 0;
  for (; i + kVectorBytes <= n; i += kVectorBytes) {
    Bytes bytes[kChainRows + 1], words[kChainRows][2];
    for (int k = 0; k <= kChainRows; ++k) {
      fetch_ahead<kVectorBytes, 1024>(r[k] + i);
      bytes[k] = bit_load<Bytes>(r[k] + i);
    }
    for (int half = 0; half < 2; ++half) {
      BiasedBytes u(bytes[0], half);
      for (int k = 0; k < kChainRows; ++k) {
        const BiasedBytes v(bytes[k + 1], half);
        words[k][half] = blended(u, ByteWeight(own[k]), v, ByteWeight(other[k]));
        u = v;
      }
    }
    for (int k = 0; k < kChainRows; ++k) store_packed(dst[k] + i, words[k]);
  }
  return i;
}
#endif

#if defined(FUSED_MIXUP_AVX2)
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
