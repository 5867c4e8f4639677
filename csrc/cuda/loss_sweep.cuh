// The sweeps over a row: one for the sums of its loss, one for the gradient. Classes that are
// adjacent are read in vectors, others one by one.
//
//   d loss / d z_k = scale (T p_k - t_k),   p_k = exp((z_k - m) - l)
//
// Every entry, those of the true classes included, is computed from scratch in float32 and rounded
// once. The gradient is swept from the row's end to its start, as what was read last is still in
// L1.
#pragma once

#include "loss_schedule.cuh"
#include "loss_sums.cuh"

namespace fused_mixup {

// A row, for one of the threads that share it.
template <typename T>
struct RowView {
  const T* z;
  const void* target;  // the first element of a dense target
  int32_t classes;     // 0 in a warp that has no row
  int tid, threads;
};

template <typename T, typename A>
__device__ __forceinline__ A dense_element(const LossParams<A>& p, const void* row, int64_t k) {
  const A* w = static_cast<const A*>(p.a.class_weight);
  return smoothed(p, dense_value<T, A>(p.a, row, k * p.a.target_at.classes),
                  w == nullptr ? A(1) : w[k]);
}

// Classes k .. k+V-1 of a row.
template <typename T, int V, typename A>
__device__ __forceinline__ Elements<A, V> dense_elements(const LossParams<A>& p, const void* row,
                                                         int32_t k) {
  const A* w = static_cast<const A*>(p.a.class_weight);
  Elements<A, V> out = dense_values<T, V, A>(p.a, row, k);
#pragma unroll
  for (int e = 0; e < V; ++e) out.e[e] = smoothed(p, out.e[e], w == nullptr ? A(1) : w[k + e]);
  return out;
}

// 16-byte loads of logits in flight per thread. A dense target has loads in flight too; doubles and
// ranks leave no registers for more.
template <typename T, TargetKind kKind>
constexpr int kLoads =
    sizeof(T) == 8 || kKind != TargetKind::kSparse ? kLossUnroll / 2 : kLossUnroll;

// This thread's share of the sums of a row. rank: [2], for kRanked.
template <typename T, TargetKind kKind, typename A>
__device__ __forceinline__ Partial<A> sweep_row(const LossParams<A>& p, const RowView<T>& row,
                                                LabelRank<A>* rank) {
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  constexpr int L = kLoads<T, kKind>;
  const RowVectors vectors = row_vectors(p.a, row.z, row.target, row.classes, true);
  const A* w = static_cast<const A*>(p.a.class_weight);
  Partial<A> sums;
  const int32_t singles = vectors.head + row.classes - vectors.tail;
  for (int32_t s = row.tid; s < singles; s += row.threads) {
    const int32_t k = single_element(vectors, s);
    const A value = Number<T>::up(row.z[k * p.a.logits_at.classes]);
    sums.template raise<T>(value);
    sums.template take<T>(value);
    if constexpr (kKind == TargetKind::kDense) {
      sums.weigh(value, dense_element<T>(p, row.target, k));
    } else if (p.smooth) {
      sums.weigh(value, w != nullptr ? w[k] : A(1));
    }
    if constexpr (kKind == TargetKind::kRanked) {
      rank[0].take(value, k);
      rank[1].take(value, k);
    }
  }
  for (int32_t first = row.tid; first < vectors.count; first += L * row.threads) {
    Vec<T, V> part[L];
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int32_t v = first + u * row.threads;
      if (v < vectors.count) part[u] = load<V>(row.z + vectors.head + v * V);
    }
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int32_t v = first + u * row.threads;
      if (v >= vectors.count) continue;
      const int32_t k = vectors.head + v * V;
      const Elements<T, V> values = elements(part[u]);
      A top = Number<T>::up(values.e[0]);
#pragma unroll
      for (int e = 1; e < V; ++e) {
        const A value = Number<T>::up(values.e[e]);
        top = value > top ? value : top;
      }
      sums.template raise<T>(top);
#pragma unroll
      for (int e = 0; e < V; ++e) sums.template take<T>(Number<T>::up(values.e[e]));
      if constexpr (kKind == TargetKind::kDense) {
        const Elements<A, V> t = dense_elements<T, V>(p, row.target, k);
#pragma unroll
        for (int e = 0; e < V; ++e) sums.weigh(Number<T>::up(values.e[e]), t.e[e]);
      } else if (p.smooth) {
#pragma unroll
        for (int e = 0; e < V; ++e) {
          sums.weigh(Number<T>::up(values.e[e]), w != nullptr ? w[k + e] : A(1));
        }
      }
      if constexpr (kKind == TargetKind::kRanked) {
#pragma unroll
        for (int e = 0; e < V; ++e) {
          rank[0].take(Number<T>::up(values.e[e]), k + e);
          rank[1].take(Number<T>::up(values.e[e]), k + e);
        }
      }
    }
  }
  return sums;
}

// The terms that all entries of a row's gradient share.
template <typename A>
struct RowGradient {
  A m, l, total, scale;
  A c, a0, a1;  // sparse: the target of every class, and what is added at the labels
  int32_t label, partner_label;
  bool ignored;
};

template <typename T, bool kDense, typename A>
__device__ __forceinline__ void gradient_row(const LossParams<A>& p, const RowView<T>& row,
                                             const RowGradient<A>& g, T* grad) {
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  constexpr TargetKind kKind = kDense ? TargetKind::kDense : TargetKind::kSparse;
  constexpr int L = kLoads<T, kKind>;
  const RowVectors vectors =
      row_vectors(p.a, row.z, row.target, row.classes, p.a.grad_at.classes == 1);
  const bool grad_aligned = row_aligned(grad + vectors.head);
  const A* w = static_cast<const A*>(p.a.class_weight);
  const auto entry = [&](T value, A target) {
    const A prob = exp_of<T>((Number<T>::up(value) - g.m) - g.l);
    return Number<T>::down(g.ignored ? A(0) : g.scale * (g.total * prob - target));
  };
  const auto labelled = [&](int32_t k, A target) {
    if (k == g.label) target += g.a0;
    if (k == g.partner_label) target += g.a1;  // equal labels: the weights add
    return target;
  };
  const bool weighed = !kDense && w != nullptr && g.c != A(0);

  const int32_t singles = vectors.head + row.classes - vectors.tail;
  for (int32_t s = row.tid; s < singles; s += row.threads) {
    const int32_t k = single_element(vectors, s);
    A target;
    if constexpr (kDense) {
      target = dense_element<T>(p, row.target, k);
    } else {
      target = labelled(k, weighed ? g.c * w[k] : g.c);
    }
    grad[k * p.a.grad_at.classes] = entry(row.z[k * p.a.logits_at.classes], target);
  }
  if (vectors.count == 0) return;
  const int32_t step = L * row.threads;
  for (int32_t first = (vectors.count - 1) / step * step + row.tid; first >= 0; first -= step) {
    Vec<T, V> part[L];
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int32_t v = first + u * row.threads;
      if (v < vectors.count) part[u] = load<V>(row.z + vectors.head + v * V);
    }
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int32_t v = first + u * row.threads;
      if (v >= vectors.count) continue;
      const int32_t k = vectors.head + v * V;
      const Elements<T, V> value = elements(part[u]);
      Elements<T, V> out;
      if constexpr (kDense) {
        const Elements<A, V> t = dense_elements<T, V>(p, row.target, k);
#pragma unroll
        for (int e = 0; e < V; ++e) out.e[e] = entry(value.e[e], t.e[e]);
      } else {
        // Few vectors hold a true class; the others skip the comparisons.
        const int32_t h0 = g.label - k, h1 = g.partner_label - k;
        if (weighed || (h0 >= 0 && h0 < V) || (h1 >= 0 && h1 < V)) {
#pragma unroll
          for (int e = 0; e < V; ++e) {
            out.e[e] = entry(value.e[e], labelled(k + e, weighed ? g.c * w[k + e] : g.c));
          }
        } else {
#pragma unroll
          for (int e = 0; e < V; ++e) out.e[e] = entry(value.e[e], g.c);
        }
      }
      store_any(grad + k, out, grad_aligned);
    }
  }
}

}  // namespace fused_mixup
