// The values of dense soft labels, as mix_targets writes them and the binary cross-entropy reads
// them.
#pragma once

#include "../common/layout.h"

namespace fused_mixup {

// The values that two labels give a row, by which of them is the class:
//   t = w0·v0 + w1·v1,   v = on where the class is the label, else off
// Each product and the sum are rounded one by one. A weight of 0 drops its term.
template <typename A>
struct TargetValues {
  A neither, own, partner, both;

  // weight: [2]
  TargetValues(const float* weight, const SmoothedOneHot& value) {
    const A on = A(value.on), off = A(value.off), w0 = A(weight[0]), w1 = A(weight[1]);
    const auto sum = [=](A v0, A v1) {
      const A first = w0 == 0 ? A(0) : w0 * v0;
      const A second = w1 == 0 ? A(0) : w1 * v1;
      return first + second;
    };
    neither = sum(off, off);
    own = sum(on, off);
    partner = sum(off, on);
    both = sum(on, on);
  }

  // Each value becomes 1 where it is above the threshold, else 0.
  void apply_threshold(A threshold) {
    for (A* t : {&neither, &own, &partner, &both}) *t = A(*t > threshold ? 1 : 0);
  }
};

}  // namespace fused_mixup
