// The inner loops that compute masks and mix by them, as tables of function pointers; see
// kernels.h.
#pragma once

#include "../common/masks.h"
#include "scalar_types.h"

namespace fused_mixup {

struct MaskKernels {
  // m = Σ_k r[k] · columns[k·stride + i], every product and sum rounded by itself
  void (*separable)(float* m, const float* r, const float* columns, int64_t stride, int rank,
                    int64_t n);
  // m = what the code makes of m
  void (*finish)(float* m, int64_t n, int32_t code, float threshold);
  // m = (1 - weight)·top + weight·bottom
  void (*interpolate)(float* m, const float* top, const float* bottom, float weight, int64_t n);
  // Σ rint(m·2^24)
  int64_t (*sum)(const float* m, int64_t n);
};

template <typename T>
struct MaskedKernels {
  using A = acc_t<T>;
  // dst = m·own + (1-m)·partner; m of 1 or 0 gives own or partner as it is. dst may be either.
  void (*blend)(T* dst, const T* own, const T* partner, const float* m, int64_t n);
  // a, b = ma·a + (1-ma)·b, mb·b + (1-mb)·a
  void (*blend_pair)(T* a, T* b, const float* ma, const float* mb, int64_t n);
  // sum += m·src, or (1-m)·src; a factor of 0 drops its term.
  void (*accumulate)(A* sum, const T* src, const float* m, int64_t n, bool complement);
};

}  // namespace fused_mixup
