// soft_target_cross_entropy and its backward on the CPU.
//
// Forward: reads the logits once (N bytes); a MixedTarget adds two labels and two weights per row.
// Backward: reads the logits once and writes the gradient once (2N). Both in one call: read the
// logits from memory and again from the cache, and write the gradient (2N); a row of 262,144 floats
// takes 1 MiB and needs a second-level cache that holds it. With m = max z, l = log Σ e^(z-m), t' =
// (1-ε) t + ε/K and class weights w:
//     loss = l Σ w t' - Σ w t' (z-m)          d loss / d z = Σ w t' · e^((z-m) - l) - w t'
// A focal loss has w t' f(p) for each of the two labels, and w t' h(p) in the gradient (FocalTerm);
// a z-loss adds z (m+l)² to the loss and 2 z (m+l) to the factor of the exponential.
#include <tuple>

#include "loss_columns.h"
#include "loss_rows.h"

namespace fused_mixup {
namespace {

Tensor empty_loss(const CrossEntropyArguments& a) {
  const std::vector<int64_t> shape =
      a.reduction == kNone ? shape_of_rows(a.logits) : std::vector<int64_t>();
  return new_tensor(shape, arithmetic(a.logits));
}

Tensor empty_ranks(const CrossEntropyArguments& a, bool wanted) {
  std::vector<int64_t> shape = {0};
  if (wanted) {
    shape = shape_of_rows(a.logits);
    shape.insert(shape.begin(), 2);
  }
  return new_tensor(shape, ScalarType::Int);
}

// Fills what `out` points at, and returns how many rows count.
template <typename L, typename T>
double forward(LossTypes<L, T>, const LossInputs& in, const LossOutputs<acc_t<L>>& out, bool grad,
               double scale) {
  double count = 0;
  const auto walk = in.tensors.walk == Walk::kColumns ? forward_columns<L, T> : forward_rows<L, T>;
  const double sum = in.tensors.rows() == 0 ? 0 : walk(in, out, grad, scale, count);
  if (in.reduction == kMean) *out.loss = acc_t<L>(sum / count);
  if (in.reduction == kSum) *out.loss = acc_t<L>(sum);
  return count;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> soft_target_cross_entropy(
    Tensor logits,                  // [B, K, …]
    Tensor target,                  // [B, K, …], or int64 [B, …]
    OptionalTensor partner_labels,  // int64 [B, …]
    OptionalTensor weight,          // float32 [B, 2]
    OptionalTensor class_weight,    // [K]
    int64_t ignore_index, double target_smoothing, double label_smoothing, double focal_gamma,
    double z_loss, int64_t reduction, bool ranks) {
  const CrossEntropyArguments a = {logits,       target,       partner_labels,   weight,
                                   class_weight, ignore_index, target_smoothing, label_smoothing,
                                   focal_gamma,  z_loss,       reduction};
  a.check();
  std::vector<int64_t> shape = shape_of_rows(logits);
  shape.insert(shape.begin(), 3);
  const ScalarType wide = arithmetic(logits);
  Tensor loss = empty_loss(a), stats = new_tensor(shape, wide), found = empty_ranks(a, ranks);
  Tensor count = new_tensor(std::vector<int64_t>(), wide);
  const LossInputs in(a, nullptr);
  dispatch_loss(logits.scalar_type(), target.scalar_type(), [&](auto types) {
    using A = typename decltype(types)::A;
    const LossOutputs<A> out = {data<A>(loss), data<A>(stats),
                                ranks ? data<int32_t>(found) : nullptr};
    *data<A>(count) = A(forward(types, in, out, false, 0));
  });
  return {loss, stats, count, found};
}

std::tuple<Tensor, Tensor, Tensor> soft_target_cross_entropy_grad(
    Tensor logits,                  // [B, K, …]
    Tensor target,                  // [B, K, …], or int64 [B, …]
    OptionalTensor partner_labels,  // int64 [B, …]
    OptionalTensor weight,          // float32 [B, 2]
    OptionalTensor class_weight,    // [K]
    int64_t ignore_index, double target_smoothing, double label_smoothing, double focal_gamma,
    double z_loss, int64_t reduction, bool ranks) {
  const CrossEntropyArguments a = {logits,       target,       partner_labels,   weight,
                                   class_weight, ignore_index, target_smoothing, label_smoothing,
                                   focal_gamma,  z_loss,       reduction};
  a.check();
  Tensor grad = new_result_like(logits);
  Tensor loss = empty_loss(a), found = empty_ranks(a, ranks);
  LossInputs in(a, &grad);
  const double scale = reduction == kMean ? 1.0 / double(in.count()) : 1.0;
  dispatch_loss(logits.scalar_type(), target.scalar_type(), [&](auto types) {
    using A = typename decltype(types)::A;
    const LossOutputs<A> out = {data<A>(loss), nullptr, ranks ? data<int32_t>(found) : nullptr};
    forward(types, in, out, true, scale);
  });
  in.tensors.finish();
  return {loss, grad, found};
}

void check_backward(const CrossEntropyArguments& a, const Tensor& grad_loss, const Tensor& stats,
                    const Tensor& count) {
  a.check();
  check_grad_loss(grad_loss, a.logits, a.reduction == kNone);
  check_saved(stats, count, a.logits);
}

// Writes the gradient into `into`, which is empty_like(logits) or the logits.
void write_gradient(const CrossEntropyArguments& a, const Tensor& grad_loss, const Tensor& stats,
                    const Tensor& count, const Tensor& into) {
  if (a.logits.numel() == 0) return;
  LossInputs in(a, &into);
  const Tensor saved = as_contiguous(stats);
  const bool each = a.reduction == kNone;
  const Tensor upstream = each ? as_contiguous(grad_loss) : grad_loss;
  dispatch_loss(a.logits.scalar_type(), a.target.scalar_type(), [&](auto types) {
    using L = typename decltype(types)::Logit;
    using T = typename decltype(types)::Target;
    using A = acc_t<L>;
    A factor = each ? A(1) : *data<A>(upstream);
    if (a.reduction == kMean) factor /= *data<A>(count);
    const auto walk =
        in.tensors.walk == Walk::kColumns ? backward_columns<L, T> : backward_rows<L, T>;
    walk(in, data<A>(saved), each ? data<A>(upstream) : nullptr, factor);
  });
  in.tensors.finish();
}

Tensor soft_target_cross_entropy_backward(Tensor grad_loss,  // [], or [B, …] for reduction none
                                          Tensor logits,     // [B, K, …]
                                          Tensor stats,      // [3, B, …]
                                          Tensor count,      // []
                                          Tensor target,     // [B, K, …], or int64 [B, …]
                                          OptionalTensor partner_labels,  // int64 [B, …]
                                          OptionalTensor weight,          // float32 [B, 2]
                                          OptionalTensor class_weight,    // [K]
                                          int64_t ignore_index, double target_smoothing,
                                          double label_smoothing, double focal_gamma, double z_loss,
                                          int64_t reduction) {
  const CrossEntropyArguments a = {logits,       target,       partner_labels,   weight,
                                   class_weight, ignore_index, target_smoothing, label_smoothing,
                                   focal_gamma,  z_loss,       reduction};
  check_backward(a, grad_loss, stats, count);
  Tensor grad = new_result_like(logits);
  write_gradient(a, grad_loss, stats, count, grad);
  return grad;
}

void soft_target_cross_entropy_backward_(Tensor grad_loss,  // [], or [B, …] for reduction none
                                         Tensor logits,     // [B, K, …]
                                         Tensor stats,      // [3, B, …]
                                         Tensor count,      // []
                                         Tensor target,     // [B, K, …], or int64 [B, …]
                                         OptionalTensor partner_labels,  // int64 [B, …]
                                         OptionalTensor weight,          // float32 [B, 2]
                                         OptionalTensor class_weight,    // [K]
                                         int64_t ignore_index, double target_smoothing,
                                         double label_smoothing, double focal_gamma, double z_loss,
                                         int64_t reduction) {
  const CrossEntropyArguments a = {logits,       target,       partner_labels,   weight,
                                   class_weight, ignore_index, target_smoothing, label_smoothing,
                                   focal_gamma,  z_loss,       reduction};
  check_backward(a, grad_loss, stats, count);
  expect_writable("logits", logits);
  write_gradient(a, grad_loss, stats, count, logits);
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("soft_target_cross_entropy", TORCH_BOX(&fused_mixup::soft_target_cross_entropy));
  m.impl("soft_target_cross_entropy_grad", TORCH_BOX(&fused_mixup::soft_target_cross_entropy_grad));
  m.impl("soft_target_cross_entropy_backward",
         TORCH_BOX(&fused_mixup::soft_target_cross_entropy_backward));
  m.impl("soft_target_cross_entropy_backward_",
         TORCH_BOX(&fused_mixup::soft_target_cross_entropy_backward_));
}
