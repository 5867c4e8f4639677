// What the two passes of the soft-target cross-entropy share: arguments, coefficients of a row,
// and how the elements of a row are dealt to threads.
//
// With on = (1-ls)(1-ts), ls the loss's smoothing, ts the target's, a sparse row's target is
//   t_k = Σ_s A_s [y_s == k] + C,   A_s = on w_s,   C = ((1-ls) ts (w_0 + w_1) + ls) / K
// and its sum S = (1-ls)(w_0 + w_1) + ls. A dense target becomes t'_k = (1-ls) t_k + ls/K.
#pragma once

#include "vec.cuh"

namespace fused_mixup {

enum Reduction : int { kMean = 0, kSum = 1, kNone = 2 };

struct LossArgs {
  DType dtype;         // of logits; loss, stats and grad_loss are float32 (double for double)
  const void* logits;  // [B, K], strides below in elements
  int64_t batch, classes;
  int64_t row_stride, column_stride;
  // Dense target [B, K], or null.
  const void* target;
  DType target_dtype;  // of logits, or kFloat
  int64_t target_row_stride, target_column_stride;
  // Sparse target: int64 [B] each.
  const int64_t* labels;
  const int64_t* partner_labels;
  const float* weight;  // device [B, 2], or null: weight_row serves all
  float weight_row[2];
  double target_smoothing, label_smoothing;
  int reduction;
  void* rows;             // forward: [B] losses (scratch unless kNone)
  void* loss;             // forward: [] where reduced
  void* stats;            // [B, 3], (max z, log Σ exp(z - max z), Σ t)
  const void* grad_loss;  // backward: [] or, for kNone, [B]
  int64_t grad_loss_stride;
  void* grad;  // backward: [B, K]
  int64_t grad_row_stride, grad_column_stride;
  cudaStream_t stream;
};

template <typename A>
struct LossParams {
  LossArgs a;
  A on, keep, per_class_w, per_class;  // on; 1-ls; (1-ls) ts / K; ls / K
  A total;                             // ls
  int threads_per_row;                 // 32, or blockDim.x
};

constexpr int kLossUnroll = 4;  // 16-byte loads in flight per thread

// exp for arguments <= 0. Half inputs have bits to spare, and float32 ones have time to spare.
template <typename T>
__device__ __forceinline__ float exp_of(float x) {
  if constexpr (sizeof(T) == 2) return fast_exp(x);
  return expf(x);
}
template <typename T>
__device__ __forceinline__ double exp_of(double x) {
  return exp(x);
}

template <typename A>
struct SparseRow {
  int64_t label, partner_label;
  A a0, a1, c, sum;
  bool valid;

  __device__ __forceinline__ SparseRow(const LossParams<A>& p, int64_t b) {
    label = p.a.labels[b];
    partner_label = p.a.partner_labels[b];
    const A w0 = static_cast<A>(p.a.weight != nullptr ? p.a.weight[2 * b] : p.a.weight_row[0]);
    const A w1 = static_cast<A>(p.a.weight != nullptr ? p.a.weight[2 * b + 1] : p.a.weight_row[1]);
    a0 = p.on * w0;
    a1 = p.on * w1;
    c = p.per_class_w * (w0 + w1) + p.per_class;
    sum = p.keep * (w0 + w1) + p.total;
    valid = label >= 0 && label < p.a.classes && partner_label >= 0 && partner_label < p.a.classes;
  }
};

// How a row is cut: `head` elements one by one until its address is a multiple of 16, then
// `vectors` of V, then the rest one by one. A row whose elements are no neighbours is all head.
struct RowCut {
  int64_t head, vectors, tail;  // tail: the first element after the vectors
};

template <typename T>
__device__ __forceinline__ RowCut cut_row(const T* row, int64_t classes, int64_t column_stride) {
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  if (column_stride != 1) return {classes, 0, classes};
  const int64_t off = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
  int64_t head = off == 0 ? 0 : V - off;
  if (head > classes) head = classes;
  const int64_t vectors = (classes - head) / V;
  return {head, vectors, head + vectors * V};
}

// The k-th single element of a row: head first, then tail.
__device__ __forceinline__ int64_t single_element(const RowCut& cut, int64_t k) {
  return k < cut.head ? k : cut.tail + (k - cut.head);
}

// V neighbours at p: by 16-byte accesses where it is aligned to them, else one by one.
template <int V, typename T>
__device__ __forceinline__ Elements<T, V> load_any(const T* p, bool aligned) {
  constexpr int W = 16 / static_cast<int>(sizeof(T)) < V ? 16 / static_cast<int>(sizeof(T)) : V;
  Elements<T, V> out;
  if (aligned) {
#pragma unroll
    for (int g = 0; g < V; g += W) {
      const Elements<T, W> part = elements(load<W>(p + g));
#pragma unroll
      for (int e = 0; e < W; ++e) out.e[g + e] = part.e[e];
    }
  } else {
#pragma unroll
    for (int e = 0; e < V; ++e) out.e[e] = p[e];
  }
  return out;
}

template <typename T>
__device__ __forceinline__ bool row_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

constexpr int kLossThreads = 512;  // at most, per block: leaves up to 128 registers per thread
constexpr int kWarpRows = 8;       // rows per block where a warp takes a row

// A warp for a row of up to 8 vectors per lane; for longer ones a block, of as many threads as
// keep about 8 vectors each.
inline int threads_per_row(int64_t classes, size_t element_size) {
  const int64_t vectors = classes * static_cast<int64_t>(element_size) / 16;
  if (vectors <= 256) return 32;
  int threads = 128;
  while (threads < kLossThreads && threads * 8 < vectors) threads *= 2;
  return threads;
}

template <typename A>
LossParams<A> loss_params(const LossArgs& a, int threads) {
  LossParams<A> p;
  const double ls = a.label_smoothing, ts = a.target_smoothing;
  const double classes = static_cast<double>(a.classes);
  p.a = a;
  p.on = static_cast<A>((1.0 - ls) * (1.0 - ts));
  p.keep = static_cast<A>(1.0 - ls);
  p.per_class_w = static_cast<A>((1.0 - ls) * ts / classes);
  p.per_class = static_cast<A>(ls / classes);
  p.total = static_cast<A>(ls);
  p.threads_per_row = threads;
  return p;
}

// Calls f with the types of the logits and of a dense target.
template <typename F>
cudaError_t with_loss_types(const LossArgs& a, F&& f) {
  const bool wide = a.target != nullptr && a.target_dtype != a.dtype;  // float32 target
  switch (a.dtype) {
    case kHalf:
      return wide ? f(__half(), float()) : f(__half(), __half());
    case kBFloat16:
      return wide ? f(__nv_bfloat16(), float()) : f(__nv_bfloat16(), __nv_bfloat16());
    case kFloat:
      return f(float(), float());
    case kDouble:
      return wide ? f(double(), float()) : f(double(), double());
    default:
      return cudaErrorInvalidValue;
  }
}

enum class TargetKind { kSparse, kSparseSmooth, kDense };

}  // namespace fused_mixup
