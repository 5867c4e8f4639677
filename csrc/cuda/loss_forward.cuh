// Forward of the soft-target cross-entropy: one sweep over the logits.
//
//   m = max z,  l = log Σ exp(z - m),  loss = l Σ t - Σ t (z - m),  stats = (m, l, Σ t)
//
// Fused: the target's construction, log-softmax, product, sum. Read per element: the logit once
// (and the target once where it is dense). Written: four numbers per row. The sums are kept
// relative to the running maximum and moved when it rises, so one sweep is enough.
#pragma once

#include "loss_rows.cuh"

namespace fused_mixup {

// Sums over part of a row, relative to its maximum m. While m is -inf every exp(z - m) counts 0.
template <typename A, TargetKind kKind>
struct Partial {
  A m, e;    // max, Σ exp(z - m)
  A d;       // smooth: Σ (z - m); dense: Σ t (z - m), terms with t = 0 dropped
  A weight;  // smooth: number of elements; dense: Σ t

  static constexpr bool kShifted = kKind != TargetKind::kSparse;

  __device__ __forceinline__ Partial() : m(-INFINITY), e(0), d(0), weight(0) {}

  // Raises the maximum. From -inf there is nothing to move, and inf - inf would be NaN.
  template <typename T>
  __device__ __forceinline__ void raise(A to) {
    if (!(to > m)) return;
    if (m != A(-INFINITY)) {
      const A shift = m - to;
      e *= exp_of<T>(shift);
      if constexpr (kShifted) {
        if (weight != A(0)) d += weight * shift;
      }
    }
    m = to;
  }

  // After raise(): m is no less than any of the values to take, or all so far are -inf or NaN.
  __device__ __forceinline__ bool nothing_yet() const { return m == A(-INFINITY); }

  // kFirst: nothing_yet() may hold, and -inf - -inf would be NaN.
  template <typename T, bool kFirst>
  __device__ __forceinline__ void take(A z, A t) {
    const bool first = kFirst && nothing_yet();
    const A shifted = first ? z : z - m;
    e += first && z == m ? A(0) : exp_of<T>(shifted);
    if constexpr (kKind == TargetKind::kSparseSmooth) {
      d += shifted;
      weight += A(1);
    }
    if constexpr (kKind == TargetKind::kDense) {
      d += t == A(0) ? A(0) : t * shifted;
      weight += t;
    }
  }

  template <typename T>
  __device__ __forceinline__ void merge(Partial other) {
    const A top = m > other.m ? m : other.m;
    raise<T>(top);
    other.raise<T>(top);
    e += other.e;
    d += other.d;
    weight += other.weight;
  }

  // All lanes of a warp call this together; every lane ends with the warp's sums, as the shifts
  // by xor pair each lane with one it has not met.
  template <typename T>
  __device__ __forceinline__ void merge_warp() {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) {
      Partial other;
      other.m = __shfl_xor_sync(0xffffffffu, m, lane);
      other.e = __shfl_xor_sync(0xffffffffu, e, lane);
      if constexpr (kShifted) {
        other.d = __shfl_xor_sync(0xffffffffu, d, lane);
        other.weight = __shfl_xor_sync(0xffffffffu, weight, lane);
      }
      merge<T>(other);
    }
  }
};

template <typename T, typename U, TargetKind kKind>
__global__ void __launch_bounds__(kLossThreads)
    loss_kernel(const __grid_constant__ LossParams<typename Number<T>::Acc> p) {
  using A = typename Number<T>::Acc;
  using P = Partial<A, kKind>;
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  constexpr bool kDense = kKind == TargetKind::kDense;
  auto& shared = block_shared<A[4][32]>();
  const bool warp_row = p.threads_per_row == 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t b = warp_row ? static_cast<int64_t>(blockIdx.x) * kWarpRows + warp : blockIdx.x;
  // A warp leaves whole, and in this form no barrier follows.
  if (b >= p.a.batch) return;
  const int tid = warp_row ? lane : static_cast<int>(threadIdx.x);
  const int threads = p.threads_per_row;
  const T* z = static_cast<const T*>(p.a.logits) + b * p.a.row_stride;
  const U* t = kDense ? static_cast<const U*>(p.a.target) + b * p.a.target_row_stride : nullptr;
  const RowCut cut = cut_row(z, p.a.classes, p.a.column_stride);
  const bool t_near = p.a.target_column_stride == 1;
  const bool t_aligned = kDense && t_near && row_aligned(t + cut.head);

  // 1. This thread's share.
  P sums;
  const auto target_of = [&](U raw) {
    const A value = static_cast<A>(Number<U>::up(raw));
    return p.total == A(0) ? value : p.keep * value + p.per_class;
  };
  const int64_t singles = cut.head + p.a.classes - cut.tail;
  for (int64_t s = tid; s < singles; s += threads) {
    const int64_t k = single_element(cut, s);
    const A value = Number<T>::up(z[k * p.a.column_stride]);
    sums.template raise<T>(value);
    sums.template take<T, true>(value, kDense ? target_of(t[k * p.a.target_column_stride]) : A(0));
  }
  constexpr int L = kDense || sizeof(T) == 8 ? kLossUnroll / 2 : kLossUnroll;
  for (int64_t first = tid; first < cut.vectors; first += L * threads) {
    Vec<T, V> part[L];
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int64_t v = first + u * threads;
      if (v < cut.vectors) part[u] = load<V>(z + cut.head + v * V);
    }
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int64_t v = first + u * threads;
      if (v >= cut.vectors) continue;
      const Elements<T, V> values = elements(part[u]);
      Elements<U, V> target;
      if constexpr (kDense) {
        const int64_t k = cut.head + v * V;
        if (t_near) {
          target = load_any<V>(t + k, t_aligned);
        } else {
#pragma unroll
          for (int e = 0; e < V; ++e) target.e[e] = t[(k + e) * p.a.target_column_stride];
        }
      }
      A top = Number<T>::up(values.e[0]);
#pragma unroll
      for (int e = 1; e < V; ++e) {
        const A value = Number<T>::up(values.e[e]);
        top = value > top ? value : top;
      }
      sums.template raise<T>(top);
      // (double has its exp inlined once: twice would not fit in registers.)
      if (sizeof(T) == 8 || sums.nothing_yet()) {
#pragma unroll
        for (int e = 0; e < V; ++e) {
          sums.template take<T, true>(Number<T>::up(values.e[e]),
                                      kDense ? target_of(target.e[e]) : A(0));
        }
      } else {
#pragma unroll
        for (int e = 0; e < V; ++e) {
          sums.template take<T, false>(Number<T>::up(values.e[e]),
                                       kDense ? target_of(target.e[e]) : A(0));
        }
      }
    }
  }

  // 2. The row's sums: within warps, then over the block's warps.
  sums.template merge_warp<T>();
  if (!warp_row) {
    if (lane == 0) {
      shared[0][warp] = sums.m;
      shared[1][warp] = sums.e;
      shared[2][warp] = sums.d;
      shared[3][warp] = sums.weight;
    }
    __syncthreads();  // the first warp reads what lane 0 of every warp wrote
    if (warp != 0) return;
    sums = P();
    if (lane < threads / 32) {
      sums.m = shared[0][lane];
      sums.e = shared[1][lane];
      sums.d = shared[2][lane];
      sums.weight = shared[3][lane];
    }
    sums.template merge_warp<T>();
  }
  if (tid != 0) return;

  // 3. The loss. Terms with coefficient zero are dropped, so that -inf there does not count.
  const A m = sums.m;
  const A l = m == A(-INFINITY) ? static_cast<A>(NAN) : static_cast<A>(log(sums.e));
  A loss, total;
  if constexpr (kDense) {
    total = sums.weight;
    loss = l * total - sums.d;
  } else {
    const SparseRow<A> row(p, b);
    total = row.sum;
    if (row.valid) {
      A dot = A(0);
      if (row.a0 != A(0)) dot += row.a0 * (Number<T>::up(z[row.label * p.a.column_stride]) - m);
      if (row.a1 != A(0)) {
        dot += row.a1 * (Number<T>::up(z[row.partner_label * p.a.column_stride]) - m);
      }
      if constexpr (kKind == TargetKind::kSparseSmooth) {
        if (row.c != A(0)) dot += row.c * sums.d;
      }
      loss = l * total - dot;
    } else {
      loss = total = static_cast<A>(NAN);  // poisons the gradient of the row too
    }
  }
  static_cast<A*>(p.a.rows)[b] = loss;
  A* stats = static_cast<A*>(p.a.stats) + 3 * b;
  stats[0] = m;
  stats[1] = l;
  stats[2] = total;
}

// One block sums the rows in a fixed order: the same bits at every run. An empty batch has sum 0
// and mean NaN, as in PyTorch.
constexpr int kReduceThreads = 1024;

template <typename A>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(const A* rows, int64_t batch, bool mean, A* loss) {
  auto& shared = block_shared<double[32]>();
  double sum = 0.0;
  for (int64_t b = threadIdx.x; b < batch; b += blockDim.x) sum += static_cast<double>(rows[b]);
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
  __syncthreads();  // thread 0 reads what every warp wrote
  if (threadIdx.x != 0) return;
  sum = 0.0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += shared[w];
  *loss = static_cast<A>(mean ? sum / static_cast<double>(batch) : sum);
}

template <typename T, typename U>
cudaError_t loss_typed(const LossArgs& a) {
  using A = typename Number<T>::Acc;
  if (a.batch > 0) {
    const int threads = threads_per_row(a.classes, sizeof(T));
    const LossParams<A> p = loss_params<A>(a, threads);
    const int64_t blocks = threads == 32 ? (a.batch + kWarpRows - 1) / kWarpRows : a.batch;
    const dim3 grid(static_cast<unsigned>(blocks));
    const dim3 block(threads == 32 ? 32 * kWarpRows : threads);
    cudaError_t error;
    const bool smooth = a.label_smoothing != 0.0 || a.target_smoothing != 0.0;
    if (a.target != nullptr) {
      error = launch(loss_kernel<T, U, TargetKind::kDense>, grid, block, 0, a.stream, p);
    } else if constexpr (sizeof(T) != sizeof(U)) {
      return cudaErrorInvalidValue;  // a sparse target has no type of its own
    } else if (smooth) {
      error = launch(loss_kernel<T, U, TargetKind::kSparseSmooth>, grid, block, 0, a.stream, p);
    } else {
      error = launch(loss_kernel<T, U, TargetKind::kSparse>, grid, block, 0, a.stream, p);
    }
    if (error != cudaSuccess) return error;
  }
  if (a.reduction == kNone) return cudaSuccess;
  return launch(reduce_kernel<A>, dim3(1), dim3(kReduceThreads), 0, a.stream,
                static_cast<const A*>(a.rows), a.batch, a.reduction == kMean,
                static_cast<A*>(a.loss));
}

}  // namespace fused_mixup
