// Ranks of labels, for label_ranks and for losses that give them. The kernels of the loss count
// them (TargetKind::kRanked).
#pragma once

#include "loss_args.cuh"

namespace fused_mixup {

__device__ __forceinline__ float next_below(float x) { return nextafterf(x, -INFINITY); }
__device__ __forceinline__ double next_below(double x) { return nextafter(x, -double(INFINITY)); }

// The rank of a label in its row: how many classes stand before it, which are those of larger
// logits and those of equal logits and a smaller index. "Larger" is !(z <= own), so that NaN is
// ahead of all, and a label whose own logit is NaN comes last.
template <typename A>
struct LabelRank {
  A own, below;  // own logit, and the next smaller number: z <= below is z < own
  int32_t label, ahead;
  bool valid;

  template <typename T>
  __device__ __forceinline__ void open(const LossArgs& a, const T* z, int64_t y) {
    label = static_cast<int32_t>(y);
    ahead = 0;
    valid = y >= 0 && y < a.classes && y != a.ignore_index;
    own = valid ? Number<T>::up(z[y * a.logits_at.classes]) : A(0);
    below = own == A(-INFINITY) ? static_cast<A>(NAN) : next_below(own);
  }

  __device__ __forceinline__ void take(A z, int32_t k) {
    ahead += !(z <= (k < label ? below : own));
  }
  __device__ __forceinline__ int32_t rank(int64_t classes) const {
    return valid ? ahead : static_cast<int32_t>(classes);
  }
};

}  // namespace fused_mixup
