// Arguments of the kernels of mix_normalize.
#pragma once

#include "scalar_types.h"

namespace fused_mixup {

// The constants of each element of a run, whose channels repeat: value `i mod period` serves
// element i, but for the order inside a block that NormalizeKernels::spread gives.
struct ChannelConstants {
  const float* mean;
  const float* std;
  const float* inverse;  // 1 / std
  int64_t period;
  bool exact_inverse;  // whether a product, corrected once, equals the quotient for every byte
};

// The weights of two rows, each of which is the other's partner: a = own_a·a + other_a·b, and
// b = own_b·b + other_b·a.
struct PairWeights {
  float own_a, other_a, own_b, other_b;
};

// S: uint8_t or float, in the order in which the result lies. U: the type of the result. Every
// result is n(v) = (v - mean) / std, blended, each operation rounded to float, and once to U.
template <typename S, typename U>
struct NormalizeKernels {
  // Spreads one value for each channel over a period, in the order of the kernels below, and
  // returns the period. pattern: kMaxPeriod(channels) floats.
  int64_t (*spread)(float* pattern, const float* values, int64_t channels);
  // dst = n(src)
  void (*normalize)(U* dst, const S* src, int64_t n, const ChannelConstants& c);
  // dst = own_weight·n(own) + other_weight·n(other), a weight of 0 dropping its term.
  void (*blend)(U* dst, const S* own, const S* other, int64_t n, const ChannelConstants& c,
                float own_weight, float other_weight);
  // blend() for two rows; no weight is 0.
  void (*blend_pair)(U* dst_a, U* dst_b, const S* a, const S* b, int64_t n,
                     const ChannelConstants& c, const PairWeights& w);
};

// The most floats of a period: 32 elements are the longest block.
constexpr int64_t max_period(int64_t channels) { return 32 * channels; }

constexpr int64_t kNoiseStep = 16;

// How pixels are brought into the order of the result, and what fills them.
struct PixelKernels {
  // dst[3·i + c] = src[c·stride + i] for n pixels
  void (*join_three)(uint8_t* dst, const uint8_t* src, int64_t stride, int64_t n);
  // dst = the n pixels of `channels` bytes in reverse order
  void (*reverse)(uint8_t* dst, const uint8_t* src, int64_t n, int64_t channels);
  // Whether (b - mean) · inverse, corrected once, is (b - mean) / std for all bytes b.
  bool (*inverse_is_exact)(float mean, float std, float inverse);
  void (*widen_half)(float* dst, const Half* src, int64_t n);
  void (*widen_bfloat16)(float* dst, const BFloat16* src, int64_t n);
  // dst[c·stride + i] = the noise of channel 4·block + c of pixel `pixel + i`, for four channels
  // and n pixels, rounded up to kNoiseStep.
  void (*noise)(float* dst, int64_t stride, int64_t key, int64_t pixel, int64_t n, uint32_t block);
};

}  // namespace fused_mixup
