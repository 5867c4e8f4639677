// The inner loops that exist once per instruction set, as tables of function pointers.
//
// kernels_baseline.cpp, kernels_avx2.cpp and kernels_avx512.cpp each compile the same *.inl files;
// kernels() picks the best table that this CPU can run, once. Everything else in csrc/cpu is
// compiled for the baseline and calls through the table, a run of elements at a time.
#pragma once

#include <cstdint>
#include <type_traits>

namespace fused_mixup {

// Storage-only types; arithmetic is float.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename T>
using acc_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Rows that each blend with the next, written in one pass: as many streams of memory side by side.
constexpr int kChainRows = 4;

template <typename T>
struct MixKernels {
  using A = acc_t<T>;
  // dst = w0·own + w1·partner, a weight of 0 dropping its term. dst may be own or partner.
  // ahead: n elements that are read next; they come into the cache meanwhile.
  void (*blend)(T* dst, const T* own, const T* partner, const T* ahead, int64_t n, A w0, A w1);
  // a, b = a0·a + a1·b, b0·b + b1·a, all four weights used.
  void (*blend_pair)(T* a, T* b, int64_t n, A a0, A a1, A b0, A b1);
  // rows[k] = own[k]·rows[k] + other[k]·rows[k+1] for k < kChainRows, from the values before; all
  // weights used.
  void (*blend_chain)(T* const* rows, int64_t n, const A* own, const A* other);
  // sum += w·src
  void (*accumulate)(A* sum, const T* src, int64_t n, A w);
  // dst = sum, rounded once
  void (*round)(T* dst, const A* sum, int64_t n);
  // n groups of `channels` neighbours, taken apart: dst[c·stride + i] = src[i·channels + c]
  void (*split)(T* dst, int64_t stride, const T* src, int64_t n, int64_t channels);
};

// What one sweep over a row of K logits leaves. All sums are relative to the maximum.
struct RowSums {
  double max;      // m = max z
  double exp;      // Σ exp(z - m)
  double shifted;  // Σ (z - m); only where asked for
  double target;   // Σ t; dense targets only
  double product;  // Σ t (z - m), terms with t = 0 dropped; dense targets only
};

// L: type of the logits, T: type of a dense target.
template <typename L, typename T>
struct LossKernels {
  using A = acc_t<L>;
  // target: [K], or null for a sparse target.
  RowSums (*forward)(const L* z, const T* target, int64_t k, bool want_shifted);
  // grad = p_scale · exp((z - max) - log_sum) - t_scale · t - constant; target null: no t.
  void (*backward)(L* grad, const L* z, const T* target, int64_t k, A max, A log_sum, A p_scale,
                   A t_scale, A constant);
};

struct Kernels {
  const char* name;
  MixKernels<float> mix_float;
  MixKernels<double> mix_double;
  MixKernels<Half> mix_half;
  MixKernels<BFloat16> mix_bfloat16;
  MixKernels<uint8_t> mix_uint8;
  LossKernels<float, float> loss_float;
  LossKernels<double, double> loss_double;
  LossKernels<Half, Half> loss_half;
  LossKernels<Half, float> loss_half_float;
  LossKernels<BFloat16, BFloat16> loss_bfloat16;
  LossKernels<BFloat16, float> loss_bfloat16_float;
};

// The table in use: the best the CPU can run, or the one that FUSED_MIXUP_CPU names
// (baseline, avx2, avx512) where the CPU can run it.
const Kernels& kernels();

template <typename T>
const MixKernels<T>& mix_kernels() {
  const Kernels& k = kernels();
  if constexpr (std::is_same_v<T, float>) return k.mix_float;
  if constexpr (std::is_same_v<T, double>) return k.mix_double;
  if constexpr (std::is_same_v<T, Half>) return k.mix_half;
  if constexpr (std::is_same_v<T, BFloat16>) return k.mix_bfloat16;
  if constexpr (std::is_same_v<T, uint8_t>) return k.mix_uint8;
}

template <typename L, typename T>
const LossKernels<L, T>& loss_kernels() {
  const Kernels& k = kernels();
  if constexpr (std::is_same_v<L, float>) return k.loss_float;
  if constexpr (std::is_same_v<L, double>) return k.loss_double;
  if constexpr (std::is_same_v<L, Half> && std::is_same_v<T, Half>) return k.loss_half;
  if constexpr (std::is_same_v<L, Half> && std::is_same_v<T, float>) return k.loss_half_float;
  if constexpr (std::is_same_v<L, BFloat16> && std::is_same_v<T, BFloat16>) return k.loss_bfloat16;
  if constexpr (std::is_same_v<L, BFloat16> && std::is_same_v<T, float>) {
    return k.loss_bfloat16_float;
  }
}

// Half precision in scalar code, for the baseline and for single elements. Round half to even.
inline float bits_to_float(uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
inline uint32_t float_to_bits(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  return u;
}

inline float to_float(float v) { return v; }
inline double to_float(double v) { return v; }
inline float to_float(uint8_t v) { return v; }
inline float to_float(BFloat16 v) { return bits_to_float(uint32_t(v.bits) << 16); }
inline float to_float(Half v) {
  const uint32_t sign = uint32_t(v.bits & 0x8000) << 16;
  const uint32_t magnitude = v.bits & 0x7fff;
  if (magnitude >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // The bits read as a float are the value times 2^-112, denormals included.
  const float value = bits_to_float(magnitude << 13) * bits_to_float(0x77800000);
  return bits_to_float(sign | float_to_bits(value));
}

template <typename T>
T from_float(acc_t<T> v) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const uint32_t u = float_to_bits(v);
    if (v != v) return {uint16_t((u >> 16) | 0x40)};
    return {uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
  } else if constexpr (std::is_same_v<T, Half>) {
    const uint32_t u = float_to_bits(v);
    const uint16_t sign = uint16_t((u >> 16) & 0x8000);
    const uint32_t magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000) {
      return {uint16_t(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff))};
    }
    if (magnitude >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // 65520 and up: infinity
    if (magnitude < 0x38800000) {  // below 2^-14: adding 0.5 rounds at the denormals' last bit
      const float shifted = bits_to_float(magnitude) + 0.5f;
      return {uint16_t(sign | (float_to_bits(shifted) - 0x3f000000))};
    }
    const uint32_t odd = (magnitude >> 13) & 1;
    return {uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + odd) >> 13))};
  } else if constexpr (std::is_same_v<T, uint8_t>) {
    const float r = __builtin_nearbyintf(v);
    return r <= 0 ? 0 : r >= 255 ? 255 : uint8_t(r);
  } else {
    return v;
  }
}

}  // namespace fused_mixup
