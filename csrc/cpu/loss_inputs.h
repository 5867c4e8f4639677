// What one call of a cross-entropy op works on.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "dispatch.h"
#include "kernels.h"
#include "loss_target.h"
#include "loss_tensors.h"

namespace fused_mixup {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// The shape [B, d1, …] for logits [B, K, d1, …].
inline std::vector<int64_t> shape_of_rows(const Tensor& logits) {
  const auto sizes = logits.sizes();
  std::vector<int64_t> shape(sizes.begin(), sizes.end());
  shape.erase(shape.begin() + 1);
  return shape;
}

// 0 where either is 0, as term_of(): no 0·inf.
inline double term(double weight, double value) {
  return weight == 0 || value == 0 ? 0 : weight * value;
}

// A sum whose terms are computed in parallel. Each block of work adds its own terms in order, and
// the blocks are added in order: the order of summation does not depend on the number of threads.
class BlockSums {
 public:
  explicit BlockSums(int64_t blocks) : sums_(blocks) {}
  double& operator[](int64_t block) { return sums_[block]; }
  double total() const {
    double sum = 0;
    for (double s : sums_) sum += s;
    return sum;
  }

 private:
  std::vector<double> sums_;
};

// The logits, and the fields of CrossEntropyArguments in fused_mixup/schemas.py.
struct CrossEntropyArguments {
  const Tensor& logits;                  // [B, K, …]
  const Tensor& target;                  // [B, K, …], or int64 [B, …]
  const OptionalTensor& partner_labels;  // int64 [B, …]
  const OptionalTensor& weight;          // float32 [B, 2]
  const OptionalTensor& class_weight;    // [K]
  int64_t ignore_index;
  double target_smoothing, label_smoothing, focal_gamma, z_loss;
  int64_t reduction;

  void check() const {
    check_loss(logits, target, partner_labels, weight, class_weight, reduction);
    check_focal(focal_gamma, partner_labels.has_value(), target_smoothing, label_smoothing, z_loss);
  }
};

// A focal term of a class of probability p: its loss f = (1-p)^γ (-log p), and h = -p f'(p)
// (fused_mixup/reference/focal.py).
struct FocalTerm {
  double loss, slope;

  // Not inline, as most losses have none: the loops around it stay as short as they are.
  __attribute__((noinline)) FocalTerm(double gamma, double log_p) {
    const double p = std::exp(log_p), q = -std::expm1(log_p);
    const double factor = q == 0 ? 0 : std::pow(q, gamma);
    // -p log p / q runs from 0, where p underflows and log p may be -inf, to 1.
    const double ratio = p == 0 ? 0 : q == 0 ? 1 : -p * log_p / q;
    loss = q == 0 ? 0 : -log_p * factor;
    slope = factor * (1 + gamma * ratio);
  }
};

struct LossInputs {
  LossTensors tensors;
  std::optional<SparseTarget> sparse;
  double label_smoothing, focal_gamma, z_loss;
  int64_t reduction;
  OptionalTensor class_weight;
  const void* class_weight_data = nullptr;
  double class_weight_sum;  // K where there is none

  // into: see LossTensors.
  LossInputs(const CrossEntropyArguments& a, const Tensor* into)
      : tensors(a.logits, a.partner_labels ? nullptr : &a.target, into),
        label_smoothing(a.label_smoothing),
        focal_gamma(a.focal_gamma),
        z_loss(a.z_loss),
        reduction(a.reduction),
        class_weight(as_contiguous(a.class_weight)),
        class_weight_sum(double(tensors.k)) {
    if (a.partner_labels) {
      sparse.emplace(a.target, *a.partner_labels, *a.weight, tensors.k, a.ignore_index,
                     a.target_smoothing, a.label_smoothing);
    }
    if (!class_weight) return;
    class_weight_data = class_weight->data_ptr();
    class_weight_sum = 0;
    const bool wide = a.logits.scalar_type() == ScalarType::Double;
    for (int64_t c = 0; c < tensors.k; ++c) {
      class_weight_sum += wide ? class_weights<double>()[c] : class_weights<float>()[c];
    }
  }

  template <typename A>
  const A* class_weights() const {  // [K] or null
    return static_cast<const A*>(class_weight_data);
  }
  bool has_more_terms() const { return focal_gamma != 0 || z_loss != 0; }

  // Adds the z-loss of a row with log Σ exp(z) = log_z, and what it adds to the factor of p.
  void add_z_loss(double log_z, double& loss, double& total) const {
    loss += z_loss * log_z * log_z;
    total += 2 * z_loss * log_z;
  }
  bool wants_shifted() const { return sparse ? sparse->smooths() : label_smoothing != 0; }

  // How many rows count: all but the ignored ones.
  int64_t count() const {
    if (!sparse || !sparse->may_ignore()) return tensors.rows();
    constexpr int64_t kBlock = 8192;
    const int64_t rows = tensors.rows(), blocks = (rows + kBlock - 1) / kBlock;
    BlockSums ignored(blocks);
    parallel_for(0, blocks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t last = std::min(rows, (block + 1) * kBlock);
        for (int64_t r = block * kBlock; r < last;) {
          const SampleTerms terms = sparse->sample(r / tensors.inner);
          const int64_t stop = std::min(last, (r / tensors.inner + 1) * tensors.inner);
          for (; r < stop; ++r) ignored[block] += sparse->row(terms, r).ignored;
        }
      }
    });
    return rows - int64_t(ignored.total());
  }
};

// Where a forward writes its results.
template <typename A>
struct LossOutputs {
  A* loss;         // [B, S] where the reduction is none, else []
  A* stats;        // [3, B, S] or null
  int32_t* ranks;  // [2, B, S] or null
};

}  // namespace fused_mixup
