// Random numbers and real functions that are the same to the bit on every backend.
//
// docs/drawing.md holds the specification, fused_mixup/reference/random.py the same in plain
// PyTorch. Real arithmetic is + - * / and sqrt, each rounded on its own, in the order written here:
// another order, a fused multiply-add or a library's log would change bits. Nothing here depends on
// PyTorch.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "layout.h"

namespace fused_mixup {

// ---------------------------------------------------------------- real arithmetic

// A double whose operations no compiler fuses. nvcc would contract a product and a sum, so device
// code calls intrinsics that round one by one; host compilers obey -ffp-contract=off.
struct Real {
  double value;
  Real() = default;
  FUSED_MIXUP_HOST_DEVICE constexpr Real(double v) : value(v) {}
};

FUSED_MIXUP_HOST_DEVICE inline Real operator+(Real a, Real b) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(a.value, b.value);
#else
  return a.value + b.value;
#endif
}

FUSED_MIXUP_HOST_DEVICE inline Real operator-(Real a, Real b) {
#ifdef __CUDA_ARCH__
  return __dsub_rn(a.value, b.value);
#else
  return a.value - b.value;
#endif
}

FUSED_MIXUP_HOST_DEVICE inline Real operator*(Real a, Real b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a.value, b.value);
#else
  return a.value * b.value;
#endif
}

FUSED_MIXUP_HOST_DEVICE inline Real operator/(Real a, Real b) {
#ifdef __CUDA_ARCH__
  return __ddiv_rn(a.value, b.value);
#else
  return a.value / b.value;
#endif
}

FUSED_MIXUP_HOST_DEVICE inline Real square_root(Real a) {
#ifdef __CUDA_ARCH__
  return __dsqrt_rn(a.value);
#else
  return std::sqrt(a.value);
#endif
}

FUSED_MIXUP_HOST_DEVICE inline Real operator-(Real a) { return -a.value; }
FUSED_MIXUP_HOST_DEVICE inline bool operator<(Real a, Real b) { return a.value < b.value; }
FUSED_MIXUP_HOST_DEVICE inline bool operator>(Real a, Real b) { return a.value > b.value; }
FUSED_MIXUP_HOST_DEVICE inline bool operator<=(Real a, Real b) { return a.value <= b.value; }

FUSED_MIXUP_HOST_DEVICE inline uint64_t bits_of(Real a) {
  uint64_t bits;
  memcpy(&bits, &a.value, sizeof(bits));
  return bits;
}

FUSED_MIXUP_HOST_DEVICE inline Real real_of_bits(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// ---------------------------------------------------------------- Philox4x32-10

struct Words {
  uint32_t w[4];
};

// Four words for a counter and a key (Salmon et al., 2011).
FUSED_MIXUP_HOST_DEVICE inline Words philox(Words counter, uint32_t key0, uint32_t key1) {
  uint32_t c0 = counter.w[0], c1 = counter.w[1], c2 = counter.w[2], c3 = counter.w[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(c0) * 0xD2511F53u, b = uint64_t(c2) * 0xCD9E8D57u;
    c0 = uint32_t(b >> 32) ^ c1 ^ key0;
    c2 = uint32_t(a >> 32) ^ c3 ^ key1;
    c1 = uint32_t(b);
    c3 = uint32_t(a);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// An integer in [0, n) for n up to 2^31, by the high half of a product; 0 for n = 0.
FUSED_MIXUP_HOST_DEVICE inline int64_t below(uint32_t word, int64_t n) {
  return int64_t((uint64_t(word) * uint64_t(n)) >> 32);
}

// (k + 1/2) / 2^52 for the 52 bits k of two words: exact, and never 0 or 1.
FUSED_MIXUP_HOST_DEVICE inline Real uniform(uint32_t low, uint32_t high) {
  const int64_t k = int64_t(low) | int64_t(high & 0xFFFFF) << 32;
  return (Real(double(k)) + 0.5) * 0x1p-52;
}

// (k + 1/2) / 2^32 for a word k: exact, and never 0 or 1.
FUSED_MIXUP_HOST_DEVICE inline Real short_uniform(uint32_t word) {
  return (Real(double(word)) + 0.5) * 0x1p-32;
}

FUSED_MIXUP_HOST_DEVICE inline bool happens(uint32_t word, Real probability) {
  return Real(double(word)) < probability * 0x1p32;
}

// ---------------------------------------------------------------- log and exp (after fdlibm)

constexpr double kLn2High = 6.93147180369123816490e-01;
constexpr double kLn2Low = 1.90821492927058770002e-10;

// c0 + x (c1 + x (c2 + …)), two roundings a step.
FUSED_MIXUP_HOST_DEVICE inline Real horner(Real, double c) { return c; }
template <typename... Rest>
FUSED_MIXUP_HOST_DEVICE inline Real horner(Real x, double c, Rest... rest) {
  return horner(x, rest...) * x + c;
}

// Natural logarithm of positive normal doubles, within an ulp.
FUSED_MIXUP_HOST_DEVICE inline Real log_of(Real x) {
  // The constant has the bits of sqrt(1/2), truncated: the lower bound of the mantissa.
  const int64_t exponent = int64_t(bits_of(x) - 0x3FE6A09E00000000u) >> 52;
  const Real f = real_of_bits(bits_of(x) - (uint64_t(exponent) << 52)) - 1.0;
  const Real k = double(exponent);
  const Real s = f / (f + 2.0);
  const Real z = s * s;
  const Real r =
      z * horner(z, 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
                 2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
                 1.479819860511658591e-01);
  const Real half = f * f * 0.5;
  return k * kLn2High - ((half - (s * (half + r) + k * kLn2Low)) - f);
}

// e^-x for x >= 0, within an ulp; 0 for x > 708, so that no subnormal number arises, and for a NaN,
// which is converted to no integer.
FUSED_MIXUP_HOST_DEVICE inline Real exp_negative(Real x) {
  if (!(x <= 708.0)) return 0.0;
  const Real y = -x;
  const int64_t whole = int64_t((y * 1.44269504088896338700e+00 - 0.5).value);
  const Real k = double(whole);
  const Real high = y - k * kLn2High, low = k * kLn2Low;
  const Real r = high - low;
  const Real t = r * r;
  const Real c = r - t * horner(t, 1.66666666666666019037e-01, -2.77777777770155933842e-03,
                                6.61375632143793436117e-05, -1.65339022054652515390e-06,
                                4.13813679705723846039e-08);
  const Real e = Real(1.0) - ((low - r * c / (Real(2.0) - c)) - high);
  return e * real_of_bits(uint64_t(whole + 1023) << 52);
}

// e^x, within two ulp; 0 for x < -708, infinite for x > 708. (A NaN, which no check has seen, is
// converted to no integer.)
FUSED_MIXUP_HOST_DEVICE inline Real exp_of(Real x) {
  const Real magnitude = x < 0.0 ? -x : x;
  const Real e = magnitude <= 708.0 ? exp_negative(magnitude) : Real(0.0);
  return x > 0.0 ? Real(1.0) / e : e;
}

// ---------------------------------------------------------------- cosine and sine of a turn

struct Turn {
  double cosine, sine;
};

// cos and sin of 2π·j/n for 0 <= j < n, within two ulp; exact where they are 0 or ±1.
FUSED_MIXUP_HOST_DEVICE inline Turn turn(int64_t j, int64_t n) {
  const int64_t eighths = 8 * j / n, rest = 8 * j % n;
  const bool odd = eighths & 1;
  const Real x = Real(double(odd ? n - rest : rest)) * 7.85398163397448278999e-01 / double(n);
  const Real z = x * x;
  const Real sine = x + x * z *
                            horner(z, -1.66666666666666324348e-01, 8.33333333332248946124e-03,
                                   -1.98412698298579493134e-04, 2.75573137070700676789e-06,
                                   -2.50507602534068634195e-08, 1.58969099521155010221e-10);
  const Real half = z * 0.5;
  const Real w = Real(1.0) - half;
  const Real cosine =
      w + ((Real(1.0) - w - half) +
           z * (z * horner(z, 4.16666666666666019037e-02, -1.38888888888741095749e-03,
                           2.48015872894767294178e-05, -2.75573143513906633035e-07,
                           2.08757232129817482790e-09, -1.13596475577881948265e-11)));
  const bool swapped = odd != bool(eighths & 2);
  const double c = (swapped ? sine : cosine).value, s = (swapped ? cosine : sine).value;
  return {eighths >= 2 && eighths < 6 ? -c : c, eighths >= 4 ? -s : s};
}

// ---------------------------------------------------------------- normal deviates (AS 241)

// The p-quantile of the normal distribution (Wichura, 1988), for p in (0, 1).
FUSED_MIXUP_HOST_DEVICE inline Real normal(Real p) {
  const Real q = p - 0.5;
  const Real distance = q < 0.0 ? -q : q;
  if (distance <= 0.425) {
    const Real u = Real(0.180625) - q * q;
    return q * (horner(u, 3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
                       1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
                       3.3430575583588128105e4, 2.5090809287301226727e3) /
                horner(u, 1.0, 4.2313330701600911252e1, 6.8718700749205790830e2,
                       5.3941960214247511077e3, 2.1213794301586595867e4, 3.9307895800092710610e4,
                       2.8729085735721942674e4, 5.2264952788528545610e3));
  }
  const Real tail = q < 0.0 ? p : Real(1.0) - p;  // the smaller of p and 1-p
  const Real r = square_root(-log_of(tail));
  Real x;
  if (r <= 5.0) {
    const Real u = r - 1.6;
    x = horner(u, 1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
               3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
               2.27238449892691845833e-2, 7.74545014278341407640e-4) /
        horner(u, 1.0, 2.05319162663775882187e0, 1.67638483018380384940e0,
               6.89767334985100004550e-1, 1.48103976427480074590e-1, 1.51986665636164571966e-2,
               5.47593808499534494600e-4, 1.05075007164441684324e-9);
  } else {
    const Real u = r - 5.0;
    x = horner(u, 6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
               2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
               2.71155556874348757815e-5, 2.01033439929228813265e-7) /
        horner(u, 1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1,
               1.48753612908506148525e-2, 7.86869131145613259100e-4, 1.84631831751005468180e-5,
               1.42151175831644588870e-7, 2.04426310338993978564e-15);
  }
  return q < 0.0 ? -x : x;
}

}  // namespace fused_mixup
