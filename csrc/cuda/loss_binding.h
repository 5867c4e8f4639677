// What the bindings of both losses share: tensors become CallArgs, and results become tensors.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "binding.h"
#include "loss_args.cuh"

namespace fused_mixup {

// The strides of t [B, K, d1…] seen as [B, K, S], or of t [B, d1…] seen as [B, S]; none where no
// single stride leads through d1…
inline std::optional<Strides> strides_of(const Tensor& t, bool classes) {
  if (t.numel() == 0)
    return Strides{};  // no element is read; a copy may have no such stride either
  const int64_t first = classes ? 2 : 1;
  int64_t step = 1, below = 1;
  bool found = false;
  for (int64_t k = t.dim() - 1; k >= first; --k) {
    if (t.size(k) == 1) continue;
    if (!found) step = t.stride(k);
    found = true;
    if (t.stride(k) != step * below) return std::nullopt;
    below *= t.size(k);
  }
  return Strides{t.stride(0), classes ? t.stride(1) : 0, step};
}

// t with its strides, or a contiguous copy where no single stride leads through its positions.
inline std::pair<Tensor, Strides> as_strided(const Tensor& t, bool classes = true) {
  const std::optional<Strides> at = strides_of(t, classes);
  if (at.has_value()) return {t, *at};
  Tensor copy = torch::stable::contiguous(t);
  return {copy, *strides_of(copy, classes)};
}

inline std::vector<int64_t> row_shape(const Tensor& logits, int64_t planes = 0) {
  std::vector<int64_t> shape;
  if (planes > 0) shape.push_back(planes);
  for (int64_t k = 0; k < logits.dim(); ++k) {
    if (k != 1) shape.push_back(logits.size(k));
  }
  return shape;
}

// The memory that a gradient is written to: `out` itself, or a contiguous tensor that finish()
// copies to it.
struct GradientPlace {
  Tensor out, written;

  GradientPlace(Tensor to, CallArgs& a) : out(to), written(std::move(to)) {
    std::optional<Strides> at = strides_of(out, true);
    if (!at.has_value()) {
      const std::vector<int64_t> shape(out.sizes().begin(), out.sizes().end());
      written = torch::stable::new_empty(out, shape);
      at = strides_of(written, true);
    }
    a.grad = written.data_ptr();
    a.grad_at = *at;
  }

  void finish() {
    if (written.data_ptr() != out.data_ptr()) torch::stable::copy_(out, written);
  }
};

// The arguments of one call, and the tensors that they point into.
template <typename Args>
struct LossCall : KeptTensors {
  Args args = {};
  ScalarType type;  // the arithmetic type

  LossCall(const Tensor& logits,                  // [B, K, d1…]
           const Tensor& target,                  // [B, K, d1…], or int64 [B, d1…]
           const OptionalTensor& partner_labels,  // int64 [B, d1…]
           const OptionalTensor& weight,          // float32 [B, 2]
           const OptionalTensor& class_weight,    // [K]
           double target_smoothing, int64_t reduction)
      : type(arithmetic(logits)) {
    Args& a = args;
    check_loss(logits, target, partner_labels, weight, class_weight, reduction);
    expect(logits.size(1) < kMostClasses, "logits", "fewer classes");
    const auto [near, at] = as_strided(logits);
    a.dtype = dtype_of(near.scalar_type());
    a.logits = keep(near).const_data_ptr();
    a.logits_at = at;
    a.batch = logits.size(0);
    a.classes = logits.size(1);
    a.positions = 1;
    for (int64_t k = 2; k < logits.dim(); ++k) a.positions *= logits.size(k);
    a.stream = current_stream(logits);
    a.target_smoothing = target_smoothing;
    a.reduction = static_cast<int>(reduction);
    a.class_weight = per_class(class_weight, logits);
    if (partner_labels.has_value()) {
      a.labels = device_data<int64_t>(target, logits);
      a.partner_labels = device_data<int64_t>(*partner_labels, logits);
      a.weight = device_pairs<float>(*weight, logits, a.weight_row);
      return;
    }
    const auto [rows, target_at] = as_strided(near_to(target, logits));
    a.target = keep(rows).const_data_ptr();
    a.target_dtype = dtype_of(rows.scalar_type());
    a.target_at = target_at;
  }

  const void* per_class(const OptionalTensor& weights, const Tensor& logits) {
    if (!weights.has_value()) return nullptr;
    return keep(on_device(*weights, logits)).const_data_ptr();
  }

  Tensor empty(const Tensor& logits, const std::vector<int64_t>& shape) const {
    return torch::stable::new_empty(logits, shape, type);
  }

  // Allocates scratch for `sums` LossSums, which are float64 pairs.
  void scratch(const Tensor& logits, int64_t sums) {
    const std::vector<int64_t> shape = {2 * sums};
    args.partials = static_cast<LossSum*>(
        keep(torch::stable::new_empty(logits, shape, ScalarType::Double)).data_ptr());
  }

  // Takes the upstream gradient. classes: it has a value for every element.
  void upstream(const Tensor& grad_loss, const Tensor& logits, bool classes) {
    const Tensor near = near_to(grad_loss, logits);
    if (near.dim() == 0) {
      args.grad_loss = keep(near).const_data_ptr();
      return;
    }
    const auto [rows, at] = as_strided(near, classes);
    args.grad_loss = keep(rows).const_data_ptr();
    args.grad_loss_at = at;
  }
};

// soft_target_cross_entropy() as compiled in loss.cu, for bindings in other files.
cudaError_t launch_cross_entropy(const LossArgs& a);

}  // namespace fused_mixup
