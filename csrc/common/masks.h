// Masks of samples: how a kernel finds the share m of a sample at a pixel.
//
// m comes from few numbers, so that no mask of the image's size is read: a sum of products of a
// value per row and a value per column, or a small map that is upsampled. Both backends compute the
// same bits, but for the sigmoid. Nothing here depends on PyTorch.
#pragma once

#include <cmath>
#include <cstdint>

#include "layout.h"

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
  const int source = static_cast<int>(static_cast<float>(at) * ratio);
  return source < in ? source : in - 1;
}

// The two neighbours of a pixel in the map, and the weight of the second.
struct BilinearSource {
  int first, second;
  float weight;
};
FUSED_MIXUP_HOST_DEVICE inline BilinearSource bilinear_source(int at, float ratio, int in) {
  float position = (static_cast<float>(at) + 0.5f) * ratio - 0.5f;
  position = position > 0 ? position : 0;
  int first = static_cast<int>(position);
  first = first < in ? first : in - 1;
  const float weight = position - static_cast<float>(first);
  return {first, first + 1 < in ? first + 1 : in - 1, weight};
}

FUSED_MIXUP_HOST_DEVICE inline float interpolate(float a, float b, float weight) {
  return (1 - weight) * a + weight * b;
}

// What follows the sum or the map: m of s.
FUSED_MIXUP_HOST_DEVICE inline float finish_mask(float s, int32_t code, float threshold) {
  float m = s;
  const int32_t function = code & kMaskFunction;
  if (function == kThreshold) m = s > threshold ? 1.0f : 0.0f;
  if (function == kParity) m = static_cast<float>(static_cast<int>(s) & 1);
  if (function == kSigmoid) m = 1 / (1 + expf(-s));
  return code & kInvert ? 1 - m : m;
}

// m rounded to a whole number of 2^-24: sums of these are exact, in any order.
FUSED_MIXUP_HOST_DEVICE inline int64_t whole_mask(float m) {
  const float kept = m > 0 ? (m < 1 ? m : 1) : 0;
  return static_cast<int64_t>(rintf(kept * kMaskScale));
}

FUSED_MIXUP_HOST_DEVICE inline float mean_of_mask(int64_t total, int height, int width) {
  return static_cast<float>(static_cast<double>(total) /
                            (static_cast<double>(height) * width * kMaskScale));
}

}  // namespace fused_mixup
