// soft_target_binary_cross_entropy and its gradients for CUDA tensors. Kernels: bce.cuh.
#include <tuple>

#include "bce.cuh"
#include "loss_binding.h"

namespace fused_mixup {
namespace {

using BinaryCall = LossCall<BinaryArgs>;

BinaryCall prepare(const Tensor& logits, const Tensor& target, const OptionalTensor& partner_labels,
                   const OptionalTensor& weight, const OptionalTensor& class_weight,
                   const OptionalTensor& pos_weight, double target_smoothing,
                   std::optional<double> threshold, double focal_gamma, int64_t reduction,
                   bool sum_classes) {
  expect(is_coefficient(focal_gamma), "focal_gamma", "a finite number >= 0");
  BinaryCall call(logits, target, partner_labels, weight, class_weight, target_smoothing,
                  reduction);
  BinaryArgs& a = call.args;
  check_per_class("pos_weight", pos_weight, logits);
  a.pos_weight = call.per_class(pos_weight, logits);
  a.has_threshold = threshold.has_value();
  a.threshold = threshold.value_or(0.0);
  a.focal_gamma = focal_gamma;
  const int64_t losses = a.rows() * (sum_classes ? 1 : a.classes);
  // The mean of nothing is NaN.
  a.divisor = a.reduction != kMean ? 1.0 : losses == 0 ? NAN : static_cast<double>(losses);
  return call;
}

Tensor loss_of(BinaryCall& call, const Tensor& logits, bool sum_classes) {
  BinaryArgs& a = call.args;
  std::vector<int64_t> shape;
  if (a.reduction == kNone) {
    shape = sum_classes ? row_shape(logits)
                        : std::vector<int64_t>(logits.sizes().begin(), logits.sizes().end());
  }
  Tensor loss = call.empty(logits, shape);
  a.forward = true;
  if (a.reduction != kNone) {
    a.loss = loss.data_ptr();
    call.scratch(logits, binary_scratch(a));
  } else {
    (sum_classes ? a.row_losses : a.element_losses) = loss.data_ptr();
  }
  return loss;
}

Tensor forward(Tensor logits,                  // [B, K, …]
               Tensor target,                  // [B, K, …], or int64 [B, …]
               OptionalTensor partner_labels,  // int64 [B, …]
               OptionalTensor weight,          // float32 [B, 2]
               OptionalTensor class_weight,    // [K]
               OptionalTensor pos_weight,      // [K]
               double target_smoothing, std::optional<double> threshold, double focal_gamma,
               int64_t reduction, bool sum_classes) {
  const Guard guard = guard_of(logits);
  BinaryCall call = prepare(logits, target, partner_labels, weight, class_weight, pos_weight,
                            target_smoothing, threshold, focal_gamma, reduction, sum_classes);
  Tensor loss = loss_of(call, logits, sum_classes);
  check(soft_target_binary_cross_entropy(call.args));
  return loss;
}

std::tuple<Tensor, Tensor> forward_grad(Tensor logits,  // [B, K, …]
                                        Tensor target,  // [B, K, …], or int64 [B, …]
                                        OptionalTensor partner_labels,  // int64 [B, …]
                                        OptionalTensor weight,          // float32 [B, 2]
                                        OptionalTensor class_weight,    // [K]
                                        OptionalTensor pos_weight,      // [K]
                                        double target_smoothing, std::optional<double> threshold,
                                        double focal_gamma, int64_t reduction, bool sum_classes) {
  const Guard guard = guard_of(logits);
  BinaryCall call = prepare(logits, target, partner_labels, weight, class_weight, pos_weight,
                            target_smoothing, threshold, focal_gamma, reduction, sum_classes);
  Tensor grad = torch::stable::empty_like(logits);
  GradientPlace place(grad, call.args);
  Tensor loss = loss_of(call, logits, sum_classes);
  check(soft_target_binary_cross_entropy(call.args));
  place.finish();
  return {loss, grad};
}

void backward_into(Tensor grad, const Tensor& grad_loss, const Tensor& logits, BinaryCall call,
                   bool sum_classes) {
  BinaryArgs& a = call.args;
  check_grad_loss(grad_loss, logits, a.reduction == kNone, !sum_classes);
  call.upstream(grad_loss, logits, !sum_classes);
  GradientPlace place(grad, a);
  check(soft_target_binary_cross_entropy(a));
  place.finish();
}

Tensor backward(Tensor grad_loss,               // [], or of the losses' shape for reduction none
                Tensor logits,                  // [B, K, …]
                Tensor target,                  // [B, K, …], or int64 [B, …]
                OptionalTensor partner_labels,  // int64 [B, …]
                OptionalTensor weight,          // float32 [B, 2]
                OptionalTensor class_weight,    // [K]
                OptionalTensor pos_weight,      // [K]
                double target_smoothing, std::optional<double> threshold, double focal_gamma,
                int64_t reduction, bool sum_classes) {
  const Guard guard = guard_of(logits);
  Tensor grad = torch::stable::empty_like(logits);
  if (logits.numel() == 0) return grad;
  backward_into(grad, grad_loss, logits,
                prepare(logits, target, partner_labels, weight, class_weight, pos_weight,
                        target_smoothing, threshold, focal_gamma, reduction, sum_classes),
                sum_classes);
  return grad;
}

void backward_(Tensor grad_loss,               // [], or of the losses' shape for reduction none
               Tensor logits,                  // [B, K, …]
               Tensor target,                  // [B, K, …], or int64 [B, …]
               OptionalTensor partner_labels,  // int64 [B, …]
               OptionalTensor weight,          // float32 [B, 2]
               OptionalTensor class_weight,    // [K]
               OptionalTensor pos_weight,      // [K]
               double target_smoothing, std::optional<double> threshold, double focal_gamma,
               int64_t reduction, bool sum_classes) {
  const Guard guard = guard_of(logits);
  if (logits.numel() == 0) return;
  expect_writable("logits", logits);
  backward_into(logits, grad_loss, logits,
                prepare(logits, target, partner_labels, weight, class_weight, pos_weight,
                        target_smoothing, threshold, focal_gamma, reduction, sum_classes),
                sum_classes);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("soft_target_binary_cross_entropy", TORCH_BOX(&forward));
  m.impl("soft_target_binary_cross_entropy_backward", TORCH_BOX(&backward));
  m.impl("soft_target_binary_cross_entropy_backward_", TORCH_BOX(&backward_));
  m.impl("soft_target_binary_cross_entropy_grad", TORCH_BOX(&forward_grad));
}

}  // namespace fused_mixup
