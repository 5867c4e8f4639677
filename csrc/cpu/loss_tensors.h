// Where the logits of a loss, its dense target and its gradient lie, [B, K, d1, …] each, and which
// way the kernels walk them.
#pragma once

#include <optional>

#include "binding.h"

namespace fused_mixup {

// Element (b, c, s) lies at b·batch + c·cls + s·pos, with s = 0 … d1·d2·… - 1.
struct Strides {
  int64_t batch = 0, cls = 1, pos = 0;
};

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
    if (count == 1) out.pos = strides[d];
    if (strides[d] != count * out.pos) return Walk::kNeither;
    count *= sizes[d];
  }
  if (count > 1 && out.pos == 1) return Walk::kColumns;
  return out.cls == 1 ? Walk::kRows : Walk::kNeither;
}

struct Placed {
  Tensor tensor;
  Strides stride;
  void* data;  // asked for once: the tensor answers through the ABI

  explicit Placed(const Tensor& t) : tensor(t), data(t.data_ptr()) {}

  template <typename T>
  T* at(int64_t b, int64_t s) const {
    return static_cast<T*>(data) + b * stride.batch + s * stride.pos;
  }
};

// The tensors of one call, all walked the same way. Those that do not lie for it are replaced by
// contiguous copies.
struct Places {
  int64_t batch, k, inner;  // B, K, S = d1·d2·…
  Walk walk;
  Placed logits;
  std::optional<Placed> target;
  // Where the gradient is written: memory of the result, or a copy that finish() moves there.
  std::optional<Placed> grad;
  std::optional<Tensor> result;

  int64_t rows() const { return batch * inner; }

  // result: empty_like(logits), or the logits to write over them.
  Places(const Tensor& z, const Tensor* t, const Tensor* into, bool contiguous_only = false)
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
    walk = put(logits, as_contiguous(z));
    if (t != nullptr) put(*target, as_contiguous(*t));
    if (into == nullptr) return;
    if (in_place) {
      put(*grad, logits.tensor);
    } else if (!into->is_contiguous()) {
      put(*grad, new_tensor(into->sizes(), into->scalar_type()));
    } else {
      put(*grad, *into);
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
  static Walk put(Placed& placed, const Tensor& t) {
    placed = Placed(t);
    return walk_of(t, placed.stride);
  }
};

}  // namespace fused_mixup
