// Tensors of PyTorch's stable ABI as raw arguments.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>

#include "../common/layout.h"

namespace fused_mixup {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The layout of the samples of `dst` [B, …] and, walked alongside, of `src`.
inline Layout layout_of(const Tensor& dst, const Tensor& src, int spatial) {
  const int ndim = int(dst.dim()) - 1;
  return make_layout(dst.sizes().data() + 1, dst.strides().data() + 1, src.strides().data() + 1,
                     ndim, spatial);
}

inline int spatial_of(const Tensor& box) { return int(box.size(1) / 2); }

}  // namespace fused_mixup
