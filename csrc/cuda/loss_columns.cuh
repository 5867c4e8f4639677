// Soft-target cross-entropy where positions are adjacent, as in contiguous [B, K, d1…]: read in
// place, a thread takes a vector of positions through the classes.
//
// Fused, and moved through device memory, as in loss_rows.cuh: N for the loss, 2N for the gradient.
// Where few positions would leave the GPU idle, `slices` threads share a vector of positions, each
// with every slices-th class; their sums meet in shared memory. So they do, too, for loss and
// gradient in one kernel, 2N: what all blocks read between a logit's first use and its second has
// to fit L2, and shrinks with the vectors that a block holds.
//
// 16 bytes of positions are a vector where all of [B, K, S] divides into such; single positions
// otherwise, and for ranks, whose state would not fit the registers.
#pragma once

#include <type_traits>

#include "loss_reduce.cuh"
#include "loss_sweep.cuh"

namespace fused_mixup {

// First the sums of every slice: of place q, a position of this block, those of slice i stand at
// i * places + q. Then, for the gradient, what the entries of a place share.
template <typename A, int V>
struct alignas(16) ColumnShared {
  A m[kColumnThreads * V];
  A e[kColumnThreads * V];       // then l
  A d[kColumnThreads * V];       // then scale * T; dense: T
  A weight[kColumnThreads * V];  // then scale * C; dense: scale
  A hit[2][kColumnThreads * V];  // what the entries of the labels have more
  int32_t label[2][kColumnThreads * V];
};
constexpr int32_t kIgnored = -2;  // as a label: the entries are 0, whatever the logits

template <int N>
using Constant = std::integral_constant<int, N>;

// Class k of V positions of a dense target, smoothed and weighed.
template <typename T, int V, typename A>
__device__ __forceinline__ Elements<A, V> dense_column(const LossParams<A>& p, const void* target,
                                                       int32_t k) {
  Elements<A, V> out;
  if constexpr (V == 1) {
    out.e[0] = dense_element<T>(p, target, k);
  } else {
    const A w = p.a.class_weight == nullptr ? A(1) : static_cast<const A*>(p.a.class_weight)[k];
    out = dense_values<T, V, A>(p.a, target, k * p.a.target_at.classes);
#pragma unroll
    for (int e = 0; e < V; ++e) out.e[e] = smoothed(p, out.e[e], w);
  }
  return out;
}

struct ColumnRanks {
  int32_t ahead[2][kColumnThreads];
};

// A thread's share of the sums of V positions: the classes from `slice` on in steps of `slices`.
template <typename T, int V, TargetKind kKind, typename A>
__device__ __forceinline__ void sweep_columns(const LossParams<A>& p, const T* z,
                                              const void* target, int slice, Ranked<A>* rank,
                                              Partial<A>* sums) {
  constexpr bool kDense = kKind == TargetKind::kDense;
  constexpr int L = V == 1 || !kDense ? kLossUnroll : kLossUnroll / 2;
  const A* w = static_cast<const A*>(p.a.class_weight);
  const auto take = [&](int32_t first, auto number) {
    constexpr int N = decltype(number)::value;
    Vec<T, V> part[N];
#pragma unroll
    for (int u = 0; u < N; ++u) {
      part[u] = load<V>(z + (first + u * p.slices) * p.a.logits_at.classes);
    }
    Elements<T, V> values[N];
#pragma unroll
    for (int u = 0; u < N; ++u) values[u] = elements(part[u]);
    // One move of the sums for N classes.
#pragma unroll
    for (int e = 0; e < V; ++e) {
      A top = Number<T>::up(values[0].e[e]);
#pragma unroll
      for (int u = 1; u < N; ++u) {
        const A value = Number<T>::up(values[u].e[e]);
        top = value > top ? value : top;
      }
      sums[e].template raise_flat<T>(top, kDense || p.smooth);
#pragma unroll
      for (int u = 0; u < N; ++u) sums[e].template take<T>(Number<T>::up(values[u].e[e]));
    }
    if constexpr (kDense) {
#pragma unroll
      for (int u = 0; u < N; ++u) {
        const Elements<A, V> t = dense_column<T, V>(p, target, first + u * p.slices);
#pragma unroll
        for (int e = 0; e < V; ++e) sums[e].weigh(Number<T>::up(values[u].e[e]), t.e[e]);
      }
    } else if (p.smooth) {
#pragma unroll
      for (int u = 0; u < N; ++u) {
        const A t = w != nullptr ? w[first + u * p.slices] : A(1);
#pragma unroll
        for (int e = 0; e < V; ++e) sums[e].weigh(Number<T>::up(values[u].e[e]), t);
      }
    }
    if constexpr (kKind == TargetKind::kRanked) {
#pragma unroll
      for (int u = 0; u < N; ++u) {
        rank[0].take(Number<T>::up(values[u].e[0]), first + u * p.slices);
        rank[1].take(Number<T>::up(values[u].e[0]), first + u * p.slices);
      }
    }
  };
  const int32_t classes = static_cast<int32_t>(p.a.classes);
  int32_t k = slice;
  for (; k + (L - 1) * p.slices < classes; k += L * p.slices) take(k, Constant<L>());
  for (; k < classes; k += p.slices) take(k, Constant<1>());
}

// The gradient of V positions, in the same classes: what a thread reads nobody else writes, so it
// may go over the logits.
template <typename T, int V, bool kDense, typename A>
__device__ __forceinline__ void gradient_columns(const LossParams<A>& p, const T* z,
                                                 const void* target, T* grad, int slice,
                                                 const ColumnShared<A, V>& shared, int place) {
  constexpr int L = V == 1 || !kDense ? kLossUnroll : kLossUnroll / 2;
  const A* w = static_cast<const A*>(p.a.class_weight);
  A m[V], l[V], total[V], base[V];
  int32_t label[V], partner_label[V];
  bool ignored = false;
#pragma unroll
  for (int e = 0; e < V; ++e) {
    m[e] = shared.m[place + e];
    l[e] = shared.e[place + e];
    total[e] = shared.d[place + e];
    base[e] = shared.weight[place + e];
    label[e] = kDense ? 0 : shared.label[0][place + e];
    partner_label[e] = kDense ? 0 : shared.label[1][place + e];
    ignored = ignored || label[e] == kIgnored;
  }
  const auto write = [&](int32_t first, auto number) {
    constexpr int N = decltype(number)::value;
    Vec<T, V> part[N];
#pragma unroll
    for (int u = 0; u < N; ++u) {
      part[u] = load<V>(z + (first + u * p.slices) * p.a.logits_at.classes);
    }
#pragma unroll
    for (int u = 0; u < N; ++u) {
      const int32_t k = first + u * p.slices;
      const Elements<T, V> value = elements(part[u]);
      A out[V];
      if constexpr (kDense) {
        const Elements<A, V> t = dense_column<T, V>(p, target, k);
#pragma unroll
        for (int e = 0; e < V; ++e) {
          const A prob = exp_of<T>((Number<T>::up(value.e[e]) - m[e]) - l[e]);
          out[e] = base[e] * (total[e] * prob - t.e[e]);
        }
      } else {
        const A weight = w != nullptr ? w[k] : A(1);
        bool hit = ignored;
#pragma unroll
        for (int e = 0; e < V; ++e) {
          const A prob = exp_of<T>((Number<T>::up(value.e[e]) - m[e]) - l[e]);
          out[e] = total[e] * prob - weight * base[e];
          hit = hit || label[e] == k || partner_label[e] == k;
        }
        if (hit) {  // few do
#pragma unroll
          for (int e = 0; e < V; ++e) {
            if (label[e] == k) out[e] -= shared.hit[0][place + e];
            if (partner_label[e] == k) out[e] -= shared.hit[1][place + e];
            if (label[e] == kIgnored) out[e] = A(0);
          }
        }
      }
      Elements<T, V> rounded;
#pragma unroll
      for (int e = 0; e < V; ++e) rounded.e[e] = Number<T>::down(out[e]);
      store(grad + k * p.a.grad_at.classes, packed(rounded));
    }
  };
  const int32_t classes = static_cast<int32_t>(p.a.classes);
  int32_t k = slice;
  for (; k + (L - 1) * p.slices < classes; k += L * p.slices) write(k, Constant<L>());
  for (; k < classes; k += p.slices) write(k, Constant<1>());
}

// Of the position at place q: its loss and stats from the slices' sums, or m, l and T from the
// stats of an earlier call; then what its gradient needs.
template <typename T, int V, TargetKind kKind, typename A>
__device__ __forceinline__ LossSum finish_place(const LossParams<A>& p, ColumnShared<A, V>& shared,
                                                const ColumnRanks* ranks, int places, int q,
                                                int64_t b, int64_t s) {
  constexpr bool kDense = kKind == TargetKind::kDense;
  const int64_t rows = p.a.rows(), r = b * p.a.positions + s;
  A* stats = static_cast<A*>(p.a.stats);
  SparseRow<A> of;
  if constexpr (!kDense) of = SparseRow<A>(p, b, r);
  if (of.valid) of.weigh_labels(static_cast<const A*>(p.a.class_weight));
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
    } else {
      total = total_of(p, of, sums);
      loss = sparse_loss(p, of, sums, l, total, start<T>(p.a.logits, p.a.logits_at, b, s));
    }
    result = {static_cast<double>(loss), of.ignored ? 0.0 : 1.0};
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
    total = of.valid ? stats[2 * rows + r] : static_cast<A>(NAN);
  }
  if (p.a.grad == nullptr) return result;
  const A scale = scale_of_row(p, b, s);
  shared.m[q] = m;
  shared.e[q] = l;
  shared.d[q] = kDense ? total : scale * total;
  shared.weight[q] = kDense ? scale : scale * of.c;
  if constexpr (!kDense) {
    shared.hit[0][q] = scale * of.a0;
    shared.hit[1][q] = scale * of.a1;
    shared.label[0][q] = of.ignored ? kIgnored : of.label;
    shared.label[1][q] = of.partner_label;
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
  const bool live = first + lane < vectors;  // the others only meet at the barriers
  const int64_t v = live ? first + lane : 0;
  const int64_t b = quotient(v, per_sample), s = (v - b * per_sample) * V;
  const T* z = start<T>(p.a.logits, p.a.logits_at, b, s);
  const void* target = kDense ? dense_start<T>(p.a, b, s) : nullptr;

  // 1. Every slice's sums.
  if (p.a.forward) {
    Partial<A> sums[V];
    Ranked<A> rank[2];
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
    __syncthreads();  // a place is finished by another thread than swept it
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
  if (p.a.partials != nullptr) {
    sum = block_sum(sum);
    if (tid == 0) p.a.partials[blockIdx.x] = sum;
  }

  // 3. The gradient.
  if (p.a.grad == nullptr) return;
  __syncthreads();  // what the entries of a place share is complete
  if (!live) return;
  T* grad = const_cast<T*>(start<T>(p.a.grad, p.a.grad_at, b, s));
  gradient_columns<T, V, kDense>(p, z, target, grad, slice, shared, lane * V);
}

}  // namespace fused_mixup
