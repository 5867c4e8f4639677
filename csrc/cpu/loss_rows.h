// The cross-entropy of rows of adjacent classes.
#pragma once

#include <algorithm>

#include "loss_inputs.h"

namespace fused_mixup {

// Rows of one block of work: about 16384 elements, which outweigh the cost of a thread.
inline int64_t rows_of_block(const LossTensors& tensors) {
  return 1 + 16384 / std::max<int64_t>(tensors.k, 1);
}
inline int64_t blocks_of_rows(const LossTensors& tensors) {
  const int64_t each = rows_of_block(tensors);
  return (tensors.rows() + each - 1) / each;
}

// A row, and the terms of its sample's target where that is sparse.
struct RowPlace {
  int64_t r, b, s;  // r = b·S + s
  SampleTerms terms;
};

// Calls f(block, place) for every row, in order within a block.
template <typename F>
void for_rows(const LossInputs& in, const F& f) {
  const LossTensors& tensors = in.tensors;
  const int64_t each = rows_of_block(tensors), rows = tensors.rows();
  parallel_for(0, blocks_of_rows(tensors), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t last = std::min(rows, (block + 1) * each);
      for (int64_t r = block * each; r < last;) {
        RowPlace at = {r, r / tensors.inner, r % tensors.inner, {}};
        if (in.sparse) at.terms = in.sparse->sample(at.b);
        for (; at.s < tensors.inner && at.r < last; ++at.s, ++at.r) f(block, at);
        r = at.r;
      }
    }
  });
}

// The results of one row's forward.
struct RowLoss {
  double loss, max, log_sum, total;
  bool ignored;
};

// Adds the focal terms of the labels, and the z-loss. row, values: a sparse target and the logits
// of its labels; null for a dense target.
template <typename A>
__attribute__((noinline)) void add_terms(const LossInputs& in, const SparseRow* row,
                                         const double* values, RowLoss& out) {
  if (row != nullptr && in.focal_gamma != 0) {
    const A* w = in.class_weights<A>();
    out.loss = out.total = 0 * out.log_sum;  // NaN stays, also at weights of 0
    for (int j = 0; j < 2; ++j) {
      const int64_t c = row->label[j];
      if (c < 0) continue;
      const double t = w == nullptr ? row->coefficient[j] : term(w[c], row->coefficient[j]);
      // log_sum as the stats keep it: the terms of the gradient cancel near p = 1.
      const FocalTerm focal(in.focal_gamma, (values[j] - out.max) - A(out.log_sum));
      out.loss += term(t, focal.loss);
      out.total += term(t, focal.slope);
    }
  }
  if (in.z_loss != 0) in.add_z_loss(out.max + out.log_sum, out.loss, out.total);
  if (row != nullptr && row->poisoned) out.loss = out.total = kNaN;
}

// ranks: memory of the row's first rank, or null; the second rank lies `rows` further.
template <typename L, typename T>
RowLoss row_loss(const LossInputs& in, const RowPlace& at, int32_t* ranks) {
  using A = acc_t<L>;
  const LossTensors& tensors = in.tensors;
  const L* z = tensors.logits.at<const L>(at.b, at.s);
  const A* w = in.class_weights<A>();
  const auto forward = loss_kernels<L, T>().forward;
  // A row of -inf alone has no distribution and becomes NaN, as in PyTorch.
  const auto log_of = [](const RowSums& sums) {
    return std::isinf(sums.max) ? kNaN : std::log(sums.exp);
  };
  if (!in.sparse) {
    const RowSums sums = forward(z, tensors.target->at<const T>(at.b, at.s), w, tensors.k,
                                 in.wants_shifted(), nullptr);
    const double each = in.label_smoothing / double(tensors.k), keep = 1.0 - in.label_smoothing;
    const double total = keep * sums.target + term(each, in.class_weight_sum);
    const double product = term(keep, sums.product) + term(each, sums.shifted);
    const double log_sum = log_of(sums);
    RowLoss out = {log_sum * total - product, sums.max, log_sum, total, false};
    if (in.has_more_terms()) add_terms<A>(in, nullptr, nullptr, out);
    return out;
  }
  const SparseRow row = in.sparse->row(at.terms, at.r);
  const auto value = [&](int j) { return row.label[j] < 0 ? 0.0 : to_float(z[row.label[j]]); };
  Ranking ranking = {{row.label[0], row.label[1]}, {value(0), value(1)}, {0, 0}};
  const RowSums sums =
      forward(z, nullptr, w, tensors.k, in.wants_shifted(), ranks != nullptr ? &ranking : nullptr);
  for (int j = 0; ranks != nullptr && j < 2; ++j) {
    ranks[j * tensors.rows()] = int32_t(row.label[j] < 0 ? tensors.k : ranking.ahead[j]);
  }
  const double log_sum = log_of(sums);
  if (row.ignored) return {0, sums.max, log_sum, 0, true};
  double total = w == nullptr ? row.total : term(row.constant, in.class_weight_sum);
  double product = term(row.constant, sums.shifted);
  for (int j = 0; j < 2; ++j) {
    if (row.label[j] < 0) continue;
    const double t = w == nullptr ? row.coefficient[j] : term(w[row.label[j]], row.coefficient[j]);
    if (w != nullptr) total += t;
    product += term(t, ranking.value[j] - sums.max);
  }
  if (row.poisoned) total = kNaN;
  RowLoss out = {log_sum * total - product, sums.max, log_sum, total, false};
  if (in.has_more_terms()) add_terms<A>(in, &row, ranking.value, out);
  return out;
}

// Writes the gradient of one row; `scale` is the gradient of its loss.
template <typename L, typename T>
void row_gradient(const LossInputs& in, const RowPlace& at, acc_t<L> max, acc_t<L> log_sum,
                  acc_t<L> total, acc_t<L> scale) {
  using A = acc_t<L>;
  const LossTensors& tensors = in.tensors;
  const L* z = tensors.logits.at<const L>(at.b, at.s);
  L* grad = tensors.grad->at<L>(at.b, at.s);
  const A* w = in.class_weights<A>();
  const auto backward = loss_kernels<L, T>().backward;
  if (!in.sparse) {
    const double smoothing = in.label_smoothing;
    backward(grad, z, tensors.target->at<const T>(at.b, at.s), w, tensors.k,
             {max, log_sum, scale * total, A(scale * (1.0 - smoothing)),
              A(scale * (smoothing / double(tensors.k)))});
    return;
  }
  const SparseRow row = in.sparse->row(at.terms, at.r);
  if (row.ignored) {
    std::fill_n(grad, tensors.k, from_float<L>(0));
    return;
  }
  // The total in the stats is NaN as well, if they belong to this target.
  const A sum = row.poisoned ? A(kNaN) : total;
  // Read first, as the gradient may be written over the logits.
  const auto value = [&](int j) { return row.label[j] < 0 ? 0.0 : to_float(z[row.label[j]]); };
  const double values[2] = {value(0), value(1)};
  backward(grad, z, nullptr, w, tensors.k,
           {max, log_sum, scale * sum, A(0), A(scale * row.constant)});
  if (row.poisoned) return;
  // The entries of the labels are computed from scratch: a difference from the rounded entry would
  // lose its digits where p is near t. Equal labels add up.
  const bool equal = row.label[0] == row.label[1];
  for (int j = 0; j < 2; ++j) {
    const int64_t c = row.label[j];
    if (c < 0) continue;
    double t = equal ? row.coefficient[0] + row.coefficient[1] : row.coefficient[j];
    t += row.constant;
    if (w != nullptr) t = term(w[c], t);
    const double log_p = (values[j] - max) - log_sum, p = std::exp(log_p);
    if (in.focal_gamma != 0) t = term(t, FocalTerm(in.focal_gamma, log_p).slope);
    grad[c] = from_float<L>(A(scale * (total * p - t)));
  }
}

// grad: writes the gradient too, for an upstream gradient of `scale`, while the row is in the
// cache.
template <typename L, typename T>
double forward_rows(const LossInputs& in, const LossOutputs<acc_t<L>>& out, bool grad, double scale,
                    double& count) {
  using A = acc_t<L>;
  const int64_t rows = in.tensors.rows();
  BlockSums losses(blocks_of_rows(in.tensors)), ignored(blocks_of_rows(in.tensors));
  for_rows(in, [&](int64_t block, const RowPlace& at) {
    const RowLoss row = row_loss<L, T>(in, at, out.ranks == nullptr ? nullptr : out.ranks + at.r);
    losses[block] += row.loss;
    ignored[block] += row.ignored;
    const A stats[3] = {A(row.max), A(row.log_sum), A(row.total)};
    for (int j = 0; out.stats != nullptr && j < 3; ++j) out.stats[j * rows + at.r] = stats[j];
    if (in.reduction == kNone) out.loss[at.r] = A(row.loss);
    if (grad) row_gradient<L, T>(in, at, stats[0], stats[1], stats[2], A(scale));
  });
  count = double(rows) - ignored.total();
  return losses.total();
}

template <typename L, typename T>
void backward_rows(const LossInputs& in, const acc_t<L>* stats, const acc_t<L>* upstream,
                   acc_t<L> factor) {
  using A = acc_t<L>;
  const int64_t rows = in.tensors.rows();
  for_rows(in, [&](int64_t, const RowPlace& at) {
    const A* row = stats + at.r;
    const A scale = upstream == nullptr ? factor : upstream[at.r] * factor;
    row_gradient<L, T>(in, at, row[0], row[rows], row[2 * rows], scale);
  });
}

}  // namespace fused_mixup
