// Normal noise of pixels that is the same to the bit on every backend: what mix_normalize fills
// erased boxes with.
//
// docs/drawing.md holds the specification, fused_mixup/reference/noise.py the same in plain
// PyTorch. Arithmetic is float, each operation rounded on its own, in the order written here.
// Nothing here depends on PyTorch.
#pragma once

#include "boxes.h"
#include "random.h"

namespace fused_mixup {

constexpr uint32_t kNoiseTag = 0x4E4F4953;  // the last word of the counter of noise

// ---------------------------------------------------------------- float arithmetic

// A float whose operations no compiler fuses; see Real.
struct Single {
  float value;
  Single() = default;
  FUSED_MIXUP_HOST_DEVICE constexpr Single(float v) : value(v) {}
};

FUSED_MIXUP_HOST_DEVICE inline Single operator+(Single a, Single b) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(a.value, b.value);
#else
  return a.value + b.value;
#endif
}
FUSED_MIXUP_HOST_DEVICE inline Single operator-(Single a, Single b) {
#ifdef __CUDA_ARCH__
  return __fsub_rn(a.value, b.value);
#else
  return a.value - b.value;
#endif
}
FUSED_MIXUP_HOST_DEVICE inline Single operator*(Single a, Single b) {
  return rounded_product(a.value, b.value);
}
FUSED_MIXUP_HOST_DEVICE inline Single square_root(Single a) {
#ifdef __CUDA_ARCH__
  return __fsqrt_rn(a.value);
#else
  return std::sqrt(a.value);
#endif
}

FUSED_MIXUP_HOST_DEVICE inline Single horner(Single, float c) { return c; }
template <typename... Rest>
FUSED_MIXUP_HOST_DEVICE inline Single horner(Single x, float c, Rest... rest) {
  return horner(x, rest...) * x + c;
}

// Natural logarithm of positive normal floats, within two ulp (after Cephes' logf).
FUSED_MIXUP_HOST_DEVICE inline Single log_of(Single x) {
  int32_t bits;
  memcpy(&bits, &x.value, sizeof(bits));
  const int32_t exponent = (bits - 0x3F3504F3) >> 23;  // the bits of sqrt(1/2)
  const int32_t mantissa = bits - exponent * (1 << 23);
  Single m;
  memcpy(&m.value, &mantissa, sizeof(mantissa));
  const Single z = m - 1.0f, k = float(exponent), squared = z * z;
  const Single series = horner(z, 3.3333331174e-1f, -2.4999993993e-1f, 2.0000714765e-1f,
                               -1.6668057665e-1f, 1.4249322787e-1f, -1.2420140846e-1f,
                               1.1676998740e-1f, -1.1514610310e-1f, 7.0376836292e-2f);
  const Single tail = z * squared * series + k * -2.12194440e-4f;
  return (z + (tail - squared * 0.5f)) + k * 0.693359375f;
}

// A normal deviate of the upper 23 bits of a word (erfinv after Giles, 2010); |deviate| < 5.3.
FUSED_MIXUP_HOST_DEVICE inline float noise_of_word(uint32_t word) {
  const int32_t odd = int32_t(word >> 9) * 2 + (1 - (1 << 23));  // of 24 bits: x is exact
  const Single x = Single(float(odd)) * 0x1p-23f;
  const Single w = Single(0.0f) - log_of((Single(1.0f) - x) * (Single(1.0f) + x));
  Single p;
  if (w.value < 5.0f) {
    p = horner(w - 2.5f, 1.50140941f, 0.246640727f, -0.00417768164f, -0.00125372503f,
               0.00021858087f, -4.39150654e-06f, -3.5233877e-06f, 3.43273939e-07f, 2.81022636e-08f);
  } else {
    p = horner(square_root(w) - 3.0f, 2.83297682f, 1.00167406f, 0.00943887047f, -0.0076224613f,
               0.00573950773f, -0.00367342844f, 0.00134934322f, 0.000100950558f, -0.000200214257f);
  }
  return (p * x * 1.41421356f).value;
}

// The words of four channels of a pixel, from channel 4·block on: channel c takes word c mod 4.
FUSED_MIXUP_HOST_DEVICE inline Words noise_words(int64_t key, int64_t pixel, uint32_t block) {
  const Words counter = {{uint32_t(pixel), uint32_t(uint64_t(pixel) >> 32), block, kNoiseTag}};
  return philox(counter, uint32_t(key), uint32_t(uint64_t(key) >> 32));
}

}  // namespace fused_mixup
