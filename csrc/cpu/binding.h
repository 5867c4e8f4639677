// Turns tensors of PyTorch's stable ABI into raw arguments.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <array>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../common/arguments.h"
#include "parallel.h"

// The newer macro hands on PyTorch's message; the headers of 2.10 and 2.11 do not have it.
#ifdef STABLE_TORCH_ERROR_CODE_CHECK
#define FUSED_MIXUP_CHECK_CALL STABLE_TORCH_ERROR_CODE_CHECK
#else
#define FUSED_MIXUP_CHECK_CALL TORCH_ERROR_CODE_CHECK
#endif

// In Python's stable ABI; needs no GIL.
extern "C" void PyErr_SetInterrupt(void);

namespace fused_mixup {

// The layout of the samples of `dst` [B, …] and, walked alongside, of `src`.
inline Layout layout_of(const Tensor& dst, const Tensor& src, int spatial) {
  const int ndim = int(dst.dim()) - 1;
  return make_layout(dst.sizes().data() + 1, dst.strides().data() + 1, src.strides().data() + 1,
                     ndim, spatial);
}

// Asks for large pages under a tensor that is written next. The system clears the pages of a large
// tensor at their first touch, and in pages of 4 KiB that takes longer than mixing. Only a hint:
// nothing changes where the system disregards it. For tensors whose elements fill their memory, as
// those of empty() and empty_like() do.
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

// empty() by a plain call: torch::stable::empty() looks the op up by its name each time.
template <typename Sizes>
inline Tensor new_tensor(const Sizes& sizes, ScalarType dtype) {
  std::array<int64_t, kMaxDims + 1> strides;
  if (sizes.size() > strides.size()) return torch::stable::empty(sizes, dtype);
  const auto code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= sizes[d] > 1 ? sizes[d] : 1;
  }
  AtenTensorHandle handle = nullptr;
  FUSED_MIXUP_CHECK_CALL(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(),
                                                  strides.data(), code,
                                                  aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

// empty_like(): has the strides of t, also in dims of size 1.
inline Tensor new_like(const Tensor& t) {
  const auto sizes = t.sizes(), strides = t.strides();
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    if (strides[d] != stride) return torch::stable::empty_like(t);
    stride *= sizes[d] > 1 ? sizes[d] : 1;
  }
  return new_tensor(sizes, t.scalar_type());
}

// empty_like() for a result. A large result reuses the memory of an earlier one that is gone, if
// there is any (fused_mixup/memory.py).
inline Tensor new_result_like(const Tensor& t) {
  constexpr int64_t kLarge = int64_t{1} << 20;  // bytes; malloc serves smaller results well
  if (t.numel() * int64_t(t.element_size()) < kLarge) return new_like(t);
  // A Python exception is lost here, as the ABI passes none on. One that ends the first call and
  // not the second came from a signal, Ctrl-C: it is sent again, and raised where this op returns.
  for (bool again : {false, true}) {
    std::array<StableIValue, 1> stack = {torch::stable::detail::from(t)};
    constexpr const char* kOp = FUSED_MIXUP_STRING(FUSED_MIXUP_OPS) "::recycled_like";
    if (torch_call_dispatcher(kOp, "", stack.data(), TORCH_ABI_VERSION)) continue;
    if (again) PyErr_SetInterrupt();
    return on_large_pages(torch::stable::detail::to<Tensor>(stack[0]));
  }
  return on_large_pages(new_like(t));
}

// torch::stable::contiguous(), without its lookup by name where t is contiguous already.
inline Tensor as_contiguous(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}
inline OptionalTensor as_contiguous(const OptionalTensor& t) {
  return t ? OptionalTensor(as_contiguous(*t)) : t;
}

// t [B, n] with rows that are runs of memory, as kernels read them; its rows may be one row.
inline Tensor as_rows(const Tensor& t) {
  return t.stride(1) == 1 || t.size(1) <= 1 ? t : torch::stable::contiguous(t);
}

template <typename T>
T* data(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

// box: int32 [B, 2·D]
inline int spatial_of(const Tensor& box) { return int(box.size(1) / 2); }

// The partner of each sample, by a rule or by a tensor.
class Partners {
 public:
  // partner: int32 [batch], for kTensor; has to outlive this.
  Partners(int64_t pairing, const OptionalTensor& partner, int64_t batch)
      : pairing_(int(pairing)), batch_(batch) {
    if (pairing != kTensor) return;
    if (!partner->is_contiguous()) copy_ = torch::stable::contiguous(*partner);
    indices_ = data<int32_t>(copy_ ? *copy_ : *partner);
  }
  // A function of i that keeps what it needs in registers.
  auto lookup() const {
    return [pairing = pairing_, indices = indices_, batch = batch_](int64_t i) {
      return partner_of(pairing, indices, i, batch);
    };
  }

 private:
  int pairing_;
  int64_t batch_;
  OptionalTensor copy_;
  const int32_t* indices_ = nullptr;
};

}  // namespace fused_mixup
