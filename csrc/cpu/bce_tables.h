// What the kernel of the binary cross-entropy takes: a run of adjacent logits, along the classes of
// a row or along the positions of a class.
#pragma once

#include "loss_tables.h"

namespace fused_mixup {

// A sparse target of adjacent positions, seen from one class: t is base, and another value where
// the class is one of the labels. Arrays as in ColumnSums.
template <typename A>
struct BinaryLabels {
  bits_t<A> own[kMaxTile], partner[kMaxTile];  // ~0: of no class
  A base[kMaxTile];                            // NaN where a label is out of range
  A at_own, at_partner, at_both;
};

template <typename L, typename T>
struct BinaryRun {
  using A = acc_t<L>;
  const L* x;
  int64_t n;
  // The target: one of these, or else base for all.
  const T* dense = nullptr;
  const BinaryLabels<A>* labels = nullptr;
  A base = 0;
  bits_t<A> label = 0;    // the class of the run, where there are labels
  bool binarize = false;  // a dense t counts as t > threshold
  A threshold = 0;
  const A* class_weights = nullptr;  // [n], or class_weight for all
  const A* pos_weights = nullptr;    // [n], or pos_weight for all
  A class_weight = 1, pos_weight = 1;
  // What is wanted.
  bool sum = false;   // Σ loss
  A* loss = nullptr;  // [n]: each loss, or added to what is there
  bool add = false;
  L* grad = nullptr;  // [n]; may be x
  A scale = 1;        // of the gradient, times upstream [n] if there is one
  const A* upstream = nullptr;
};

template <typename L, typename T>
struct BinaryKernels {
  double (*run)(const BinaryRun<L, T>& run);  // Σ loss, where it is wanted
};

}  // namespace fused_mixup
