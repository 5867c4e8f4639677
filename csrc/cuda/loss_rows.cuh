// Soft-target cross-entropy of rows whose classes are adjacent: a warp or a block takes a row.
// Rows with classes elsewhere are served too, element by element. (Blocks that stay and go through
// many rows would save their starts, but what a loop over rows keeps does not fit 64 registers.)
//
// Fused: the target's construction, log-softmax, product, sum over rows; the labels' ranks; the
// number of rows that count, where there are few; the gradient. Device memory per element, N bytes
// of logits (a dense target comes on top, once per sweep):
//   loss               N: each logit is read once
//   gradient           2N: each logit is read and its gradient written once; the loss has left m,
//                      l, T
//   loss and gradient  2N: the second sweep reads a row that a multiprocessor has just read, from
//                      L1 or from L2. A multiprocessor works on one of the longest rows at a time:
//                      132 rows of 131072 half-precision logits are 35 MB.
#pragma once

#include <type_traits>

#include "loss_reduce.cuh"
#include "loss_sweep.cuh"

namespace fused_mixup {

template <typename A>
struct RowShared {
  A sums[4][32];
  int32_t ahead[2][32];
};

// Merges the sums of a row over the threads that share it; each of them ends with the row's sums.
template <typename T, TargetKind kKind, typename A>
__device__ __forceinline__ void merge_row(Partial<A>& sums, LabelRank<A>* rank, int threads,
                                          bool weighed) {
  sums.template merge_warp<T>(weighed);
  if constexpr (kKind == TargetKind::kRanked) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) {
      rank[0].ahead += __shfl_xor_sync(0xffffffffu, rank[0].ahead, lane);
      rank[1].ahead += __shfl_xor_sync(0xffffffffu, rank[1].ahead, lane);
    }
  }
  if (threads == 32) return;
  auto& shared = block_shared<RowShared<A>>();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) {
    shared.sums[0][warp] = sums.m;
    shared.sums[1][warp] = sums.e;
    shared.sums[2][warp] = sums.d;
    shared.sums[3][warp] = sums.weight;
    if constexpr (kKind == TargetKind::kRanked) {
      shared.ahead[0][warp] = rank[0].ahead;
      shared.ahead[1][warp] = rank[1].ahead;
    }
  }
  __syncthreads();  // every warp reads what lane 0 of every warp wrote
  sums = Partial<A>();
  if (lane < threads / 32) {
    sums.m = shared.sums[0][lane];
    sums.e = shared.sums[1][lane];
    sums.d = shared.sums[2][lane];
    sums.weight = shared.sums[3][lane];
  }
  sums.template merge_warp<T>(weighed);
  if constexpr (kKind == TargetKind::kRanked) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      rank[k].ahead = 0;
      for (int w = 0; w < threads / 32; ++w) rank[k].ahead += shared.ahead[k][w];
    }
  }
}

// The sums of a row become its loss, which is stored, and m, l and T. Returns the loss, in the
// thread that stores it.
template <typename T, TargetKind kKind, typename A>
__device__ __forceinline__ A finish_row(const LossParams<A>& p, const RowView<T>& row, int64_t r,
                                        const Partial<A>& sums, const LabelRank<A>* rank,
                                        SparseRow<A>& sparse, RowGradient<A>& g) {
  constexpr bool kDense = kKind == TargetKind::kDense;
  g.m = sums.m;
  g.l = sums.log_sum();
  A loss;
  if constexpr (kDense) {
    g.total = sums.weight;
    loss = g.l * g.total - sums.d;
  } else {
    g.total = total_of(p, sparse, sums);
    // One thread alone reads the labels' logits, as these reads are scattered.
    loss = row.tid == 0 ? sparse_loss<T>(p, sparse, sums, g.l, g.total, row.z) : A(0);
    if (p.gamma != A(0) && !sparse.ignored) {  // every thread needs T
      loss = focal_loss(p, sparse, g.m, g.l, row.z);
      g.total = sparse.valid ? A(0) * g.l + sparse.a0 + sparse.a1 : g.total;
    }
  }
  if (!sparse.ignored) add_z_loss(p, g.m, g.l, loss, g.total);
  if (row.tid != 0) return A(0);
  const int64_t rows = p.a.rows();
  A* stats = static_cast<A*>(p.a.stats);
  if (p.a.row_losses != nullptr) static_cast<A*>(p.a.row_losses)[r] = loss;
  if (stats != nullptr) {
    stats[r] = g.m;
    stats[rows + r] = g.l;
    stats[2 * rows + r] = g.total;
  }
  if constexpr (kKind == TargetKind::kRanked) {
    p.a.ranks[r] = rank[0].rank(p.a.classes);
    if (p.a.rank_planes == 2) p.a.ranks[rows + r] = rank[1].rank(p.a.classes);
  }
  return loss;
}

template <typename T, TargetKind kKind, LossPart kPart>
__global__ void __launch_bounds__(kRowThreads<T>, 1)
    row_kernel(const __grid_constant__ LossParams<typename Number<T>::Acc> p) {
  using A = typename Number<T>::Acc;
  constexpr bool kDense = kKind == TargetKind::kDense;
  constexpr bool kForward = kPart != LossPart::kGradient, kGradient = kPart != LossPart::kLoss;
  using Labels = std::conditional_t<kDense, NoLabels, RowLabels>;
  constexpr int G = kLoads < T, kDense ? TargetKind::kDense : TargetKind::kSparse > ;
  const bool warp_row = p.threads_per_row == 32;
  const int64_t rows = p.a.rows(), per_block = warp_row ? kWarpRows : 1;
  RowView<T> row;
  row.classes = static_cast<int32_t>(p.a.classes);
  row.tid = warp_row ? static_cast<int>(threadIdx.x) % 32 : static_cast<int>(threadIdx.x);
  row.threads = p.threads_per_row;
  const bool adjacent = !kGradient || p.a.grad_at.classes == 1;
  A* stats = static_cast<A*>(p.a.stats);
  A divisor = A(1);
  if constexpr (kGradient) {
    if (kForward && p.counts) {
      divisor = static_cast<A>(count_in_block(p.a));
    } else if (p.a.reduction == kMean) {
      divisor = divisor_of(p);
    }
  }

  A loss = A(0);
  bool counts = false;
  const int64_t r = blockIdx.x * per_block + (warp_row ? threadIdx.x / 32 : 0);
  if (r < rows) {  // the whole warp has a row, or none has
    const int64_t b = p.a.positions == 1 ? r : quotient(r, p.a.positions);
    const int64_t s = r - b * p.a.positions;
    row.z = start<T>(p.a.logits, p.a.logits_at, b, s);
    row.target = kDense ? dense_start<T>(p.a, b, s) : nullptr;
    const RowVectors vectors = row_vectors(p.a, row.z, row.target, row.classes, adjacent);
    const int32_t end = last_step<G>(vectors, row.threads) + row.tid;
    RowStep<T, G> step;

    // 1. m, l and T of the row, by a sweep, or from the stats of an earlier call. Nothing waits for
    // the labels before the first logits are on their way.
    RowGradient<A> g = {};
    SparseRow<A> sparse;
    const Labels labels(p.a, b, r);
    if constexpr (kForward) {
      LabelRank<A> rank[2] = {};
      const auto loaded = [&] {
        if constexpr (kKind == TargetKind::kRanked) {
          rank[0].template open<T>(p.a, row.z, labels.own);
          rank[1].template open<T>(p.a, row.z, labels.other);
        }
      };
      Partial<A> sums = sweep_row<T, kKind>(p, row, vectors, rank, loaded);
      merge_row<T, kKind>(sums, rank, row.threads, kDense || p.smooth);
      if constexpr (kKind == TargetKind::kSparse) sparse = SparseRow<A>(p, labels);
      // Read again, from cache: the ranks take the registers.
      if constexpr (kKind == TargetKind::kRanked) sparse = SparseRow<A>(p, Labels(p.a, b, r));
      if (sparse.valid) sparse.weigh_labels(static_cast<const A*>(p.a.class_weight));
      loss = finish_row<T, kKind>(p, row, r, sums, rank, sparse, g);
      counts = row.tid == 0 && !sparse.ignored;
    } else {
      g.m = stats[r];
      g.l = stats[rows + r];
      g.total = stats[2 * rows + r];
      step.template load_from<true>(row, vectors, end);
      if constexpr (!kDense) sparse = SparseRow<A>(p, labels);
      if (!sparse.valid) g.total = static_cast<A>(NAN);
      if (sparse.valid) sparse.weigh_labels(static_cast<const A*>(p.a.class_weight));
      if (!kDense && p.gamma != A(0)) {
        focal_loss(p, sparse, g.m, g.l, row.z);
        // Another thread may write its gradient over a label's logit.
        if (warp_row) {
          __syncwarp();
        } else {
          __syncthreads();
        }
      }
    }

    // 2. The gradient.
    if constexpr (kGradient) {
      T* grad = const_cast<T*>(start<T>(p.a.grad, p.a.grad_at, b, s));
      g.scale = scale_of_row(p, b, s, divisor);
      g.c = sparse.c;
      g.a0 = sparse.a0;
      g.a1 = sparse.a1;
      g.label = sparse.label;
      g.partner_label = sparse.partner_label;
      if (sparse.ignored) {
        zero_row(row, grad, p.a.grad_at.classes);
      } else {
        if constexpr (kForward) step.template load_from<true>(row, vectors, end);
        gradient_row<T, kDense>(p, row, vectors, g, grad, step);
      }
    }
  }

  // 3. The sum over rows.
  if constexpr (kForward) {
    if (p.a.partials == nullptr) return;
    const LossSum sum{static_cast<double>(loss), counts ? 1.0 : 0.0};
    finish_sums(p.a.partials, p.a.ticket, p.result, sum);
  }
}

}  // namespace fused_mixup
