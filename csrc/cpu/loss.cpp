// soft_target_cross_entropy and its backward on the CPU.
//
// Forward: the logits are read once (N bytes); a MixedTarget adds two labels and two weights per
// row. Backward: one read of the logits, one write of the gradient (2N). With m = max z,
// l = log Σ e^(z-m) and t' = (1-ε) t + ε/K:
//     loss = l Σt' - Σ t' (z-m)          d loss / d z = Σt' · e^((z-m) - l) - t'
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "binding.h"
#include "kernels.h"

namespace fused_mixup {
namespace {

enum Reduction : int64_t { kMean = 0, kSum = 1, kNone = 2 };

// A sparse target as the loss uses it: t' = Σ_k coefficient_k onehot(label_k) + constant.
struct SparseRow {
  int64_t label[2];
  double coefficient[2];
  double constant;
  double total;  // Σ t'
  bool valid;    // both labels inside [0, K)
};

struct SparseTarget {
  const int64_t* labels = nullptr;
  const int64_t* partner_labels = nullptr;
  const float* weight = nullptr;
  int64_t weight_stride = 0;
  double target_smoothing = 0, label_smoothing = 0;

  SparseRow row(int64_t i, int64_t k) const {
    const double keep = 1.0 - label_smoothing;
    const float* w = weight + i * weight_stride;
    SparseRow out = {{labels[i], partner_labels[i]}, {}, 0, 0, true};
    double sum = 0;
    for (int j = 0; j < 2; ++j) {
      out.coefficient[j] = keep * (1.0 - target_smoothing) * w[j];
      out.valid = out.valid && out.label[j] >= 0 && out.label[j] < k;
      sum += w[j];
    }
    out.constant = (keep * target_smoothing * sum + label_smoothing) / double(k);
    out.total = keep * sum + label_smoothing;
    return out;
  }
  bool smooths() const { return target_smoothing != 0 || label_smoothing != 0; }
};

// Type of the logits, type of a dense target.
template <typename L, typename T>
struct Types {};

template <typename F>
void dispatch(ScalarType logits, ScalarType target, const F& f) {
  const bool same = target == logits;
  switch (logits) {
    case ScalarType::Float:
      return f(Types<float, float>());
    case ScalarType::Double:
      return f(Types<double, double>());
    case ScalarType::Half:
      return same ? f(Types<Half, Half>()) : f(Types<Half, float>());
    case ScalarType::BFloat16:
      return same ? f(Types<BFloat16, BFloat16>()) : f(Types<BFloat16, float>());
    default:
      STD_TORCH_CHECK(false, "fused_mixup: logits that are not floating");
  }
}

// Rows along which elements are adjacent; a copy is made only where they are not.
Tensor with_adjacent_columns(const Tensor& t) {
  return t.size(1) == 1 || t.stride(1) == 1 ? t : torch::stable::contiguous(t);
}

struct Inputs {
  Tensor logits, target;
  Tensor labels, partner_labels;  // contiguous; only of a sparse target
  SparseTarget sparse;
  bool is_sparse;
  int64_t batch, k;

  Inputs(const Tensor& z, const Tensor& t, const OptionalTensor& partner,
         const OptionalTensor& weight, double target_smoothing, double label_smoothing)
      : logits(with_adjacent_columns(z)),
        target(partner ? t : with_adjacent_columns(t)),
        labels(t),
        partner_labels(partner ? *partner : t),
        is_sparse(partner.has_value()),
        batch(z.size(0)),
        k(z.size(1)) {
    sparse.target_smoothing = target_smoothing;
    sparse.label_smoothing = label_smoothing;
    if (!is_sparse) {
      const bool known = t.scalar_type() == z.scalar_type() ||
                         (t.scalar_type() == ScalarType::Float && z.element_size() == 2);
      STD_TORCH_CHECK(known,
                      "fused_mixup: a dense target has the dtype of the logits, or float32 "
                      "where those are of a half type");
      return;
    }
    labels = torch::stable::contiguous(t);
    partner_labels = torch::stable::contiguous(*partner);
    sparse.labels = static_cast<const int64_t*>(labels.data_ptr());
    sparse.partner_labels = static_cast<const int64_t*>(partner_labels.data_ptr());
    sparse.weight = static_cast<const float*>(weight->data_ptr());
    sparse.weight_stride = weight->stride(0);
  }

  template <typename L>
  const L* logits_row(int64_t i) const {
    return static_cast<const L*>(logits.data_ptr()) + i * logits.stride(0);
  }
  template <typename T>
  const T* target_row(int64_t i) const {
    if (is_sparse) return nullptr;
    return static_cast<const T*>(target.data_ptr()) + i * target.stride(0);
  }
  int64_t grain() const { return 1 + 16384 / k; }
};

double term(double weight, double value) { return weight == 0 ? 0 : weight * value; }

// One row's loss and stats.
template <typename L, typename T>
double row_loss(const Inputs& in, int64_t i, acc_t<L>* stats) {
  const L* z = in.logits_row<L>(i);
  const RowSums sums =
      loss_kernels<L, T>().forward(z, in.target_row<T>(i), in.k, in.sparse.smooths());
  const double nan = std::numeric_limits<double>::quiet_NaN();
  // A row of -inf alone has no distribution, as in PyTorch.
  const double log_sum = std::isinf(sums.max) ? nan : std::log(sums.exp);
  double total, product;
  if (in.is_sparse) {
    const SparseRow row = in.sparse.row(i, in.k);
    // A label out of range: NaN, in the gradient too.
    total = row.valid ? row.total : nan;
    product = term(row.constant, sums.shifted);
    for (int j = 0; j < 2 && row.valid; ++j) {
      product += term(row.coefficient[j], double(to_float(z[row.label[j]])) - sums.max);
    }
  } else {
    const double smoothing = in.sparse.label_smoothing;
    total = (1.0 - smoothing) * sums.target + smoothing;
    product = term(1.0 - smoothing, sums.product) + term(smoothing / double(in.k), sums.shifted);
  }
  stats[0] = acc_t<L>(sums.max);
  stats[1] = acc_t<L>(log_sum);
  stats[2] = acc_t<L>(total);
  return log_sum * total - product;
}

template <typename L, typename T>
L* data_of(Types<L, T>, const Tensor& t) {
  return static_cast<L*>(t.data_ptr());
}

template <typename L, typename T>
void forward_rows(Types<L, T>, const Inputs& in, const Tensor& loss, const Tensor& stats,
                  int64_t reduction) {
  using A = acc_t<L>;
  A* saved = static_cast<A*>(stats.data_ptr());
  A* out = static_cast<A*>(loss.data_ptr());
  std::vector<double> rows(in.batch);
  torch::stable::parallel_for(0, in.batch, in.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) rows[i] = row_loss<L, T>(in, i, saved + 3 * i);
  });
  // One order of summation whatever the number of threads.
  double sum = 0;
  for (int64_t i = 0; i < in.batch; ++i) {
    if (reduction == kNone) out[i] = A(rows[i]);
    sum += rows[i];
  }
  if (reduction == kMean) *out = A(sum / double(in.batch));
  if (reduction == kSum) *out = A(sum);
}

std::tuple<Tensor, Tensor> soft_target_cross_entropy(Tensor logits, Tensor target,
                                                     OptionalTensor partner_labels,
                                                     OptionalTensor weight, double target_smoothing,
                                                     double label_smoothing, int64_t reduction) {
  const Inputs in(logits, target, partner_labels, weight, target_smoothing, label_smoothing);
  const bool wide = logits.scalar_type() == ScalarType::Double;
  const ScalarType result = wide ? ScalarType::Double : ScalarType::Float;
  const std::vector<int64_t> stats_shape = {in.batch, 3};
  const std::vector<int64_t> loss_shape(reduction == kNone ? 1 : 0, in.batch);
  Tensor stats = torch::stable::empty(stats_shape, result);
  Tensor loss = torch::stable::empty(loss_shape, result);
  dispatch(logits.scalar_type(), target.scalar_type(),
           [&](auto types) { forward_rows(types, in, loss, stats, reduction); });
  return {loss, stats};
}

// Gradient of one row; `scale` is the gradient of its loss.
template <typename L, typename T>
void row_gradient(const Inputs& in, int64_t i, const acc_t<L>* stats, acc_t<L> scale, L* grad) {
  using A = acc_t<L>;
  const L* z = in.logits_row<L>(i);
  const A max = stats[0], log_sum = stats[1], total = stats[2];
  const auto backward = loss_kernels<L, T>().backward;
  if (!in.is_sparse) {
    const double smoothing = in.sparse.label_smoothing;
    backward(grad, z, in.target_row<T>(i), in.k, max, log_sum, scale * total,
             A(scale * (1.0 - smoothing)), A(scale * (smoothing / double(in.k))));
    return;
  }
  const SparseRow row = in.sparse.row(i, in.k);
  // The caller's stats say so too, if they are those of this target.
  const A sum = row.valid ? total : std::numeric_limits<A>::quiet_NaN();
  backward(grad, z, nullptr, in.k, max, log_sum, scale * sum, A(0), A(scale * row.constant));
  if (!row.valid) return;
  // Entries of the labels from scratch: subtracting from the rounded entry would lose them where
  // p is near t. Equal labels add up.
  const bool equal = row.label[0] == row.label[1];
  for (int j = 0; j < 2; ++j) {
    const int64_t c = row.label[j];
    const double t = equal ? row.coefficient[0] + row.coefficient[1] : row.coefficient[j];
    const double p = std::exp((double(to_float(z[c])) - max) - log_sum);
    grad[c] = from_float<L>(A(scale * (total * p - (t + row.constant))));
  }
}

template <typename L, typename T>
void backward_rows(Types<L, T>, const Inputs& in, const Tensor& grad_loss, const Tensor& stats,
                   int64_t reduction, L* grad, int64_t grad_stride) {
  using A = acc_t<L>;
  const A* upstream = static_cast<const A*>(grad_loss.data_ptr());
  const int64_t upstream_stride = reduction == kNone ? grad_loss.stride(0) : 0;
  const A* saved = static_cast<const A*>(stats.data_ptr());
  torch::stable::parallel_for(0, in.batch, in.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const A scale = upstream[i * upstream_stride] / A(reduction == kMean ? in.batch : 1);
      row_gradient<L, T>(in, i, saved + 3 * i, scale, grad + i * grad_stride);
    }
  });
}

Tensor soft_target_cross_entropy_backward(Tensor grad_loss, Tensor logits, Tensor stats,
                                          Tensor target, OptionalTensor partner_labels,
                                          OptionalTensor weight, double target_smoothing,
                                          double label_smoothing, int64_t reduction) {
  Tensor grad = on_large_pages(torch::stable::empty_like(logits));
  if (logits.numel() == 0) return grad;
  const Inputs in(logits, target, partner_labels, weight, target_smoothing, label_smoothing);
  const Tensor saved = torch::stable::contiguous(stats);
  // empty_like keeps the strides of dense logits; rows are written with adjacent columns.
  const bool adjacent = in.k == 1 || grad.stride(1) == 1;
  Tensor rows = adjacent ? grad : torch::stable::contiguous(grad);
  dispatch(logits.scalar_type(), target.scalar_type(), [&](auto types) {
    backward_rows(types, in, grad_loss, saved, reduction, data_of(types, rows), rows.stride(0));
  });
  if (!adjacent) torch::stable::copy_(grad, rows);
  return grad;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CPU, m) {
  m.impl("soft_target_cross_entropy", TORCH_BOX(&fused_mixup::soft_target_cross_entropy));
  m.impl("soft_target_cross_entropy_backward",
         TORCH_BOX(&fused_mixup::soft_target_cross_entropy_backward));
}
