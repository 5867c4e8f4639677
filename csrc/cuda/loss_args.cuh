// What the kernels of the losses share: arguments, and what a sparse target means for a row.
//
// Logits [B, K, d1…] are seen as [B, K, S] with three strides. A row is a position (b, s) and has
// the number b S + s. A term of a sparse target whose label is ignore_index drops. A row is ignored
// (loss and gradient are 0, and it does not count) where a term drops and no term of weight
// remains. It is poisoned (NaN) where a label is neither ignore_index nor in [0, K).
//
// With on = (1-ls)(1-ts), ls the loss's smoothing, ts the target's, w_k the weights that remain:
//   t_c = Σ_k A_k [y_k == c] + C,   A_k = on w_k,   C = ((1-ls) ts Σ w_k + ls) / K
// A dense target becomes t_c = (1-ls) target_c + ls/K. Class weights multiply t_c.
//
// A focal loss has two labels and no smoothing (C = 0). Its loss is Σ_k A_k f(p_k) with p_k the
// probability of label k, and its gradient T p - A_k h(p_k) with T = Σ_k A_k h(p_k) (FocalTerm). A
// z-loss adds z (m + l)² to the loss, and 2 z (m + l) to T.
#pragma once

#include "../common/layout.h"
#include "label_weights.cuh"
#include "row_vectors.cuh"

namespace fused_mixup {

// Sums over a part of the rows. Every block writes one, and they are added in a fixed order.
struct alignas(16) LossSum {
  double loss, count;
};

// What is made of the sum over all rows.
struct Total {
  bool wide;           // whether loss and count are float64
  double divisor;      // divides the loss; 0 for the count
  void *loss, *count;  // either may be null
};

// The arguments of both losses. A pointer that may be null is null where its tensor is not given,
// or not asked for.
struct CallArgs {
  DType dtype;  // type of logits; "arithmetic type" is float64 for float64, else float32
  const void* logits;
  Strides logits_at;
  int64_t batch, classes, positions;
  // Dense target [B, K, S], or null.
  const void* target;
  DType target_dtype;  // that of logits, or kFloat for half logits
  Strides target_at;
  // Sparse target: int64 [B, S].
  const int64_t* labels;
  const int64_t* partner_labels;
  const float* weight;  // device [B, 2], or null: weight_row serves all
  float weight_row[2];
  const void* class_weight;  // arithmetic type [K], or null
  double target_smoothing;
  int reduction;
  bool forward;       // whether a loss or ranks are asked for
  void* row_losses;   // arithmetic type [B, S], or null
  LossSum* partials;  // scratch of loss_scratch() sums, or null
  unsigned* ticket;   // tells the last block that it adds the partials; null: another kernel does
  void* loss;         // arithmetic type [], or null
  void* grad;         // [B, K, S], or null
  Strides grad_at;
  const void* grad_loss;  // arithmetic type, or null for 1
  Strides grad_loss_at;   // all 0 where one number serves all
  cudaStream_t stream;

  FUSED_MIXUP_HOST_DEVICE int64_t rows() const { return batch * positions; }
  // Where one upstream gradient serves all rows.
  FUSED_MIXUP_HOST_DEVICE bool one_upstream() const {
    return grad_loss_at.batch == 0 && grad_loss_at.positions == 0 && grad_loss_at.classes == 0;
  }
};

constexpr int kChooseCluster = -1;

struct LossArgs : CallArgs {
  int64_t ignore_index;
  double label_smoothing, focal_gamma, z_loss;
  // Arithmetic type [3, B, S]: max z, log Σ exp(z - max z), T (loss_sums.cuh). Read unless forward.
  void* stats;
  int32_t* ranks;   // [rank_planes, B, S], or null
  int rank_planes;  // 2, or 1 where partner_labels have none
  void* count;      // arithmetic type []: how many rows count
  // Blocks of a cluster for loss and gradient of a long row: 0 for none, or kChooseCluster.
  int cluster_blocks;
  int64_t shared_limit;  // bytes of dynamic shared memory that a block of a cluster may have

  bool can_ignore() const { return target == nullptr && ignore_index != INT64_MIN; }
};

template <typename A>
struct LossParams {
  LossArgs a;
  A on, keep, per_class_w, per_class;  // on; 1-ls; (1-ls) ts / K; ls / K
  A total;                             // ls
  A gamma, z_loss;
  Total result;
  A divisor;            // of the mean; 0 for the count on the device
  bool counts;          // whether each block counts the rows, as no kernel before has done it
  bool smooth;          // whether C may differ from 0
  int threads_per_row;  // for rows: 32, or blockDim.x
  int slices;           // for columns: threads that share a vector of positions
};

template <typename A>
LossParams<A> loss_params(const LossArgs& a) {
  LossParams<A> p = {};
  const double ls = a.label_smoothing, ts = a.target_smoothing;
  const double classes = static_cast<double>(a.classes);
  p.a = a;
  p.on = static_cast<A>((1.0 - ls) * (1.0 - ts));
  p.keep = static_cast<A>(1.0 - ls);
  p.per_class_w = static_cast<A>((1.0 - ls) * ts / classes);
  p.per_class = static_cast<A>(ls / classes);
  p.total = static_cast<A>(ls);
  p.gamma = static_cast<A>(a.focal_gamma);
  p.z_loss = static_cast<A>(a.z_loss);
  p.divisor = a.can_ignore() ? A(0) : static_cast<A>(a.rows());
  p.smooth = ls != 0.0 || ts != 0.0;
  return p;
}

// The labels of a row and their weights, as they are in memory. A thread that loads them before the
// logits, and makes a SparseRow after, does not wait for them.
struct RowLabels {
  int64_t own, other;
  float own_weight, other_weight;

  RowLabels() = default;
  __device__ __forceinline__ RowLabels(const CallArgs& a, int64_t b, int64_t row)
      : own(a.labels[row]), other(a.partner_labels[row]) {
    const LabelWeights<float> weights(a.weight, a.weight_row, b);
    own_weight = weights.own;
    other_weight = weights.other;
  }
};

struct NoLabels {
  __device__ __forceinline__ NoLabels(const CallArgs&, int64_t, int64_t) {}
};

template <typename A>
struct SparseRow {
  int32_t label, partner_label;  // -1 for no class, or an ignored label
  A a0, a1, c;                   // weigh_labels() multiplies a0 and a1 by their class weights
  A sum;                         // Σ t without class weights
  bool valid, ignored;

  __device__ __forceinline__ SparseRow()
      : label(-1), partner_label(-1), a0(0), a1(0), c(0), sum(0), valid(true), ignored(false) {}

  __device__ __forceinline__ SparseRow(const LossParams<A>& p, const RowLabels& labels) {
    const int64_t y0 = labels.own, y1 = labels.other;
    const bool own = y0 != p.a.ignore_index, other = y1 != p.a.ignore_index;
    const A w0 = static_cast<A>(labels.own_weight), w1 = static_cast<A>(labels.other_weight);
    const bool in0 = y0 >= 0 && y0 < p.a.classes, in1 = y1 >= 0 && y1 < p.a.classes;
    valid = (in0 || !own) && (in1 || !other);
    ignored = valid && !(own && other) && (!own || w0 == A(0)) && (!other || w1 == A(0));
    const A both = (own ? w0 : A(0)) + (other ? w1 : A(0));
    a0 = own ? p.on * w0 : A(0);
    a1 = other ? p.on * w1 : A(0);
    c = ignored ? A(0) : p.per_class_w * both + p.per_class;
    sum = ignored ? A(0) : p.keep * both + p.total;
    label = own && in0 ? static_cast<int32_t>(y0) : -1;
    partner_label = other && in1 ? static_cast<int32_t>(y1) : -1;
  }

  // Multiplies the coefficients of the labels by their class weights, in a valid row.
  __device__ __forceinline__ void weigh_labels(const A* class_weight) {
    if (class_weight == nullptr) return;
    if (a0 != A(0)) a0 *= class_weight[label];
    if (a1 != A(0)) a1 *= class_weight[partner_label];
  }
};

// The focal term of a class of probability p: its loss f = (1-p)^γ (-log p), and h = -p f'(p); see
// fused_mixup/reference/focal.py.
template <typename A>
struct FocalTerm {
  A loss, slope;

  __device__ __forceinline__ FocalTerm(A gamma, A log_p) {
    const A p = exp(log_p), q = -expm1(log_p);
    const A factor = q == A(0) ? A(0) : pow(q, gamma);
    // -p log p / q runs from 0, where p underflows and log p may be -inf, to 1.
    const A ratio = p == A(0) ? A(0) : q == A(0) ? A(1) : -p * log_p / q;
    loss = q == A(0) ? A(0) : -log_p * factor;
    slope = factor * (A(1) + gamma * ratio);
  }
};

// What a mean is divided by.
template <typename A>
__device__ __forceinline__ A divisor_of(const LossParams<A>& p) {
  return p.divisor != A(0) ? p.divisor : *static_cast<const A*>(p.a.count);
}

// The upstream gradient of a row's loss, divided by the divisor of the mean.
template <typename A>
__device__ __forceinline__ A scale_of_row(const LossParams<A>& p, int64_t b, int64_t s, A divisor) {
  const A* given = static_cast<const A*>(p.a.grad_loss);
  A scale = A(1);
  if (given != nullptr) {
    scale = given[b * p.a.grad_loss_at.batch + s * p.a.grad_loss_at.positions];
  }
  return p.a.reduction != kMean ? scale : scale / divisor;
}

// Where row (b, s) starts.
template <typename T>
__device__ __forceinline__ const T* start(const void* base, const Strides& at, int64_t b,
                                          int64_t s) {
  return static_cast<const T*>(base) + b * at.batch + s * at.positions;
}
template <typename T>
__device__ __forceinline__ const void* dense_start(const CallArgs& a, int64_t b, int64_t s) {
  if (a.target_dtype == a.dtype) return start<T>(a.target, a.target_at, b, s);
  return start<float>(a.target, a.target_at, b, s);
}

// An element of a dense target, unsmoothed, at an offset from its row's start.
template <typename T, typename A>
__device__ __forceinline__ A dense_value(const CallArgs& a, const void* row, int64_t at) {
  return a.target_dtype == a.dtype ? static_cast<A>(Number<T>::up(static_cast<const T*>(row)[at]))
                                   : static_cast<A>(static_cast<const float*>(row)[at]);
}

// V adjacent elements of a dense target, aligned: 16 bytes, or 32 where the target is wider than
// the logits.
template <typename T, int V, typename A>
__device__ __forceinline__ Elements<A, V> dense_values(const CallArgs& a, const void* row,
                                                       int64_t at) {
  Elements<A, V> out;
  if (a.target_dtype == a.dtype) {
    const Elements<T, V> t = load_any<V>(static_cast<const T*>(row) + at, true);
#pragma unroll
    for (int e = 0; e < V; ++e) out.e[e] = Number<T>::up(t.e[e]);
  } else {
    const Elements<float, V> t = load_any<V>(static_cast<const float*>(row) + at, true);
#pragma unroll
    for (int e = 0; e < V; ++e) out.e[e] = static_cast<A>(t.e[e]);
  }
  return out;
}

// The vectors of a row of logits and of its dense target. There are none unless the classes of the
// other tensors that are read and written are adjacent too (`adjacent`), and the target is aligned
// like the logits.
template <typename T>
__device__ __forceinline__ RowVectors row_vectors(const CallArgs& a, const T* z, const void* target,
                                                  int32_t classes, bool adjacent) {
  const RowVectors vectors = row_vectors(z, classes, adjacent && a.logits_at.classes == 1);
  if (target == nullptr) return vectors;
  const bool aligned = a.target_dtype == a.dtype
                           ? row_aligned(static_cast<const T*>(target) + vectors.head)
                           : row_aligned(static_cast<const float*>(target) + vectors.head);
  return aligned && a.target_at.classes == 1 ? vectors : row_vectors(z, classes, false);
}

// An element of a dense target after label smoothing, times its class weight. A weight or a target
// of 0 drops the term.
template <typename A>
__device__ __forceinline__ A smoothed(const LossParams<A>& p, A t, A class_weight) {
  if (p.total != A(0)) t = p.keep * t + p.per_class;
  return t == A(0) ? A(0) : term(class_weight, t);
}

// exp for arguments <= 0. Half inputs need fewer bits than fast_exp() gives; kernels for float32
// have time for expf().
template <typename T>
__device__ __forceinline__ float exp_of(float x) {
  if constexpr (sizeof(T) == 2) return fast_exp(x);
  return expf(x);
}
template <typename T>
__device__ __forceinline__ double exp_of(double x) {
  return exp(x);
}

// The larger of two, in one instruction. A NaN gives way to the other; the sum of a row that has
// one is NaN in any case.
__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }
__device__ __forceinline__ double larger(double a, double b) { return fmax(a, b); }

enum class LossPart { kLoss, kGradient, kBoth };     // what a kernel of rows computes
enum class TargetKind { kSparse, kRanked, kDense };  // kRanked: sparse, and the labels' ranks

}  // namespace fused_mixup
