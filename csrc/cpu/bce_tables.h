// The argument of the kernel of the binary cross-entropy: a run of adjacent logits, along the
// classes of a row or along the positions of a class.
#pragma once

#include "loss_tables.h"

namespace fused_mixup {

// A sparse target of adjacent positions: for one class, t is base, or another value where the class
// is one of the labels. The arrays have the size of those in ColumnSums.
template <typename A>
struct BinaryColumnLabels {
  bits_t<A> own[kMaxTile], partner[kMaxTile];  // ~0 for no class
  A base[kMaxTile];                            // NaN where a label is out of range
  A at_own, at_partner, at_both;
};

template <typename L, typename T>
struct BinaryRun {
  using A = acc_t<L>;
  const L* x;
  int64_t n;
  // The target: one of these two, or else base for all.
  const T* dense = nullptr;
  const BinaryColumnLabels<A>* labels = nullptr;
  A base = 0;
  bits_t<A> label = 0;    // the class of the run, where there are labels
  bool binarize = false;  // a dense t counts as t > threshold
  A threshold = 0;
  A gamma = 0;                       // of a focal loss
  const A* class_weights = nullptr;  // [n], or class_weight for all
  const A* pos_weights = nullptr;    // [n], or pos_weight for all
  A class_weight = 1, pos_weight = 1;
  // What the call asks for.
  bool sum = false;             // whether to return Σ loss
  A* loss = nullptr;            // [n] or null: the loss of each element
  bool add = false;             // adds the losses to what is in `loss`
  L* grad = nullptr;            // [n] or null; may be x
  A scale = 1;                  // multiplies the gradient
  const A* upstream = nullptr;  // [n] or null: multiplies the gradient too
};

template <typename L, typename T>
struct BinaryKernels {
  double (*run)(const BinaryRun<L, T>& run);  // returns Σ loss where it is asked for
};

}  // namespace fused_mixup
