// Where the values of a rectangle lie in its source, along one axis: PyTorch's rules of
// interpolate(), in float32, each operation rounded by itself on every backend.
#pragma once

#include "layout.h"

namespace fused_mixup {

// The same numbers stand in fused_mixup/codes.py.
enum Resample : int { kRaw = 0, kResizeNearest = 1, kResizeBilinear = 2, kResizeAligned = 3 };
constexpr int kMaxRectangles = 4;

// nvcc would contract a product and a sum; host compilers obey -ffp-contract=off.
FUSED_MIXUP_HOST_DEVICE inline float index_product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
FUSED_MIXUP_HOST_DEVICE inline float index_quotient(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

// One axis of a rectangle; the caller's numbers, not yet inside anything.
struct Axis {
  int64_t start, stop;         // in the result
  int64_t first, source_size;  // in the source
  int64_t extent;              // of the source's sample
  float ratio;                 // steps in the source for one step in the result

  FUSED_MIXUP_HOST_DEVICE bool covers(int64_t p) const {
    return p >= start && p < stop && source_size > 0;
  }
};

// box, source_box: int32 [4] of the rectangle; axis: 0 for rows, 1 for columns; step: float32 [2]
// that takes the place of the ratio, or null.
FUSED_MIXUP_HOST_DEVICE inline Axis axis_of(const int32_t* box, const int32_t* source_box,
                                            const float* step, int axis, int64_t extent,
                                            int resample) {
  Axis a;
  a.start = box[axis];
  a.stop = box[2 + axis];
  a.first = source_box[axis];
  a.source_size = int64_t{source_box[2 + axis]} - a.first;
  a.extent = extent;
  const int64_t size = a.stop - a.start;
  if (resample == kResizeAligned) {
    const int64_t most = a.source_size > 1 ? a.source_size - 1 : 0;
    a.ratio = size > 1 ? index_quotient(float(most), float(size - 1)) : 0.0f;
  } else {
    a.ratio = step ? step[axis] : index_quotient(float(a.source_size), float(size));
  }
  return a;
}

// The two coordinates of the source for one of the result, and the second's weight.
struct Tap {
  int64_t low, high;
  float share;
};

// p: a coordinate that the axis covers.
FUSED_MIXUP_HOST_DEVICE inline Tap tap_of(const Axis& a, int64_t p, int resample) {
  const int64_t at = p - a.start, most = a.source_size - 1;
  int64_t low = at;
  float share = 0.0f;
  if (resample != kRaw) {
    float position;
    if (resample == kResizeBilinear) {
      position = index_product(float(at) + 0.5f, a.ratio) - 0.5f;
    } else {
      position = index_product(float(at), a.ratio);
    }
    if (!(position > 0)) position = 0;  // a NaN too
    const float limit = float(most);
    low = int64_t(position < limit ? position : limit);
    if (low > most) low = most;
    if (resample >= kResizeBilinear) {
      share = position - float(low);
      share = share < 0 ? 0.0f : share > 1 ? 1.0f : share;
    }
  }
  if (low > most) low = most;
  const int64_t high = low < most ? low + 1 : most, last = a.extent - 1;
  const auto inside = [&](int64_t k) {
    k += a.first;
    return k < 0 ? int64_t{0} : k > last ? last : k;
  };
  return {inside(low), inside(high), share};
}

}  // namespace fused_mixup
