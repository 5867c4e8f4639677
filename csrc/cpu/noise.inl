// The noise of csrc/common/noise.h, a vector of pixels at a time, for one instruction set: the same
// operations in the same order.

typedef int32_t VS __attribute__((vector_size(kVectorBytes)));

// The 64-bit products of the low halves of a and the constant m; high halves are not read.
inline VL low_product(VL a, uint32_t m) {
#if defined(FUSED_MIXUP_AVX512)
  return (VL)_mm512_mul_epu32((__m512i)a, (__m512i)(VL{} + m));
#elif defined(FUSED_MIXUP_AVX2)
  return (VL)_mm256_mul_epu32((__m256i)a, (__m256i)(VL{} + m));
#else
  return (a & 0xFFFFFFFF) * m;
#endif
}

// Four words for each of the pixels from `pixel` on, in the low halves.
struct PixelWords {
  VL w[4];
};
inline PixelWords words_of(int64_t key, VL pixel, uint32_t block) {
  uint32_t key0 = uint32_t(key), key1 = uint32_t(uint64_t(key) >> 32);
  VL c0 = pixel, c1 = pixel >> 32, c2 = VL{} + block, c3 = VL{} + kNoiseTag;
  for (int round = 0; round < 10; ++round) {
    const VL a = low_product(c0, 0xD2511F53u), b = low_product(c2, 0xCD9E8D57u);
    c0 = (b >> 32) ^ c1 ^ key0;
    c2 = (a >> 32) ^ c3 ^ key1;
    c1 = b;
    c3 = a;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

template <int kCount>
inline VF horner(VF x, const float (&c)[kCount]) {
  VF value = splat(c[kCount - 1]);
  for (int k = kCount - 2; k >= 0; --k) value = value * x + c[k];
  return value;
}

inline VF root_of(VF x) {
#if defined(FUSED_MIXUP_AVX512)
  return (VF)_mm512_sqrt_ps((__m512)x);
#elif defined(FUSED_MIXUP_AVX2)
  return (VF)_mm256_sqrt_ps((__m256)x);
#else
  for (int k = 0; k < kLanes<float>; ++k) x[k] = __builtin_sqrtf(x[k]);
  return x;
#endif
}

inline VF log_of_vector(VF x) {
  constexpr float kSeries[] = {3.3333331174e-1f,  -2.4999993993e-1f, 2.0000714765e-1f,
                               -1.6668057665e-1f, 1.4249322787e-1f,  -1.2420140846e-1f,
                               1.1676998740e-1f,  -1.1514610310e-1f, 7.0376836292e-2f};
  const VS exponent = ((VS)x - 0x3F3504F3) >> 23;
  const VF z = (VF)((VS)x - (exponent << 23)) - 1.0f;
  const VF k = __builtin_convertvector(exponent, VF), squared = z * z;
  const VF tail = z * squared * horner(z, kSeries) + k * -2.12194440e-4f;
  return (z + (tail - squared * 0.5f)) + k * 0.693359375f;
}

inline VF noise_of_words(VI words) {
  constexpr float kCentre[] = {1.50140941f,     0.246640727f,    -0.00417768164f,
                               -0.00125372503f, 0.00021858087f,  -4.39150654e-06f,
                               -3.5233877e-06f, 3.43273939e-07f, 2.81022636e-08f};
  constexpr float kTail[] = {2.83297682f,    1.00167406f,     0.00943887047f,
                             -0.0076224613f, 0.00573950773f,  -0.00367342844f,
                             0.00134934322f, 0.000100950558f, -0.000200214257f};
  const VS odd = ((VS)(words >> 9) << 1) + (1 - (1 << 23));
  const VF x = __builtin_convertvector(odd, VF) * 0x1p-23f;
  const VF w = 0.0f - log_of_vector((1.0f - x) * (1.0f + x));
  const VF centre = horner(w - 2.5f, kCentre);
  const VF tail = horner(root_of(w) - 3.0f, kTail);
  const VI is_centre = (VI)(w < 5.0f);
  const VF p = (VF)((is_centre & (VI)centre) | (~is_centre & (VI)tail));
  return p * x * 1.41421356f;
}

// dst[c·stride + i] = noise of channel 4·block + c of pixel `pixel + i`, for four channels and n
// pixels, or up to the next whole vector.
void noise(float* dst, int64_t stride, int64_t key, int64_t pixel, int64_t n, uint32_t block) {
  constexpr int kStep = kLanes<float>;
  VL low, high;  // a vector of pixels, in two halves
  for (int k = 0; k < kStep / 2; ++k) {
    low[k] = uint64_t(pixel) + k;
    high[k] = low[k] + kStep / 2;
  }
  for (int64_t i = 0; i < n; i += kStep, low += kStep, high += kStep) {
    const PixelWords a = words_of(key, low, block), b = words_of(key, high, block);
    for (int c = 0; c < 4; ++c) {
      VI words;
      for (int k = 0; k < kStep / 2; ++k) {
        words[k] = uint32_t(a.w[c][k]);
        words[k + kStep / 2] = uint32_t(b.w[c][k]);
      }
      store(dst + c * stride + i, noise_of_words(words));
    }
  }
}
