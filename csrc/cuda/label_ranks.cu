// label_ranks for CUDA tensors, on the kernels of the loss (label_ranks.cuh, loss.cuh).
#include "loss_binding.h"

namespace fused_mixup {
namespace {

Tensor label_ranks(Tensor logits,                    // [B, K, …]
                   Tensor labels,                    // int64 [B, …]
                   OptionalTensor partner_labels) {  // int64 [B, …]
  const Guard guard = guard_of(logits);
  check_logits(logits);
  const int planes = partner_labels.has_value() ? 2 : 1;
  Tensor ranks = torch::stable::new_empty(logits, row_shape(logits, planes), ScalarType::Int);
  if (ranks.numel() == 0) return ranks;
  // There is no loss, so that no kernel reads the weights.
  const Tensor weight = torch::stable::new_empty(logits, {logits.size(0), 2}, ScalarType::Float);
  LossCall<LossArgs> call(logits, labels, partner_labels.has_value() ? partner_labels : labels,
                          weight, std::nullopt, 0.0, kNone);
  LossArgs& a = call.args;
  a.ignore_index = INT64_MIN;
  a.forward = true;
  a.ranks = static_cast<int32_t*>(ranks.data_ptr());
  a.rank_planes = planes;
  check(launch_cross_entropy(a));
  return ranks;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("label_ranks", TORCH_BOX(&label_ranks));
}

}  // namespace fused_mixup
