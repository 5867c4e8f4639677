// What one call of a binary cross-entropy op works on.
#pragma once

#include "loss_inputs.h"

namespace fused_mixup {

struct BinaryArguments {
  const Tensor& logits;
  const Tensor& target;
  const OptionalTensor& partner_labels;
  const OptionalTensor& weight;
  const OptionalTensor& class_weight;
  const OptionalTensor& pos_weight;
  double target_smoothing;
  std::optional<double> threshold;
  int64_t reduction;
  bool sum_classes;

  void check() const {
    check_loss(logits, target, partner_labels, weight, class_weight, reduction);
    check_per_class("pos_weight", pos_weight, logits);
  }
  bool each_element() const { return reduction == kNone && !sum_classes; }
};

// The values that a sample's sparse target has, as mix_targets() would write them: each product and
// the sum are rounded one by one, a weight of 0 drops its term, and a threshold makes them 0 or 1.
template <typename A>
struct BinaryValues {
  A base, own, partner, both;
};

struct BinaryInputs {
  const BinaryArguments& arguments;
  Places places;
  std::optional<SparseTarget> sparse;
  OptionalTensor class_weight, pos_weight;  // contiguous

  // into: as in Places.
  BinaryInputs(const BinaryArguments& a, const Tensor* into)
      : arguments(a),
        places(a.logits, a.partner_labels ? nullptr : &a.target, into, a.each_element()),
        class_weight(as_contiguous(a.class_weight)),
        pos_weight(as_contiguous(a.pos_weight)) {
    if (a.partner_labels) {
      sparse.emplace(a.target, *a.partner_labels, *a.weight, places.k, INT64_MIN,
                     a.target_smoothing, 0.0);
    }
  }

  template <typename A>
  static const A* weights(const OptionalTensor& t) {  // [K] or null
    return t ? static_cast<const A*>(t->data_ptr()) : nullptr;
  }

  template <typename A>
  BinaryValues<A> values(int64_t b) const {
    const float* w = sparse->weight + b * sparse->weight_stride;
    const double off = sparse->target_smoothing / double(places.k);
    const A low = A(off), high = A(1.0 - sparse->target_smoothing + off);
    const auto value = [&](bool own, bool partner) {
      const A first = w[0] == 0 ? A(0) : A(w[0]) * (own ? high : low);
      const A second = w[1] == 0 ? A(0) : A(w[1]) * (partner ? high : low);
      const A t = first + second;
      if (!arguments.threshold) return t;
      return A(t > A(*arguments.threshold) ? 1 : 0);
    };
    return {value(false, false), value(true, false), value(false, true), value(true, true)};
  }

  // How many summands a mean divides by.
  double count() const {
    return double(places.rows()) * (arguments.sum_classes ? 1.0 : double(places.k));
  }

  // What is the same for all runs.
  template <typename L, typename T>
  BinaryRun<L, T> run() const {
    BinaryRun<L, T> run = {};
    run.binarize = arguments.threshold.has_value();
    run.threshold = acc_t<L>(arguments.threshold.value_or(0));
    return run;
  }
};

// What is wanted; each may be null. The gradient is written where the inputs have a place for it.
template <typename A>
struct BinaryOutputs {
  bool sum = false;             // the sum of the losses
  A* loss = nullptr;            // [B, S] or, for each element, [B, K, S]
  const A* upstream = nullptr;  // as loss
  A scale = 1;                  // of the gradient
};

}  // namespace fused_mixup
