// Tensors of PyTorch's stable ABI as raw arguments.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>

#if defined(__linux__)
#include <sys/mman.h>
#endif

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

// Asks for large pages under a tensor that is written next. A large one lies on memory that the
// system hands out cleared at the first touch of each page, and 4 KiB at a time that takes longer
// than mixing. Only a hint: nothing changes where it is not taken. For tensors whose elements fill
// the memory they lie in, as those of empty() and empty_like() do.
inline const Tensor& on_large_pages(const Tensor& t) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{2} << 20;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(t.data_ptr());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + t.numel() * t.element_size()) / kPage * kPage;
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
  return t;
}

inline int spatial_of(const Tensor& box) { return int(box.size(1) / 2); }

}  // namespace fused_mixup
