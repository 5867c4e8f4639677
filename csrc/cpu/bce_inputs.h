// The inputs and outputs of one call of a binary cross-entropy op.
#pragma once

#include "loss_inputs.h"
#include "target_values.h"

namespace fused_mixup {

// The logits, and the fields of BinaryCrossEntropyArguments in fused_mixup/schemas.py.
struct BinaryCrossEntropyArguments {
  const Tensor& logits;                  // [B, K, …]
  const Tensor& target;                  // [B, K, …], or int64 [B, …]
  const OptionalTensor& partner_labels;  // int64 [B, …]
  const OptionalTensor& weight;          // float32 [B, 2]
  const OptionalTensor& class_weight;    // [K]
  const OptionalTensor& pos_weight;      // [K]
  double target_smoothing;
  std::optional<double> threshold;
  double focal_gamma;
  int64_t reduction;
  bool sum_classes;

  void check() const {
    check_loss(logits, target, partner_labels, weight, class_weight, reduction);
    check_per_class("pos_weight", pos_weight, logits);
    expect(is_coefficient(focal_gamma), "focal_gamma", "a finite number >= 0");
  }
  bool each_element() const { return reduction == kNone && !sum_classes; }
};

struct BinaryInputs {
  const BinaryCrossEntropyArguments& arguments;
  LossTensors tensors;
  std::optional<SparseTarget> sparse;
  OptionalTensor class_weight, pos_weight;  // contiguous

  // into: see LossTensors.
  BinaryInputs(const BinaryCrossEntropyArguments& a, const Tensor* into)
      : arguments(a),
        tensors(a.logits, a.partner_labels ? nullptr : &a.target, into, a.each_element()),
        class_weight(as_contiguous(a.class_weight)),
        pos_weight(as_contiguous(a.pos_weight)) {
    if (a.partner_labels) {
      sparse.emplace(a.target, *a.partner_labels, *a.weight, tensors.k, INT64_MIN,
                     a.target_smoothing, 0.0);
    }
  }

  template <typename A>
  static const A* weights(const OptionalTensor& t) {  // [K] or null
    return t ? static_cast<const A*>(t->data_ptr()) : nullptr;
  }

  // The values of the sparse target of sample b.
  template <typename A>
  TargetValues<A> values(int64_t b) const {
    const SmoothedOneHot value(sparse->target_smoothing, tensors.k);
    TargetValues<A> values(sparse->weight + b * sparse->weight_stride, value);
    if (arguments.threshold) values.apply_threshold(A(*arguments.threshold));
    return values;
  }

  // How many summands a mean divides by.
  double count() const {
    return double(tensors.rows()) * (arguments.sum_classes ? 1.0 : double(tensors.k));
  }

  // A run with the fields that all runs share.
  template <typename L, typename T>
  BinaryRun<L, T> run() const {
    BinaryRun<L, T> run = {};
    run.binarize = arguments.threshold.has_value();
    run.threshold = acc_t<L>(arguments.threshold.value_or(0));
    run.gamma = acc_t<L>(arguments.focal_gamma);
    return run;
  }
};

// What a call asks for; each pointer may be null. The gradient is written where the inputs have
// memory for it.
template <typename A>
struct BinaryOutputs {
  bool sum = false;             // whether the sum of the losses is asked for
  A* loss = nullptr;            // [B, S] or, for each element, [B, K, S]
  const A* upstream = nullptr;  // of the shape of loss
  A scale = 1;                  // multiplies the gradient
};

}  // namespace fused_mixup
