// soft_target_cross_entropy and its backward for CUDA tensors. Kernels: loss.cuh.
#include <tuple>
#include <vector>

#include "binding.h"
#include "loss.cuh"

namespace fused_mixup {
namespace {

using Optional = std::optional<Tensor>;

ScalarType arithmetic(const Tensor& logits) {
  return logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Keeps what the arguments point to alive until the launch.
struct Call {
  LossArgs args = {};
  Tensor target;
  Optional partner_labels, weight;
};

Call prepare(const Tensor& logits,            // [B, K]
             const Tensor& target,            // [B, K], or int64 [B]
             const Optional& partner_labels,  // int64 [B]
             const Optional& weight,          // float32 [B, 2]
             double target_smoothing, double label_smoothing, int64_t reduction) {
  STD_TORCH_CHECK(logits.dim() == 2);
  Call call{{}, target, std::nullopt, std::nullopt};
  LossArgs& a = call.args;
  a.dtype = dtype_of(logits.scalar_type());
  a.logits = logits.const_data_ptr();
  a.batch = logits.size(0);
  a.classes = logits.size(1);
  a.row_stride = logits.stride(0);
  a.column_stride = logits.stride(1);
  if (partner_labels.has_value() && weight.has_value()) {
    STD_TORCH_CHECK(target.numel() == a.batch && partner_labels->numel() == a.batch &&
                    weight->size(0) == a.batch && weight->size(1) == 2);
    call.target = on_device(target, logits);
    call.partner_labels = on_device(*partner_labels, logits);
    a.labels = data<int64_t>(call.target);
    a.partner_labels = data<int64_t>(*call.partner_labels);
    if (a.batch > 0 && is_host_row(*weight)) {
      a.weight_row[0] = data<float>(*weight)[0];
      a.weight_row[1] = data<float>(*weight)[weight->stride(1)];
    } else {
      call.weight = on_device(*weight, logits);
      a.weight = data<float>(*call.weight);
    }
  } else {
    STD_TORCH_CHECK(target.dim() == 2 && target.size(0) == a.batch && target.size(1) == a.classes);
    a.target = target.const_data_ptr();
    a.target_dtype = dtype_of(target.scalar_type());
    STD_TORCH_CHECK(a.target_dtype == a.dtype || a.target_dtype == kFloat);
    a.target_row_stride = target.stride(0);
    a.target_column_stride = target.stride(1);
  }
  a.target_smoothing = target_smoothing;
  a.label_smoothing = label_smoothing;
  a.reduction = static_cast<int>(reduction);
  a.stream = current_stream(logits);
  return call;
}

std::tuple<Tensor, Tensor> forward(Tensor logits, Tensor target, Optional partner_labels,
                                   Optional weight, double target_smoothing, double label_smoothing,
                                   int64_t reduction) {
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  Call call =
      prepare(logits, target, partner_labels, weight, target_smoothing, label_smoothing, reduction);
  LossArgs& a = call.args;
  const ScalarType type = arithmetic(logits);
  Tensor rows = torch::stable::new_empty(logits, {a.batch}, type);
  Tensor stats = torch::stable::new_empty(logits, {a.batch, 3}, type);
  Tensor loss =
      reduction == kNone ? rows : torch::stable::new_empty(logits, std::vector<int64_t>(), type);
  a.rows = rows.data_ptr();
  a.stats = stats.data_ptr();
  a.loss = loss.data_ptr();
  check(soft_target_cross_entropy(a));
  return {loss, stats};
}

Tensor backward(Tensor grad_loss, Tensor logits, Tensor stats, Tensor target,
                Optional partner_labels, Optional weight, double target_smoothing,
                double label_smoothing, int64_t reduction) {
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  Tensor grad = torch::stable::empty_like(logits);
  if (logits.numel() == 0) return grad;
  Call call =
      prepare(logits, target, partner_labels, weight, target_smoothing, label_smoothing, reduction);
  LossArgs& a = call.args;
  const ScalarType type = arithmetic(logits);
  STD_TORCH_CHECK(stats.scalar_type() == type && stats.numel() == 3 * a.batch);
  STD_TORCH_CHECK(grad_loss.numel() == (reduction == kNone ? a.batch : 1));
  const Tensor near_stats = on_device(stats, logits);
  // As a rule of the loss's own dtype; expanded (stride 0) where a sum follows.
  const Tensor near_grad =
      grad_loss.scalar_type() == type ? grad_loss : torch::stable::to(grad_loss, type);
  a.stats = near_stats.data_ptr();
  a.grad_loss = near_grad.const_data_ptr();
  a.grad_loss_stride = near_grad.dim() > 0 ? near_grad.stride(0) : 0;
  a.grad = grad.data_ptr();
  a.grad_row_stride = grad.stride(0);
  a.grad_column_stride = grad.stride(1);
  check(soft_target_cross_entropy_backward(a));
  return grad;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CUDA, m) {
  m.impl("soft_target_cross_entropy", TORCH_BOX(&forward));
  m.impl("soft_target_cross_entropy_backward", TORCH_BOX(&backward));
}

}  // namespace fused_mixup
