// soft_target_cross_entropy and its backward on raw arguments.
#pragma once

#include "loss_backward.cuh"
#include "loss_forward.cuh"

namespace fused_mixup {

inline cudaError_t soft_target_cross_entropy(const LossArgs& a) {
  return with_loss_types(a,
                         [&](auto z, auto t) { return loss_typed<decltype(z), decltype(t)>(a); });
}

inline cudaError_t soft_target_cross_entropy_backward(const LossArgs& a) {
  return with_loss_types(
      a, [&](auto z, auto t) { return loss_backward_typed<decltype(z), decltype(t)>(a); });
}

}  // namespace fused_mixup
