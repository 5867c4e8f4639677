// Masks of samples: how a kernel finds the share m of a sample at a pixel.
//
// m comes from few numbers, so that no mask of the image's size is read: a sum of products of a
// value per row and a value per column, or a small map that is upsampled. Every operation is
// rounded on its own, so that all backends compute the same bits, but for the sigmoid. Nothing here
// depends on PyTorch.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "rounding.h"

namespace fused_mixup {

// The bits of a mask's code; the same numbers stand in fused_mixup/codes.py.
enum MaskCode : int32_t {
  kSeparable = 1,
  kStored = 2,
  kMaskForm = 3,
  kThreshold = 4,
  kParity = 8,
  kSigmoid = 12,
  kMaskFunction = 12,
  kInvert = 16,
};
constexpr int kMaskRank = 4;
constexpr float kMaskScale = 1 << 24;  // masks are summed as whole numbers of 2^-24

enum Interpolation : int { kNearest = 0, kBilinear = 1 };

// The types that a map is stored in; bool and uint8 are read alike.
enum class MapType : int { kByte, kHalf, kBFloat16, kFloat };

// The arguments of the ops. A stride of 0 along the batch: all samples share one row.
struct MaskArgs {
  const int32_t* code = nullptr;  // [B]; null: no sample has a mask
  int64_t code_stride = 0;
  const float* threshold = nullptr;  // [B]
  int64_t threshold_stride = 0;
  const float* rows = nullptr;  // [B, rank, height]
  int64_t rows_stride = 0;
  const float* columns = nullptr;  // [B, rank, width]
  int64_t columns_stride = 0;
  int rank = 0;
  const void* map = nullptr;  // [B, map_height, map_width]
  int64_t map_stride = 0;     // in elements
  MapType map_type = MapType::kFloat;
  int map_height = 1, map_width = 1;
  int interpolation = kNearest;
  int height = 1, width = 1;

  FUSED_MIXUP_HOST_DEVICE int32_t code_of(int64_t i) const {
    return code == nullptr ? 0 : code[i * code_stride];
  }
  // Whether all samples have the same mask.
  bool shared() const {
    return code_stride == 0 && threshold_stride == 0 && rows_stride == 0 && columns_stride == 0 &&
           map_stride == 0;
  }
};

// in / out, rounded to float32 before it multiplies, as F.interpolate does it.
FUSED_MIXUP_HOST_DEVICE inline float map_ratio(int in, int out) {
  return static_cast<float>(in) / static_cast<float>(out);
}

FUSED_MIXUP_HOST_DEVICE inline int nearest_source(int at, float ratio, int in) {
  const int source = static_cast<int>(rounded_product(static_cast<float>(at), ratio));
  return source < in ? source : in - 1;
}

// The two neighbours of a pixel in the map, and the weight of the second.
struct BilinearSource {
  int first, second;
  float weight;
};
FUSED_MIXUP_HOST_DEVICE inline BilinearSource bilinear_source(int at, float ratio, int in) {
  float position = rounded_product(static_cast<float>(at) + 0.5f, ratio) - 0.5f;
  position = position > 0 ? position : 0;
  int first = static_cast<int>(position);
  first = first < in ? first : in - 1;
  const float weight = position - static_cast<float>(first);
  return {first, first + 1 < in ? first + 1 : in - 1, weight};
}

FUSED_MIXUP_HOST_DEVICE inline float interpolate(float a, float b, float weight) {
  return rounded_product(1 - weight, a) + rounded_product(weight, b);
}

// 2^n for -126 <= n <= 127.
FUSED_MIXUP_HOST_DEVICE inline float power_of_two(int32_t n) {
  const uint32_t bits = static_cast<uint32_t>(n + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof(power));
  return power;
}

// 1 / (1 + exp(-s)) to 2 units in the last place, from sums and products alone.
FUSED_MIXUP_HOST_DEVICE inline float sigmoid_of(float s) {
  float x = -s;
  if (!(x < 104)) return x > 0 ? 0 : x;  // half of the smallest float; NaN stays
  x = x > -30 ? x : -30;                 // below, 1 + exp(x) is 1
  // exp(x) = 2^n (1 + q), where x = n ln2 + r and q = exp(r) - 1. The first part of ln2 has so few
  // bits that its product with n is exact.
  const float magic = 12582912.0f;  // 1.5 * 2^23: leaves n in the low bits
  const float shifted = rounded_product(x, 1.44269504088896341f) + magic;
  const float whole = shifted - magic;
  const float r =
      (x - rounded_product(whole, 0.693359375f)) - rounded_product(whole, -2.12194440054690583e-4f);
  float q = 1.9875691500e-4f;
  q = rounded_product(q, r) + 1.3981999507e-3f;
  q = rounded_product(q, r) + 8.3334519073e-3f;
  q = rounded_product(q, r) + 4.1665795894e-2f;
  q = rounded_product(q, r) + 1.6666665459e-1f;
  q = rounded_product(q, r) + 5.0000001201e-1f;
  q = rounded_product(q, rounded_product(r, r)) + r;
  int32_t bits;
  memcpy(&bits, &shifted, sizeof(bits));
  const int32_t n = bits - 0x4b400000;
  // Of 1, the power and q those two are added first whose sum is exact, or small: so that two
  // roundings make most of the error.
  if (n <= 0) {
    const float power = power_of_two(n), rest = rounded_product(power, q);
    return 1 / (n > -12 ? (1 + power) + rest : 1 + (power + rest));
  }
  const float power = power_of_two(n < 126 ? -n : -126);
  const float scaled = 1 / (n < 12 ? (1 + power) + q : 1 + (power + q));
  const int32_t half = n / 2;  // two steps, as 2^-n may be no normal number
  return rounded_product(rounded_product(scaled, power_of_two(-half)), power_of_two(half - n));
}

// What follows the sum or the map: m of s.
FUSED_MIXUP_HOST_DEVICE inline float finish_mask(float s, int32_t code, float threshold) {
  float m = s;
  const int32_t function = code & kMaskFunction;
  if (function == kThreshold) m = s > threshold ? 1.0f : 0.0f;
  // Floats from 2^24 on are even, and no int holds the largest.
  if (function == kParity) m = fabsf(s) < kMaskScale ? static_cast<float>(int(s) & 1) : 0.0f;
  if (function == kSigmoid) m = sigmoid_of(s);
  return code & kInvert ? 1 - m : m;
}

// m rounded to a whole number of 2^-24: sums of these are exact, in any order.
FUSED_MIXUP_HOST_DEVICE inline int64_t whole_mask(float m) {
  const float kept = m > 0 ? (m < 1 ? m : 1) : 0;
  return static_cast<int64_t>(rintf(rounded_product(kept, kMaskScale)));
}

FUSED_MIXUP_HOST_DEVICE inline float mean_of_mask(int64_t total, int height, int width) {
  return static_cast<float>(static_cast<double>(total) /
                            (static_cast<double>(height) * width * kMaskScale));
}

}  // namespace fused_mixup
