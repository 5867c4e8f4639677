// The masks of samples in registers: m of the V elements of a vector, or of one pixel.
//
// A thread computes its vector's mask once and uses it for every dim between the batch and the
// image (the channels), so that a mask costs a fraction of what the samples do. Its tables and its
// map are small and stay in cache. All threads of a block have the same sample: what its code
// decides is the same for all of them.
#pragma once

#include "../common/masks.h"
#include "geometry.cuh"
#include "row_vectors.cuh"

namespace fused_mixup {

struct MaskParams {
  MaskArgs args;
  float ratio_y, ratio_x;  // pixels of the map per pixel of the image
  bool wide;               // columns are read 16 bytes at a time
};

// Where a vector lies in the image: its elements are pixels (y, x), (y, x + 1) ..., each of them
// `group` elements long and the first of them `skipped` elements shorter.
struct Pixels {
  int y, x;
  int group, skipped;
};

struct SampleMask {
  int32_t code;
  float threshold;
  const float *rows, *columns;  // [rank, height], [rank, width]
  int64_t map;                  // the first element of the sample's map

  __device__ __forceinline__ SampleMask(const MaskArgs& a, int64_t i) : code(a.code_of(i)) {
    if (!masked()) return;
    threshold = a.threshold[i * a.threshold_stride];
    rows = a.rows + i * a.rows_stride;
    columns = a.columns + i * a.columns_stride;
    map = i * a.map_stride;
  }

  __device__ __forceinline__ bool masked() const { return (code & kMaskForm) != 0; }
  __device__ __forceinline__ bool separable(const MaskArgs& a) const {
    return (code & kMaskForm) == kSeparable && a.rank > 0;
  }
  __device__ __forceinline__ bool stored(const MaskArgs& a) const {
    return (code & kMaskForm) == kStored && a.map != nullptr;
  }
};

// Calls f with the map as a pointer of its type.
template <typename F>
__device__ __forceinline__ void with_map(const MaskArgs& a, F&& f) {
  switch (a.map_type) {
    case MapType::kByte:
      return f(static_cast<const uint8_t*>(a.map));
    case MapType::kHalf:
      return f(static_cast<const __half*>(a.map));
    case MapType::kBFloat16:
      return f(static_cast<const __nv_bfloat16*>(a.map));
    default:
      return f(static_cast<const float*>(a.map));
  }
}

__device__ __forceinline__ float map_value(uint8_t v) { return Number<uint8_t>::up(v); }
__device__ __forceinline__ float map_value(__half v) { return Number<__half>::up(v); }
__device__ __forceinline__ float map_value(__nv_bfloat16 v) { return Number<__nv_bfloat16>::up(v); }
__device__ __forceinline__ float map_value(float v) { return v; }

// The lines of a map between which line y of the image lies; for nearest, the first alone counts.
struct MapLines {
  int64_t first, second;  // their first elements
  float weight;           // of the second

  __device__ __forceinline__ MapLines(const MaskParams& p, const SampleMask& mask, int y) {
    const MaskArgs& a = p.args;
    int64_t line, next;
    if (a.interpolation == kBilinear) {
      const BilinearSource source = bilinear_source(y, p.ratio_y, a.map_height);
      line = source.first;
      next = source.second;
      weight = source.weight;
    } else {
      line = next = nearest_source(y, p.ratio_y, a.map_height);
      weight = 0;
    }
    first = mask.map + line * a.map_width;
    second = mask.map + next * a.map_width;
  }
};

__device__ __forceinline__ float map_at(const MaskParams& p, const MapLines& lines, int x) {
  const MaskArgs& a = p.args;
  if (a.interpolation == kNearest) {
    const int64_t at = lines.first + nearest_source(x, p.ratio_x, a.map_width);
    float value;
    with_map(a, [&](const auto* map) { value = map_value(map[at]); });
    return value;
  }
  const BilinearSource source = bilinear_source(x, p.ratio_x, a.map_width);
  float corners[4];
  with_map(a, [&](const auto* map) {
    corners[0] = map_value(map[lines.first + source.first]);
    corners[1] = map_value(map[lines.first + source.second]);
    corners[2] = map_value(map[lines.second + source.first]);
    corners[3] = map_value(map[lines.second + source.second]);
  });
  return interpolate(interpolate(corners[0], corners[1], source.weight),
                     interpolate(corners[2], corners[3], source.weight), lines.weight);
}

__device__ __forceinline__ float sum_at(const MaskArgs& a, const SampleMask& mask, int y, int x) {
  float s = rounded_product(mask.rows[y], mask.columns[x]);
  for (int k = 1; k < a.rank; ++k) {
    s = add(s, rounded_product(mask.rows[k * a.height + y], mask.columns[k * a.width + x]));
  }
  return s;
}

// The same for V adjacent pixels of a line.
template <int V>
__device__ __forceinline__ void sums_at(const MaskParams& p, const SampleMask& mask, int y, int x,
                                        float (&s)[V]) {
#pragma unroll
  for (int k = 0; k < kMaskRank; ++k) {
    if (k >= p.args.rank) break;
    const float row = mask.rows[k * p.args.height + y];
    const Elements<float, V> columns =
        load_any<V>(mask.columns + k * p.args.width + x, V > 1 && p.wide);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const float product = rounded_product(row, columns.e[e]);
      s[e] = k == 0 ? product : add(s[e], product);
    }
  }
}

template <int V, typename F>
__device__ __forceinline__ void for_each_element(float (&s)[V], F&& f) {
#pragma unroll
  for (int e = 0; e < V; ++e) s[e] = f(s[e]);
}

// m of each element of a vector.
template <int V>
__device__ __forceinline__ void mask_values(const MaskParams& p, const SampleMask& mask,
                                            const Pixels& at, float (&m)[V]) {
  const bool separable = mask.separable(p.args);
  if (separable && at.group == 1) {
    sums_at<V>(p, mask, at.y, at.x, m);
  } else {
    const bool stored = mask.stored(p.args);
    const MapLines lines(p, mask, at.y);
    int x = at.x, left = at.group - at.skipped;
    float s = 0;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      if (e == 0 || left == at.group) {
        if (separable) s = sum_at(p.args, mask, at.y, x);
        if (stored) s = map_at(p, lines, x);
      }
      m[e] = s;
      if (--left == 0) {
        left = at.group;
        ++x;
      }
    }
  }
  // The function is the same for all: one decision for the vector.
  const float threshold = mask.threshold;
  switch (mask.code & kMaskFunction) {
    case kThreshold:
      for_each_element(m, [=](float s) { return finish_mask(s, kThreshold, threshold); });
      break;
    case kParity:
      for_each_element(m, [=](float s) { return finish_mask(s, kParity, threshold); });
      break;
    case kSigmoid:
      for_each_element(m, [=](float s) { return finish_mask(s, kSigmoid, threshold); });
      break;
    default:
      break;
  }
  if ((mask.code & kInvert) != 0) for_each_element(m, [](float s) { return 1 - s; });
}

}  // namespace fused_mixup
