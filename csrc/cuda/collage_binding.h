// Samples of tensors [B, outer…, H, W] as the kernels of collage.cuh take them.
#pragma once

#include <initializer_list>

#include "../common/collage_arguments.h"
#include "binding.h"
#include "collage.cuh"

namespace fused_mixup {

// The shape of the samples of `first`, and the strides of all tensors of the call, whose outer dims
// are alike. Dims that continue each other in all of them become one.
inline LineShape line_shape(const Tensor& first, std::initializer_list<const Tensor*> tensors,
                            std::initializer_list<LineStrides*> strides) {
  const int64_t ndim = first.dim();
  LineShape shape = {1, first.size(ndim - 2), first.size(ndim - 1), 1, 0, {}};
  const auto all = [&](auto holds) { return std::all_of(tensors.begin(), tensors.end(), holds); };
  int64_t channels = -1;
  for (int64_t d = 1; d + 2 < ndim && channels < 0; ++d) {
    if (first.size(d) > 1 &&
        all([&](const Tensor* t) { return t->stride(d) == 1 && t->stride(t->dim() - 1) != 1; })) {
      channels = d;
      shape.inner = first.size(d);
    }
  }
  auto out = strides.begin();
  for (const Tensor* t : tensors) {
    **out = {t->stride(0), t->stride(ndim - 2), t->stride(ndim - 1), {}};
    ++out;
  }
  int64_t last = -1;  // the dim that was taken last
  for (int64_t d = 1; d + 2 < ndim; ++d) {
    if (d == channels || first.size(d) == 1) continue;
    shape.planes *= first.size(d);
    const bool continues = last >= 0 && all([&](const Tensor* t) {
                             return t->stride(last) == t->stride(d) * first.size(d);
                           });
    if (!continues) shape.size[shape.ndim++] = 1;
    shape.size[shape.ndim - 1] *= first.size(d);
    out = strides.begin();
    for (const Tensor* t : tensors) {
      (*out)->plane[shape.ndim - 1] = t->stride(d);
      ++out;
    }
    last = d;
  }
  return shape;
}

}  // namespace fused_mixup
