// The binary cross-entropy of rows of adjacent classes.
#pragma once

#include "bce_inputs.h"
#include "loss_rows.h"

namespace fused_mixup {

// A focal loss F of a label that is there, and its slope F'; see bce_kernels.inl.
struct BinaryFocal {
  double loss, slope;

  BinaryFocal(double x, double gamma) {
    const double u = std::exp(-std::fabs(x)), curved = std::log1p(u);
    const double s = curved + (x < 0 ? -x : 0), other = curved + (x < 0 ? 0 : x);
    const double p = (x < 0 ? u : 1) / (1 + u), q = (x < 0 ? 1 : u) / (1 + u);
    const double factor = std::exp(-gamma * other);
    loss = factor * s;
    slope = -factor * (gamma * p * s + q);
  }
};

// One element in double; see bce_kernels.inl.
struct BinaryElement {
  double x, w, q, gamma;

  double exp_part() const { return std::exp(-std::fabs(x)); }
  double loss(double t) const {
    if (gamma != 0) {
      return w * (q * t * BinaryFocal(x, gamma).loss + (1 - t) * BinaryFocal(-x, gamma).loss);
    }
    const double line = (x < 0 ? -q * t : 1 - t) * x;
    return w * (line + (1 + (q - 1) * t) * std::log1p(exp_part()));
  }
  double loss_by_t() const {
    if (gamma != 0) return w * (q * BinaryFocal(x, gamma).loss - BinaryFocal(-x, gamma).loss);
    return w * ((x < 0 ? -q : -1.0) * x + (q - 1) * std::log1p(exp_part()));
  }
  double grad(double t) const {
    if (gamma != 0) {
      return w * (q * t * BinaryFocal(x, gamma).slope - (1 - t) * BinaryFocal(-x, gamma).slope);
    }
    const double u = exp_part(), sigmoid = (x < 0 ? u : 1.0) / (1 + u);
    return w * ((1 + (q - 1) * t) * sigmoid - q * t);
  }
};

// A row with a sparse target: one sweep as though t were `neither` everywhere, then the entries of
// the labels. Returns Σ loss if it is asked for.
template <typename L, typename T>
double sparse_row(const BinaryInputs& in, BinaryRun<L, T>& run, int64_t b, int64_t r) {
  using A = acc_t<L>;
  const int64_t own = in.sparse->labels[r], partner = in.sparse->partner_labels[r];
  if (!in.sparse->in_range(own) || !in.sparse->in_range(partner)) {
    run.base = A(kNaN);
    return binary_kernels<L, T>().run(run);
  }
  const TargetValues<A> values = in.values<A>(b);
  run.base = values.neither;
  const int64_t label[2] = {own, partner};
  const double t[2] = {own == partner ? values.both : values.own, values.partner};
  const int count = own == partner ? 1 : 2;
  // Read first, as the gradient may be written over the logits.
  const double x[2] = {to_float(run.x[own]), to_float(run.x[partner])};
  double sum = binary_kernels<L, T>().run(run);
  for (int j = 0; j < count; ++j) {
    const int64_t c = label[j];
    const BinaryElement element = {x[j], run.class_weights ? run.class_weights[c] : 1.0,
                                   run.pos_weights ? run.pos_weights[c] : 1.0, double(run.gamma)};
    if (run.sum) sum += (t[j] - values.neither) * element.loss_by_t();
    if (run.loss != nullptr) run.loss[c] = A(element.loss(t[j]));
    if (run.grad == nullptr) continue;
    const double scale = double(run.scale) * (run.upstream ? run.upstream[c] : 1.0);
    run.grad[c] = from_float<L>(A(scale * element.grad(t[j])));
  }
  return sum;
}

template <typename L, typename T>
double binary_rows(const BinaryInputs& in, const BinaryOutputs<acc_t<L>>& out) {
  using A = acc_t<L>;
  const LossTensors& tensors = in.tensors;
  const int64_t k = tensors.k, each = rows_of_block(tensors), rows = tensors.rows();
  const bool elements = in.arguments.each_element();
  BlockSums sums(blocks_of_rows(tensors));
  parallel_for(0, blocks_of_rows(tensors), 1, [&](int64_t begin, int64_t end) {
    BinaryRun<L, T> run = in.run<L, T>();
    run.n = k;
    run.class_weights = in.weights<A>(in.class_weight);
    run.pos_weights = in.weights<A>(in.pos_weight);
    run.sum = out.sum || (out.loss != nullptr && !elements);
    for (int64_t r = begin * each; r < std::min(rows, end * each); ++r) {
      const int64_t b = r / tensors.inner, s = r % tensors.inner;
      run.x = tensors.logits.at<const L>(b, s);
      run.dense = tensors.target ? tensors.target->at<const T>(b, s) : nullptr;
      run.loss = elements && out.loss != nullptr ? out.loss + r * k : nullptr;
      run.grad = tensors.grad ? tensors.grad->at<L>(b, s) : nullptr;
      run.upstream = elements && out.upstream != nullptr ? out.upstream + r * k : nullptr;
      run.scale = !elements && out.upstream != nullptr ? out.upstream[r] * out.scale : out.scale;
      const double loss = in.sparse ? sparse_row(in, run, b, r) : binary_kernels<L, T>().run(run);
      if (!elements && out.loss != nullptr) out.loss[r] = A(loss);
      sums[r / each] += loss;
    }
  });
  return sums.total();
}

}  // namespace fused_mixup
