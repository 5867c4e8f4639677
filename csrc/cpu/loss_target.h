// A sparse target as the losses understand it.
#pragma once

#include <cstdint>

#include "binding.h"

namespace fused_mixup {

// The terms of one sample's target, t' = Σ_j coefficient_j onehot(label_j) + constant over the
// labels j that are kept. The arrays of 4 are indexed by which labels those are: bit 0 for the
// sample's own, bit 1 for its partner's.
struct SampleTerms {
  double coefficient[2];
  double constant[4];
  double total[4];  // Σ t', where every class weighs 1
  bool ignored[4];  // a label is dropped, and no label that is left has a weight
};

// The target of one row. An ignored row has no loss. A label that is out of range, and not to be
// ignored, poisons its row: all results of the row are NaN.
struct SparseRow {
  int64_t label[2];       // -1 where dropped or out of range
  double coefficient[2];  // 0 where dropped
  double constant, total;
  bool ignored, poisoned;
};

struct SparseTarget {
  Tensor labels_tensor, partner_tensor, weight_tensor;  // keep the memory of the pointers below
  const int64_t* labels;                                // [B, S]
  const int64_t* partner_labels;
  const float* weight;  // [B, 2]
  int64_t weight_stride, num_classes, ignore_index;
  double target_smoothing, label_smoothing;

  SparseTarget(const Tensor& own,      // int64 [B, …]
               const Tensor& partner,  // int64 [B, …]
               const Tensor& weights,  // float32 [B, 2]
               int64_t k, int64_t ignore, double smoothing, double more_smoothing)
      : labels_tensor(as_contiguous(own)),
        partner_tensor(as_contiguous(partner)),
        weight_tensor(as_rows(weights)),
        labels(data<int64_t>(labels_tensor)),
        partner_labels(data<int64_t>(partner_tensor)),
        weight(data<float>(weight_tensor)),
        weight_stride(weight_tensor.stride(0)),
        num_classes(k),
        ignore_index(ignore),
        target_smoothing(smoothing),
        label_smoothing(more_smoothing) {}

  bool smooths() const { return target_smoothing != 0 || label_smoothing != 0; }
  bool may_ignore() const { return ignore_index != INT64_MIN; }

  SampleTerms sample(int64_t b) const {
    const float* w = weight + b * weight_stride;
    const double keep = 1.0 - label_smoothing;
    SampleTerms out;
    for (int j = 0; j < 2; ++j) out.coefficient[j] = keep * (1.0 - target_smoothing) * w[j];
    for (int kept = 0; kept < 4; ++kept) {
      const double sum = (kept & 1 ? double(w[0]) : 0.0) + (kept & 2 ? double(w[1]) : 0.0);
      out.constant[kept] = (keep * target_smoothing * sum + label_smoothing) / double(num_classes);
      out.total[kept] = keep * sum + label_smoothing;
      const bool nothing = (!(kept & 1) || w[0] == 0) && (!(kept & 2) || w[1] == 0);
      out.ignored[kept] = kept != 3 && nothing;
    }
    return out;
  }

  // r: b·S + s
  SparseRow row(const SampleTerms& terms, int64_t r) const {
    const int64_t own = labels[r], partner = partner_labels[r];
    const int kept = (own != ignore_index) | (partner != ignore_index) << 1;
    const bool fits[2] = {(kept & 1) && in_range(own), (kept & 2) && in_range(partner)};
    SparseRow out;
    out.label[0] = fits[0] ? own : -1;
    out.label[1] = fits[1] ? partner : -1;
    out.coefficient[0] = fits[0] ? terms.coefficient[0] : 0;
    out.coefficient[1] = fits[1] ? terms.coefficient[1] : 0;
    out.constant = terms.constant[kept];
    out.total = terms.total[kept];
    out.poisoned = ((kept & 1) && !fits[0]) || ((kept & 2) && !fits[1]);
    out.ignored = terms.ignored[kept] && !out.poisoned;
    return out;
  }

  bool in_range(int64_t label) const { return uint64_t(label) < uint64_t(num_classes); }
};

}  // namespace fused_mixup
