// Soft-target cross-entropy of rows whose classes are adjacent: a warp or a block takes a row.
// Rows with classes elsewhere are served too, element by element.
//
// Fused: the target's construction, log-softmax, product, sum; the labels' ranks; the gradient.
// Device memory per element, N bytes of logits (a dense target comes on top, once per sweep):
//   loss               N: each logit is read once
//   gradient           2N: each logit is read and its gradient written once; the loss has left m,
//   l, T loss and gradient  2N: the second sweep reads a row that a multiprocessor has just read,
//   from
//                      L1 (a warp's row, and the last 200 KB of a block's) or from L2. A
//                      multiprocessor works on one of the longest rows at a time: 132 rows of
//                      131072 half-precision logits are 35 MB.
#pragma once

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

template <typename T, TargetKind kKind>
__global__ void __launch_bounds__(kRowThreads<T>, 1)
    row_kernel(const __grid_constant__ LossParams<typename Number<T>::Acc> p) {
  using A = typename Number<T>::Acc;
  constexpr bool kDense = kKind == TargetKind::kDense;
  const bool warp_row = p.threads_per_row == 32;
  const int64_t rows = p.a.rows();
  int64_t r = warp_row ? static_cast<int64_t>(blockIdx.x) * kWarpRows + threadIdx.x / 32
                       : static_cast<int64_t>(blockIdx.x);
  const bool live = r < rows;
  if (!live) r = 0;  // a warp without a row stays, as a barrier follows
  const int64_t b = quotient(r, p.a.positions), s = r - b * p.a.positions;
  RowView<T> row;
  row.z = start<T>(p.a.logits, p.a.logits_at, b, s);
  row.target = kDense ? dense_start<T>(p.a, b, s) : nullptr;
  row.classes = live ? static_cast<int32_t>(p.a.classes) : 0;
  row.tid = warp_row ? static_cast<int>(threadIdx.x) % 32 : static_cast<int>(threadIdx.x);
  row.threads = p.threads_per_row;

  // 1. m, l and T of the row, by a sweep, or from the stats of an earlier call.
  RowGradient<A> g = {};
  A* stats = static_cast<A*>(p.a.stats);
  if (p.a.forward) {
    LabelRank<A> rank[2];
    if constexpr (kKind == TargetKind::kRanked) {
      rank[0].template open<T>(p.a, row.z, p.a.labels[r]);
      rank[1].template open<T>(p.a, row.z, p.a.partner_labels[r]);
    }
    Partial<A> sums = sweep_row<T, kKind>(p, row, rank);
    merge_row<T, kKind>(sums, rank, row.threads, kDense || p.smooth);
    g.m = sums.m;
    g.l = sums.log_sum();
    A loss;
    double counted = 1.0;
    if constexpr (kDense) {
      g.total = sums.weight;
      loss = g.l * g.total - sums.d;
      add_z_loss(p, g.m, g.l, loss, g.total);
    } else {
      SparseRow<A> sparse(p, b, r);
      if (sparse.valid) sparse.weigh_labels(static_cast<const A*>(p.a.class_weight));
      g.total = total_of(p, sparse, sums);
      // One thread alone reads the labels' logits, as these reads are scattered.
      loss = row.tid == 0 ? sparse_loss<T>(p, sparse, sums, g.l, g.total, row.z) : A(0);
      if (p.gamma != A(0) && !sparse.ignored) {  // every thread needs T
        loss = focal_loss(p, sparse, g.m, g.l, row.z);
        g.total = sparse.valid ? A(0) * g.l + sparse.a0 + sparse.a1 : g.total;
      }
      if (!sparse.ignored) add_z_loss(p, g.m, g.l, loss, g.total);
      counted = sparse.ignored ? 0.0 : 1.0;
    }
    const bool writes = live && row.tid == 0;
    if (writes) {
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
    }
    if (p.a.partials != nullptr) {
      LossSum sum{writes ? static_cast<double>(loss) : 0.0, writes ? counted : 0.0};
      if (warp_row) sum = block_sum(sum);
      if (threadIdx.x == 0) p.a.partials[blockIdx.x] = sum;
    }
  } else {
    g.m = stats[r];
    g.l = stats[rows + r];
    g.total = stats[2 * rows + r];
  }
  if (p.a.grad == nullptr) return;

  // 2. The gradient. The labels are read again, as stats may come from another call.
  g.scale = scale_of_row(p, b, s);
  g.label = g.partner_label = -1;
  if constexpr (!kDense) {
    SparseRow<A> sparse(p, b, r);
    g.ignored = sparse.ignored;
    if (sparse.valid) {
      sparse.weigh_labels(static_cast<const A*>(p.a.class_weight));
    } else {
      g.total = static_cast<A>(NAN);
    }
    g.c = sparse.c;
    g.a0 = sparse.a0;
    g.a1 = sparse.a1;
    g.label = sparse.label;
    g.partner_label = sparse.partner_label;
    if (p.gamma != A(0)) {
      // A warp without a row would read those of row 0, which another block may be writing.
      if (live) focal_loss(p, sparse, g.m, g.l, row.z);
      g.a0 = sparse.a0;
      g.a1 = sparse.a1;
      __syncthreads();  // another thread may write its gradient over a label's logit
    }
  }
  if (!live) return;
  gradient_row<T, kDense>(p, row, g, const_cast<T*>(start<T>(p.a.grad, p.a.grad_at, b, s)));
}

template <typename T>
cudaError_t launch_rows(const LossArgs& a) {
  using A = typename Number<T>::Acc;
  LossParams<A> p = loss_params<A>(a);
  p.threads_per_row = threads_per_row<T>(a.classes);
  const int64_t blocks = row_blocks<T>(a);
  const dim3 block(p.threads_per_row == 32 ? 32 * kWarpRows : p.threads_per_row);
  if (a.target != nullptr) {
    return launch(row_kernel<T, TargetKind::kDense>, blocks, block, 0, a.stream, p);
  }
  if (a.ranks != nullptr) {
    return launch(row_kernel<T, TargetKind::kRanked>, blocks, block, 0, a.stream, p);
  }
  return launch(row_kernel<T, TargetKind::kSparse>, blocks, block, 0, a.stream, p);
}

}  // namespace fused_mixup
