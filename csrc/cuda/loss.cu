// soft_target_cross_entropy, its gradients, label_ranks and scale_ for CUDA tensors.
// Kernels: loss.cuh, scale.cuh.
#include <tuple>

#include "loss.cuh"
#include "loss_binding.h"
#include "scale.cuh"

namespace fused_mixup {
namespace {

using Call = LossCall<LossArgs>;

Call prepare(const Tensor& logits, const Tensor& target, const OptionalTensor& partner_labels,
             const OptionalTensor& weight, const OptionalTensor& class_weight, int64_t ignore_index,
             double target_smoothing, double label_smoothing, int64_t reduction) {
  Call call(logits, target, partner_labels, weight, class_weight, target_smoothing, reduction);
  call.args.ignore_index = ignore_index;
  call.args.label_smoothing = label_smoothing;
  return call;
}

struct Losses {
  Tensor loss, count, ranks;
};

// Room for what every forward returns.
Losses losses_of(Call& call, const Tensor& logits, bool ranks) {
  LossArgs& a = call.args;
  const bool none = a.reduction == kNone;
  const std::vector<int64_t> scalar;
  Losses out{call.empty(logits, none ? row_shape(logits) : scalar), call.empty(logits, scalar),
             torch::stable::new_empty(
                 logits, ranks ? row_shape(logits, 2) : std::vector<int64_t>{0}, ScalarType::Int)};
  a.forward = true;
  (none ? a.row_losses : a.loss) = out.loss.data_ptr();
  a.count = out.count.data_ptr();
  if (ranks) {
    a.ranks = static_cast<int32_t*>(out.ranks.data_ptr());
    a.rank_planes = 2;
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    Tensor logits, Tensor target, OptionalTensor partner_labels, OptionalTensor weight,
    OptionalTensor class_weight, int64_t ignore_index, double target_smoothing,
    double label_smoothing, int64_t reduction, bool ranks) {
  const Guard guard = guard_of(logits);
  Call call = prepare(logits, target, partner_labels, weight, class_weight, ignore_index,
                      target_smoothing, label_smoothing, reduction);
  Losses out = losses_of(call, logits, ranks);
  Tensor stats = call.empty(logits, row_shape(logits, 3));
  call.args.stats = stats.data_ptr();
  call.scratch(logits, loss_scratch(call.args));
  check(soft_target_cross_entropy(call.args));
  return {out.loss, stats, out.count, out.ranks};
}

std::tuple<Tensor, Tensor, Tensor> forward_grad(Tensor logits, Tensor target,
                                                OptionalTensor partner_labels,
                                                OptionalTensor weight, OptionalTensor class_weight,
                                                int64_t ignore_index, double target_smoothing,
                                                double label_smoothing, int64_t reduction,
                                                bool ranks) {
  const Guard guard = guard_of(logits);
  Call call = prepare(logits, target, partner_labels, weight, class_weight, ignore_index,
                      target_smoothing, label_smoothing, reduction);
  Losses out = losses_of(call, logits, ranks);
  Tensor grad = torch::stable::empty_like(logits);
  GradientPlace place(grad, call.args);
  call.scratch(logits, loss_scratch(call.args));
  check(soft_target_cross_entropy(call.args));
  place.finish();
  return {out.loss, grad, out.ranks};
}

void backward_into(Tensor grad, const Tensor& grad_loss, const Tensor& logits, const Tensor& stats,
                   const Tensor& count, Call call) {
  LossArgs& a = call.args;
  check_saved(stats, count, logits);
  check_grad_loss(grad_loss, logits, a.reduction == kNone);
  a.stats = call.keep(on_device(stats, logits)).data_ptr();
  a.count = call.keep(on_device(count, logits)).data_ptr();
  call.upstream(grad_loss, logits, false);
  GradientPlace place(grad, a);
  check(soft_target_cross_entropy(a));
  place.finish();
}

Tensor backward(Tensor grad_loss, Tensor logits, Tensor stats, Tensor count, Tensor target,
                OptionalTensor partner_labels, OptionalTensor weight, OptionalTensor class_weight,
                int64_t ignore_index, double target_smoothing, double label_smoothing,
                int64_t reduction) {
  const Guard guard = guard_of(logits);
  Tensor grad = torch::stable::empty_like(logits);
  if (logits.numel() == 0) return grad;
  backward_into(grad, grad_loss, logits, stats, count,
                prepare(logits, target, partner_labels, weight, class_weight, ignore_index,
                        target_smoothing, label_smoothing, reduction));
  return grad;
}

void backward_(Tensor grad_loss, Tensor logits, Tensor stats, Tensor count, Tensor target,
               OptionalTensor partner_labels, OptionalTensor weight, OptionalTensor class_weight,
               int64_t ignore_index, double target_smoothing, double label_smoothing,
               int64_t reduction) {
  const Guard guard = guard_of(logits);
  if (logits.numel() == 0) return;
  expect_writable("logits", logits);
  backward_into(logits, grad_loss, logits, stats, count,
                prepare(logits, target, partner_labels, weight, class_weight, ignore_index,
                        target_smoothing, label_smoothing, reduction));
}

Tensor ranks_of(Tensor logits, Tensor labels, OptionalTensor partner_labels) {
  const Guard guard = guard_of(logits);
  check_logits(logits);
  const int planes = partner_labels.has_value() ? 2 : 1;
  Tensor ranks = torch::stable::new_empty(logits, row_shape(logits, planes), ScalarType::Int);
  if (ranks.numel() == 0) return ranks;
  // No loss: weights are not looked at.
  const Tensor weight = torch::stable::new_empty(logits, {logits.size(0), 2}, ScalarType::Float);
  Call call = prepare(logits, labels, partner_labels.has_value() ? partner_labels : labels, weight,
                      std::nullopt, INT64_MIN, 0.0, 0.0, kNone);
  call.args.forward = true;
  call.args.ranks = static_cast<int32_t*>(ranks.data_ptr());
  call.args.rank_planes = planes;
  check(soft_target_cross_entropy(call.args));
  return ranks;
}

void scale_(Tensor x, Tensor factor) {
  if (x.numel() == 0) return;
  const Guard guard = guard_of(x);
  check_scale(x, factor);
  const Tensor near = near_to(factor, x);
  const std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  const std::vector<int64_t> strides(x.strides().begin(), x.strides().end());
  const int ndim = static_cast<int>(x.dim());
  ScaleArgs a = {};
  a.dtype = dtype_of(x.scalar_type());
  a.factor = near.const_data_ptr();
  // A tensor of no dim is one sample of none.
  const int rest = ndim > 0 ? 1 : 0;
  a.samples = {x.data_ptr(),
               x.data_ptr(),
               ndim > 0 ? sizes[0] : 1,
               ndim > 0 ? strides[0] : 0,
               ndim > 0 ? strides[0] : 0,
               ndim - rest,
               sizes.data() + rest,
               strides.data() + rest,
               strides.data() + rest};
  a.stream = current_stream(x);
  check(scale(a));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CUDA, m) {
  m.impl("soft_target_cross_entropy", TORCH_BOX(&forward));
  m.impl("soft_target_cross_entropy_backward", TORCH_BOX(&backward));
  m.impl("soft_target_cross_entropy_backward_", TORCH_BOX(&backward_));
  m.impl("soft_target_cross_entropy_grad", TORCH_BOX(&forward_grad));
  m.impl("label_ranks", TORCH_BOX(&ranks_of));
  m.impl("scale_", TORCH_BOX(&scale_));
}

}  // namespace fused_mixup
