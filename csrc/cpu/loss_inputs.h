// What one call of a cross-entropy op works on.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.h"
#include "loss_places.h"
#include "loss_target.h"

namespace fused_mixup {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Type of the logits, type of a dense target.
template <typename L, typename T>
struct Types {
  using Logit = L;
  using Target = T;
  using A = acc_t<L>;
};

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

// [B, d1, …] of logits [B, K, d1, …]
inline std::vector<int64_t> shape_of_rows(const Tensor& logits) {
  const auto sizes = logits.sizes();
  std::vector<int64_t> shape(sizes.begin(), sizes.end());
  shape.erase(shape.begin() + 1);
  return shape;
}

inline double term(double weight, double value) { return weight == 0 ? 0 : weight * value; }

// A sum of terms made in parallel. Each block of work adds its own, in its order, and the blocks
// are added in theirs: one order of summation whatever the number of threads.
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

struct LossArguments {
  const Tensor& logits;
  const Tensor& target;
  const OptionalTensor& partner_labels;
  const OptionalTensor& weight;
  const OptionalTensor& class_weight;
  int64_t ignore_index;
  double target_smoothing, label_smoothing;
  int64_t reduction;

  void check() const {
    check_loss(logits, target, partner_labels, weight, class_weight, reduction);
  }
};

struct LossInputs {
  Places places;
  std::optional<SparseTarget> sparse;
  double label_smoothing;
  int64_t reduction;
  OptionalTensor class_weight;
  const void* class_weight_data = nullptr;
  double class_weight_sum;  // K where there is none

  // into: as in Places.
  LossInputs(const LossArguments& a, const Tensor* into)
      : places(a.logits, a.partner_labels ? nullptr : &a.target, into),
        label_smoothing(a.label_smoothing),
        reduction(a.reduction),
        class_weight(as_contiguous(a.class_weight)),
        class_weight_sum(double(places.k)) {
    if (a.partner_labels) {
      sparse.emplace(a.target, *a.partner_labels, *a.weight, places.k, a.ignore_index,
                     a.target_smoothing, a.label_smoothing);
    }
    if (!class_weight) return;
    class_weight_data = class_weight->data_ptr();
    class_weight_sum = 0;
    const bool wide = a.logits.scalar_type() == ScalarType::Double;
    for (int64_t c = 0; c < places.k; ++c) {
      class_weight_sum += wide ? class_weights<double>()[c] : class_weights<float>()[c];
    }
  }

  template <typename A>
  const A* class_weights() const {  // [K] or null
    return static_cast<const A*>(class_weight_data);
  }
  bool wants_shifted() const { return sparse ? sparse->smooths() : label_smoothing != 0; }

  // Rows that count: all but the ignored.
  int64_t count() const {
    if (!sparse || !sparse->may_ignore()) return places.rows();
    constexpr int64_t kBlock = 8192;
    const int64_t rows = places.rows(), blocks = (rows + kBlock - 1) / kBlock;
    BlockSums ignored(blocks);
    torch::stable::parallel_for(0, blocks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t last = std::min(rows, (block + 1) * kBlock);
        for (int64_t r = block * kBlock; r < last;) {
          const SampleTerms terms = sparse->sample(r / places.inner);
          const int64_t stop = std::min(last, (r / places.inner + 1) * places.inner);
          for (; r < stop; ++r) ignored[block] += sparse->row(terms, r).ignored;
        }
      }
    });
    return rows - int64_t(ignored.total());
  }
};

// Where a forward leaves what it finds; each may be null but the loss.
template <typename A>
struct LossOutputs {
  A* loss;         // of every row where the reduction is none, else a scalar
  A* stats;        // [3, B, S]
  int32_t* ranks;  // [2, B, S]
};

}  // namespace fused_mixup
