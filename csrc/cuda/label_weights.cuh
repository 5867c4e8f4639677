// The two label weights of a sample.
#pragma once

#include "launch.cuh"

namespace fused_mixup {

template <typename A>
struct LabelWeights {
  A own, other;

  // weight: [B, 2], or null: `row` serves all samples.
  __device__ __forceinline__ LabelWeights(const float* weight, const float (&row)[2], int64_t b)
      : own(static_cast<A>(weight != nullptr ? weight[2 * b] : row[0])),
        other(static_cast<A>(weight != nullptr ? weight[2 * b + 1] : row[1])) {}
};

}  // namespace fused_mixup
