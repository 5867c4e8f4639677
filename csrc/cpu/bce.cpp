// soft_target_binary_cross_entropy and its backward on the CPU.
//
// Forward: reads the logits once (N bytes). Backward, or both in one call: one read and one write
// (2N). A sparse target adds two labels a row; it never becomes dense. The formulas stand in
// bce_kernels.inl.
#include <tuple>

#include "bce_columns.h"
#include "bce_rows.h"

namespace fused_mixup {
namespace {

Tensor empty_loss(const BinaryCrossEntropyArguments& a) {
  std::vector<int64_t> shape;
  if (a.reduction == kNone) {
    shape = shape_of_rows(a.logits);
    if (!a.sum_classes) shape.insert(shape.begin() + 1, a.logits.size(1));
  }
  return new_tensor(shape, arithmetic(a.logits));
}

template <typename L, typename T>
double walk(LossTypes<L, T>, const BinaryInputs& in, const BinaryOutputs<acc_t<L>>& out) {
  if (in.tensors.rows() == 0) return 0;
  return in.tensors.walk == Walk::kColumns ? binary_columns<L, T>(in, out)
                                           : binary_rows<L, T>(in, out);
}

// Computes the loss, and its gradient for an upstream gradient of one where `grad` is given.
void forward(const BinaryCrossEntropyArguments& a, const Tensor& loss, const Tensor* grad) {
  BinaryInputs in(a, grad);
  const double divisor = a.reduction == kMean ? in.count() : 1;
  dispatch_loss(a.logits.scalar_type(), a.target.scalar_type(), [&](auto types) {
    using A = typename decltype(types)::A;
    BinaryOutputs<A> out;
    out.sum = a.reduction != kNone;
    if (a.reduction == kNone) out.loss = data<A>(loss);
    out.scale = A(1 / divisor);
    const double sum = walk(types, in, out);
    if (out.sum) *data<A>(loss) = A(sum / divisor);
  });
  if (grad != nullptr) in.tensors.finish();
}

Tensor soft_target_binary_cross_entropy(Tensor logits,  // [B, K, …]
                                        Tensor target,  // [B, K, …], or int64 [B, …]
                                        OptionalTensor partner_labels,  // int64 [B, …]
                                        OptionalTensor weight,          // float32 [B, 2]
                                        OptionalTensor class_weight,    // [K]
                                        OptionalTensor pos_weight,      // [K]
                                        double target_smoothing,
                                        std::optional<double> target_threshold, double focal_gamma,
                                        int64_t reduction, bool sum_classes) {
  const BinaryCrossEntropyArguments a = {
      logits,           target,           partner_labels, weight,    class_weight, pos_weight,
      target_smoothing, target_threshold, focal_gamma,    reduction, sum_classes};
  a.check();
  Tensor loss = empty_loss(a);
  forward(a, loss, nullptr);
  return loss;
}

std::tuple<Tensor, Tensor> soft_target_binary_cross_entropy_grad(
    Tensor logits,                  // [B, K, …]
    Tensor target,                  // [B, K, …], or int64 [B, …]
    OptionalTensor partner_labels,  // int64 [B, …]
    OptionalTensor weight,          // float32 [B, 2]
    OptionalTensor class_weight,    // [K]
    OptionalTensor pos_weight,      // [K]
    double target_smoothing, std::optional<double> target_threshold, double focal_gamma,
    int64_t reduction, bool sum_classes) {
  const BinaryCrossEntropyArguments a = {
      logits,           target,           partner_labels, weight,    class_weight, pos_weight,
      target_smoothing, target_threshold, focal_gamma,    reduction, sum_classes};
  a.check();
  Tensor loss = empty_loss(a), grad = new_result_like(logits);
  forward(a, loss, &grad);
  return {loss, grad};
}

void check_backward(const BinaryCrossEntropyArguments& a, const Tensor& grad_loss) {
  a.check();
  check_grad_loss(grad_loss, a.logits, a.reduction == kNone, !a.sum_classes);
}

// Writes the gradient into `into`, which is empty_like(logits) or the logits.
void write_gradient(const BinaryCrossEntropyArguments& a, const Tensor& grad_loss,
                    const Tensor& into) {
  if (a.logits.numel() == 0) return;
  BinaryInputs in(a, &into);
  const bool each = a.reduction == kNone;
  const Tensor upstream = each ? as_contiguous(grad_loss) : grad_loss;
  dispatch_loss(a.logits.scalar_type(), a.target.scalar_type(), [&](auto types) {
    using A = typename decltype(types)::A;
    BinaryOutputs<A> out;
    if (each) out.upstream = data<A>(upstream);
    if (!each) out.scale = *data<A>(upstream);
    if (a.reduction == kMean) out.scale = A(out.scale / in.count());
    walk(types, in, out);
  });
  in.tensors.finish();
}

Tensor soft_target_binary_cross_entropy_backward(
    Tensor grad_loss,               // [], or of the losses' shape for reduction none
    Tensor logits,                  // [B, K, …]
    Tensor target,                  // [B, K, …], or int64 [B, …]
    OptionalTensor partner_labels,  // int64 [B, …]
    OptionalTensor weight,          // float32 [B, 2]
    OptionalTensor class_weight,    // [K]
    OptionalTensor pos_weight,      // [K]
    double target_smoothing, std::optional<double> target_threshold, double focal_gamma,
    int64_t reduction, bool sum_classes) {
  const BinaryCrossEntropyArguments a = {
      logits,           target,           partner_labels, weight,    class_weight, pos_weight,
      target_smoothing, target_threshold, focal_gamma,    reduction, sum_classes};
  check_backward(a, grad_loss);
  Tensor grad = new_result_like(logits);
  write_gradient(a, grad_loss, grad);
  return grad;
}

void soft_target_binary_cross_entropy_backward_(
    Tensor grad_loss,               // [], or of the losses' shape for reduction none
    Tensor logits,                  // [B, K, …]
    Tensor target,                  // [B, K, …], or int64 [B, …]
    OptionalTensor partner_labels,  // int64 [B, …]
    OptionalTensor weight,          // float32 [B, 2]
    OptionalTensor class_weight,    // [K]
    OptionalTensor pos_weight,      // [K]
    double target_smoothing, std::optional<double> target_threshold, double focal_gamma,
    int64_t reduction, bool sum_classes) {
  const BinaryCrossEntropyArguments a = {
      logits,           target,           partner_labels, weight,    class_weight, pos_weight,
      target_smoothing, target_threshold, focal_gamma,    reduction, sum_classes};
  check_backward(a, grad_loss);
  expect_writable("logits", logits);
  write_gradient(a, grad_loss, logits);
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("soft_target_binary_cross_entropy",
         TORCH_BOX(&fused_mixup::soft_target_binary_cross_entropy));
  m.impl("soft_target_binary_cross_entropy_grad",
         TORCH_BOX(&fused_mixup::soft_target_binary_cross_entropy_grad));
  m.impl("soft_target_binary_cross_entropy_backward",
         TORCH_BOX(&fused_mixup::soft_target_binary_cross_entropy_backward));
  m.impl("soft_target_binary_cross_entropy_backward_",
         TORCH_BOX(&fused_mixup::soft_target_binary_cross_entropy_backward_));
}
