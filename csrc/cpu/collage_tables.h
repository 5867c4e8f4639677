// What mix_rectangles asks of each instruction set.
#pragma once

#include <cstdint>

#include "scalar_types.h"

namespace fused_mixup {

template <typename T>
struct CollageKernels {
  using A = acc_t<T>;
  // dst = src, as numbers of the arithmetic type
  void (*widen)(A* dst, const T* src, int64_t n);
  // dst[i] = own[i]·src[low[i]] + other[i]·src[high[i]], a weight of 0 dropping its term
  void (*interpolate)(A* dst, const A* src, const int32_t* low, const int32_t* high, const A* own,
                      const A* other, int64_t n);
  // dst = own·a + other·b, a weight of 0 dropping its term, rounded once
  void (*blend_lines)(T* dst, const A* a, const A* b, int64_t n, A own, A other);
};

}  // namespace fused_mixup
