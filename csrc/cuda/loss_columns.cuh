// Soft-target cross-entropy where positions are adjacent, as in contiguous [B, K, d1…]: a thread
// walks a vector of positions through the classes, with no transposed copy.
//
// Fused as in loss_rows.cuh, with the same traffic: N for the loss, 2N for the gradient. Where few
// positions would leave the GPU idle, `slices` threads share a vector of positions, each with every
// slices-th class, and merge their sums in shared memory. They do so for loss and gradient in one
// kernel (2N) too: what all blocks read between the two reads of a logit has to fit L2, and it
// shrinks with the number of vectors that a block holds.
//
// A vector has 16 bytes of positions where they divide all of [B, K, S], else a single position.
// Ranks take single positions as well, as their state would not fit the registers.
#pragma once

#include "loss_columns_sweep.cuh"
#include "loss_reduce.cuh"

namespace fused_mixup {

struct ColumnRanks {
  int32_t ahead[2][kColumnThreads];
};

// Finishes the position at place q: makes its loss and stats from the slices' sums, or reads m, l
// and T from the stats of an earlier call. Then stores what the gradient needs.
template <typename T, int V, TargetKind kKind, typename A>
__device__ __forceinline__ LossSum finish_place(const LossParams<A>& p, ColumnShared<A, V>& shared,
                                                const ColumnRanks* ranks, int places, int q,
                                                int64_t b, int64_t s) {
  constexpr bool kDense = kKind == TargetKind::kDense;
  const int64_t rows = p.a.rows(), r = b * p.a.positions + s;
  A* stats = static_cast<A*>(p.a.stats);
  SparseRow<A> sparse;
  if constexpr (!kDense) sparse = SparseRow<A>(p, RowLabels(p.a, b, r));
  if (sparse.valid) sparse.weigh_labels(static_cast<const A*>(p.a.class_weight));
  const T* z = start<T>(p.a.logits, p.a.logits_at, b, s);
  LossSum result{0.0, 0.0};
  A m, l, total;
  if (p.a.forward) {
    Partial<A> sums;
    for (int i = 0; i < p.slices; ++i) {
      Partial<A> share;
      share.m = shared.m[i * places + q];
      share.e = shared.e[i * places + q];
      share.d = shared.d[i * places + q];
      share.weight = shared.weight[i * places + q];
      sums.template merge<T>(share);
    }
    m = sums.m;
    l = sums.log_sum();
    A loss;
    if constexpr (kDense) {
      total = sums.weight;
      loss = l * total - sums.d;
      add_z_loss(p, m, l, loss, total);
    } else {
      total = total_of(p, sparse, sums);
      loss = sparse_loss(p, sparse, sums, l, total, z);
      if (p.gamma != A(0) && !sparse.ignored) {
        loss = focal_loss(p, sparse, m, l, z);
        total = sparse.valid ? A(0) * l + sparse.a0 + sparse.a1 : total;
      }
      if (!sparse.ignored) add_z_loss(p, m, l, loss, total);
    }
    result = {static_cast<double>(loss), sparse.ignored ? 0.0 : 1.0};
    if (p.a.row_losses != nullptr) static_cast<A*>(p.a.row_losses)[r] = loss;
    if (stats != nullptr) {
      stats[r] = m;
      stats[rows + r] = l;
      stats[2 * rows + r] = total;
    }
    if constexpr (kKind == TargetKind::kRanked) {
      for (int k = 0; k < p.a.rank_planes; ++k) {
        const int64_t y = (k == 0 ? p.a.labels : p.a.partner_labels)[r];
        int32_t rank = 0;
        for (int i = 0; i < p.slices; ++i) rank += ranks->ahead[k][i * places + q];
        const bool valid = y >= 0 && y < p.a.classes && y != p.a.ignore_index;
        p.a.ranks[k * rows + r] = valid ? rank : static_cast<int32_t>(p.a.classes);
      }
    }
  } else {
    m = stats[r];
    l = stats[rows + r];
    total = sparse.valid ? stats[2 * rows + r] : static_cast<A>(NAN);
    // Read here, before a barrier: the gradient may be written over the logits.
    if (!kDense && p.gamma != A(0)) focal_loss(p, sparse, m, l, z);
  }
  if (p.a.grad == nullptr) return result;
  const A scale = scale_of_row(p, b, s, p.a.reduction == kMean ? divisor_of(p) : A(1));
  shared.m[q] = m;
  shared.e[q] = l;
  shared.d[q] = kDense ? total : scale * total;
  shared.weight[q] = kDense ? scale : scale * sparse.c;
  if constexpr (!kDense) {
    shared.hit[0][q] = scale * sparse.a0;
    shared.hit[1][q] = scale * sparse.a1;
    shared.label[0][q] = sparse.ignored ? kIgnored : sparse.label;
    shared.label[1][q] = sparse.partner_label;
  }
  return result;
}

template <typename T, int V, TargetKind kKind>
__global__ void __launch_bounds__(kColumnThreads, V == 8 ? 4 : 5)  // 128 registers, or 96
    column_kernel(const __grid_constant__ LossParams<typename Number<T>::Acc> p) {
  using A = typename Number<T>::Acc;
  constexpr bool kDense = kKind == TargetKind::kDense;
  constexpr bool kRanked = kKind == TargetKind::kRanked;
  auto& shared = block_shared<ColumnShared<A, V>>();
  ColumnRanks* ranks = nullptr;
  if constexpr (kRanked) ranks = &block_shared<ColumnRanks>();
  const int lanes = kColumnThreads / p.slices, places = lanes * V;
  const int tid = static_cast<int>(threadIdx.x);
  const int slice = tid / lanes, lane = tid - slice * lanes;
  const int64_t per_sample = p.a.positions / V, vectors = p.a.batch * per_sample;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * lanes;
  const bool live = first + lane < vectors;  // other threads stay for the barriers
  const int64_t v = live ? first + lane : 0;
  const int64_t b = quotient(v, per_sample), s = (v - b * per_sample) * V;
  const T* z = start<T>(p.a.logits, p.a.logits_at, b, s);
  const void* target = kDense ? dense_start<T>(p.a, b, s) : nullptr;

  // 1. Every slice's sums. The labels, which the places need then, are on their way meanwhile: one
  // thread asks for the 32 bytes of four rows, which have the numbers of the places.
  if (p.a.forward) {
    if constexpr (!kDense) {
      for (int q = 4 * tid; q < places; q += 4 * kColumnThreads) {
        const int64_t r = first * V + q;
        if (r >= p.a.rows()) break;
        prefetch(p.a.labels + r);
        prefetch(p.a.partner_labels + r);
      }
    }
    Partial<A> sums[V];
    LabelRank<A> rank[2];
    if constexpr (kRanked) {
      const int64_t r = b * p.a.positions + s;
      rank[0].template open<T>(p.a, z, p.a.labels[r]);
      rank[1].template open<T>(p.a, z, p.a.partner_labels[r]);
    }
    if (live) sweep_columns<T, V, kKind>(p, z, target, slice, rank, sums);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      shared.m[tid * V + e] = sums[e].m;
      shared.e[tid * V + e] = sums[e].e;
      shared.d[tid * V + e] = sums[e].d;
      shared.weight[tid * V + e] = sums[e].weight;
    }
    if constexpr (kRanked) {
      ranks->ahead[0][tid] = rank[0].ahead;
      ranks->ahead[1][tid] = rank[1].ahead;
    }
    __syncthreads();  // another thread than swept a place finishes it
  }

  // 2. The positions, one by one.
  LossSum sum{0.0, 0.0};
  for (int q = tid; q < places; q += kColumnThreads) {
    const int64_t at = first + q / V;
    if (at >= vectors) break;
    const int64_t sample = quotient(at, per_sample);
    const int64_t position = (at - sample * per_sample) * V + q % V;
    const LossSum one = finish_place<T, V, kKind>(p, shared, ranks, places, q, sample, position);
    sum.loss += one.loss;
    sum.count += one.count;
  }

  if (p.a.partials != nullptr) finish_sums(p.a.partials, p.a.ticket, p.result, sum);

  // 3. The gradient.
  if (p.a.grad == nullptr) return;
  __syncthreads();  // the terms of every place are complete
  if (!live) return;
  T* grad = const_cast<T*>(start<T>(p.a.grad, p.a.grad_at, b, s));
  gradient_columns<T, V, kDense>(p, z, target, grad, slice, shared, lane * V);
}

}  // namespace fused_mixup
