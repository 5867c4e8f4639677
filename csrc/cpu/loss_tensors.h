// Where the logits of a loss, its dense target and its gradient lie in memory, [B, K, d1, …] each,
// and which way the kernels walk them.
#pragma once

#include <optional>

#include "binding.h"

namespace fused_mixup {

enum class Walk {
  kRows,     // classes are adjacent: [B, K], channels_last
  kColumns,  // positions are adjacent: contiguous [B, K, d1, …]
  kNeither,
};

inline Walk walk_of(const Tensor& t, Strides& out) {
  const auto sizes = t.sizes(), strides = t.strides();
  out = {strides[0], sizes[1] == 1 ? 1 : strides[1], 0};
  int64_t count = 1;
  for (int64_t d = t.dim() - 1; d >= 2; --d) {
    if (sizes[d] == 1) continue;
    if (count == 1) out.positions = strides[d];
    if (strides[d] != count * out.positions) return Walk::kNeither;
    count *= sizes[d];
  }
  if (count > 1 && out.positions == 1) return Walk::kColumns;
  return out.classes == 1 ? Walk::kRows : Walk::kNeither;
}

// A tensor [B, K, d1, …] seen as [B, K, S].
struct StridedTensor {
  Tensor tensor;
  Strides stride = {};
  void* data;  // kept here, as each data_ptr() is a call through the ABI

  explicit StridedTensor(const Tensor& t) : tensor(t), data(t.data_ptr()) {}

  template <typename T>
  T* at(int64_t b, int64_t s) const {
    return static_cast<T*>(data) + b * stride.batch + s * stride.positions;
  }
};

// The tensors of one call of a loss, all walked the same way. A tensor that does not lie for that
// walk is replaced by a contiguous copy.
struct LossTensors {
  int64_t batch, k, inner;  // B, K, S = d1·d2·…
  Walk walk;
  StridedTensor logits;
  std::optional<StridedTensor> target;
  // Where the gradient is written: memory of the result, or a copy that finish() moves there.
  std::optional<StridedTensor> grad;
  std::optional<Tensor> result;

  int64_t rows() const { return batch * inner; }

  // into: the result of the gradient, which is empty_like(logits), or the logits themselves.
  LossTensors(const Tensor& z,     // [B, K, d1, …]
              const Tensor* t,     // [B, K, d1, …] or null
              const Tensor* into,  // [B, K, d1, …] or null
              bool contiguous_only = false)
      : batch(z.size(0)), k(z.size(1)), inner(1), logits(z) {
    for (int64_t d = 2; d < z.dim(); ++d) inner *= z.size(d);
    if (t != nullptr) target.emplace(*t);
    if (into != nullptr) result = *into, grad.emplace(*into);
    walk = walk_of(z, logits.stride);
    const bool fits = walk != Walk::kNeither &&
                      (t == nullptr || walk_of(*t, target->stride) == walk) &&
                      (into == nullptr || walk_of(*into, grad->stride) == walk);
    if (fits && !(contiguous_only && !all_contiguous())) return;
    const bool in_place = into != nullptr && grad->data == logits.data;
    walk = replace(logits, as_contiguous(z));
    if (t != nullptr) replace(*target, as_contiguous(*t));
    if (into == nullptr) return;
    if (in_place) {
      replace(*grad, logits.tensor);
    } else if (!into->is_contiguous()) {
      replace(*grad, new_tensor(into->sizes(), into->scalar_type()));
    } else {
      replace(*grad, *into);
    }
  }

  void finish() {
    if (grad->data != result->data_ptr()) {
      torch::stable::copy_(*result, grad->tensor);
    }
  }

 private:
  bool all_contiguous() const {
    return logits.tensor.is_contiguous() && (!target || target->tensor.is_contiguous()) &&
           (!grad || grad->tensor.is_contiguous());
  }
  static Walk replace(StridedTensor& strided, const Tensor& t) {
    strided = StridedTensor(t);
    return walk_of(t, strided.stride);
  }
};

}  // namespace fused_mixup
