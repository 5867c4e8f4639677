// soft_target_cross_entropy and its gradients for CUDA tensors. Kernels: loss.cuh.
#include <tuple>

#include "experimental.h"
#include "loss.cuh"
#include "loss_binding.h"

namespace fused_mixup {
namespace {

using CrossEntropyCall = LossCall<LossArgs>;

CrossEntropyCall prepare(const Tensor& logits, const Tensor& target,
                         const OptionalTensor& partner_labels, const OptionalTensor& weight,
                         const OptionalTensor& class_weight, int64_t ignore_index,
                         double target_smoothing, double label_smoothing, double focal_gamma,
                         double z_loss, int64_t reduction) {
  check_focal(focal_gamma, partner_labels.has_value(), target_smoothing, label_smoothing, z_loss);
  CrossEntropyCall call(logits, target, partner_labels, weight, class_weight, target_smoothing,
                        reduction);
  call.args.ignore_index = ignore_index;
  call.args.label_smoothing = label_smoothing;
  call.args.focal_gamma = focal_gamma;
  call.args.z_loss = z_loss;
  return call;
}

struct Losses {
  Tensor loss, count, ranks;
};

// Allocates the results of a forward.
Losses losses_of(CrossEntropyCall& call, const Tensor& logits, bool ranks) {
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

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(Tensor logits,  // [B, K, …]
                                                   Tensor target,  // [B, K, …], or int64 [B, …]
                                                   OptionalTensor partner_labels,  // int64 [B, …]
                                                   OptionalTensor weight,          // float32 [B, 2]
                                                   OptionalTensor class_weight,    // [K]
                                                   int64_t ignore_index, double target_smoothing,
                                                   double label_smoothing, double focal_gamma,
                                                   double z_loss, int64_t reduction, bool ranks) {
  const Guard guard = guard_of(logits);
  CrossEntropyCall call =
      prepare(logits, target, partner_labels, weight, class_weight, ignore_index, target_smoothing,
              label_smoothing, focal_gamma, z_loss, reduction);
  Losses out = losses_of(call, logits, ranks);
  Tensor stats = call.empty(logits, row_shape(logits, 3));
  call.args.stats = stats.data_ptr();
  call.scratch(logits, loss_scratch(call.args));
  check(launch_cross_entropy(call.args));
  return {out.loss, stats, out.count, out.ranks};
}

std::tuple<Tensor, Tensor, Tensor> forward_grad(Tensor logits,  // [B, K, …]
                                                Tensor target,  // [B, K, …], or int64 [B, …]
                                                OptionalTensor partner_labels,  // int64 [B, …]
                                                OptionalTensor weight,          // float32 [B, 2]
                                                OptionalTensor class_weight,    // [K]
                                                int64_t ignore_index, double target_smoothing,
                                                double label_smoothing, double focal_gamma,
                                                double z_loss, int64_t reduction, bool ranks) {
  const Guard guard = guard_of(logits);
  CrossEntropyCall call =
      prepare(logits, target, partner_labels, weight, class_weight, ignore_index, target_smoothing,
              label_smoothing, focal_gamma, z_loss, reduction);
  Losses out = losses_of(call, logits, ranks);
  Tensor grad = torch::stable::empty_like(logits);
  GradientPlace place(grad, call.args);
  if (experimental() && compiled_arch(cluster_kernel<float, TargetKind::kSparse>) >= 90) {
    call.args.cluster_blocks = kChooseCluster;
    call.args.shared_limit = shared_limit();
  }
  call.scratch(logits, loss_scratch(call.args));
  check(launch_cross_entropy(call.args));
  place.finish();
  return {out.loss, grad, out.ranks};
}

void backward_into(Tensor grad, const Tensor& grad_loss, const Tensor& logits, const Tensor& stats,
                   const Tensor& count, CrossEntropyCall call) {
  LossArgs& a = call.args;
  check_saved(stats, count, logits);
  check_grad_loss(grad_loss, logits, a.reduction == kNone);
  a.stats = call.keep(on_device(stats, logits)).data_ptr();
  a.count = call.keep(on_device(count, logits)).data_ptr();
  call.upstream(grad_loss, logits, false);
  GradientPlace place(grad, a);
  check(launch_cross_entropy(a));
  place.finish();
}

Tensor backward(Tensor grad_loss,               // [], or [B, …] for reduction none
                Tensor logits,                  // [B, K, …]
                Tensor stats,                   // [3, B, …]
                Tensor count,                   // []
                Tensor target,                  // [B, K, …], or int64 [B, …]
                OptionalTensor partner_labels,  // int64 [B, …]
                OptionalTensor weight,          // float32 [B, 2]
                OptionalTensor class_weight,    // [K]
                int64_t ignore_index, double target_smoothing, double label_smoothing,
                double focal_gamma, double z_loss, int64_t reduction) {
  const Guard guard = guard_of(logits);
  Tensor grad = torch::stable::empty_like(logits);
  if (logits.numel() == 0) return grad;
  backward_into(grad, grad_loss, logits, stats, count,
                prepare(logits, target, partner_labels, weight, class_weight, ignore_index,
                        target_smoothing, label_smoothing, focal_gamma, z_loss, reduction));
  return grad;
}

void backward_(Tensor grad_loss,               // [], or [B, …] for reduction none
               Tensor logits,                  // [B, K, …]
               Tensor stats,                   // [3, B, …]
               Tensor count,                   // []
               Tensor target,                  // [B, K, …], or int64 [B, …]
               OptionalTensor partner_labels,  // int64 [B, …]
               OptionalTensor weight,          // float32 [B, 2]
               OptionalTensor class_weight,    // [K]
               int64_t ignore_index, double target_smoothing, double label_smoothing,
               double focal_gamma, double z_loss, int64_t reduction) {
  const Guard guard = guard_of(logits);
  if (logits.numel() == 0) return;
  expect_writable("logits", logits);
  backward_into(logits, grad_loss, logits, stats, count,
                prepare(logits, target, partner_labels, weight, class_weight, ignore_index,
                        target_smoothing, label_smoothing, focal_gamma, z_loss, reduction));
}

}  // namespace

cudaError_t launch_cross_entropy(const LossArgs& a) { return soft_target_cross_entropy(a); }

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("soft_target_cross_entropy", TORCH_BOX(&forward));
  m.impl("soft_target_cross_entropy_backward", TORCH_BOX(&backward));
  m.impl("soft_target_cross_entropy_backward_", TORCH_BOX(&backward_));
  m.impl("soft_target_cross_entropy_grad", TORCH_BOX(&forward_grad));
}

}  // namespace fused_mixup
