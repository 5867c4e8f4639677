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

// This thread's share of the sums of a row. rank: [2], for kRanked. Calls loaded() when the first
// logits are on their way.
template <typename T, TargetKind kKind, int L = kLoads<T, kKind>, typename A, typename F>
__device__ __forceinline__ Partial<A> sweep_row(const LossParams<A>& p, const RowView<T>& row,
                                                const RowVectors& vectors, LabelRank<A>* rank,
                                                F&& loaded) {
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  const A* w = static_cast<const A*>(p.a.class_weight);
  const int64_t stride = p.a.logits_at.classes;
  const int32_t singles = vectors.head + row.classes - vectors.tail;
  Partial<A> sums;
  RowStep<T, L> step;
  step.template load_from<false>(row, vectors, row.tid);
  int32_t s = first_single(row), k = 0;
  T single = T();
  if (s < singles) {
    k = single_element(vectors, s);
    single = row.z[k * stride];
  }
  loaded();

  const int32_t last = last_step<L>(vectors, row.threads);
  for (int32_t begin = 0; begin < vectors.count; begin += L * row.threads) {
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int32_t v = begin + row.tid + u * row.threads;
      if (v >= vectors.count) continue;
      const int32_t k = vectors.head + v * V;
      const Elements<T, V> values = elements(step.part[u]);
      A top = Number<T>::up(values.e[0]);
#pragma unroll
      for (int e = 1; e < V; ++e) top = larger(top, Number<T>::up(values.e[e]));
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
    if (begin != last) {
      step.template load_from<false>(row, vectors, begin + L * row.threads + row.tid);
    }
  }

  while (s < singles) {
    const A value = Number<T>::up(single);
    const int32_t at = k;
    s += row.threads;
    if (s < singles) {  // the next one, before this one is taken
      k = single_element(vectors, s);
      single = row.z[k * stride];
    }
    sums.template raise<T>(value);
    sums.template take<T>(value);
    if constexpr (kKind == TargetKind::kDense) {
      sums.weigh(value, dense_element<T>(p, row.target, at));
    } else if (p.smooth) {
      sums.weigh(value, w != nullptr ? w[at] : A(1));
    }
    if constexpr (kKind == TargetKind::kRanked) {
      rank[0].take(value, at);
      rank[1].take(value, at);
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

// An ignored row, whose logits are not read.
template <typename T>
__device__ __forceinline__ void zero_row(const RowView<T>& row, T* grad, int64_t stride) {
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  const RowVectors vectors = row_vectors(grad, row.classes, stride == 1);
  const Elements<T, V> zeros = {};
  for (int32_t v = row.tid; v < vectors.count; v += row.threads) {
    store_once(grad + vectors.head + v * V, packed(zeros));
  }
  const int32_t singles = vectors.head + row.classes - vectors.tail;
  for (int32_t s = first_single(row); s < singles; s += row.threads) {
    grad[single_element(vectors, s) * stride] = zeros.e[0];
  }
}

// Writes the gradient of a row. step: what the last step of a sweep over `vectors` loads.
template <typename T, bool kDense, int L, bool kNear, typename A>
__device__ __forceinline__ void gradient_row(const LossParams<A>& p, const RowView<T>& row,
                                             const RowVectors& vectors, const RowGradient<A>& g,
                                             T* grad, RowStep<T, L, kNear>& step) {
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  const bool grad_aligned = row_aligned(grad + vectors.head);
  const A* w = static_cast<const A*>(p.a.class_weight);
  const auto entry = [&](T value, A target) {
    const A prob = exp_of<T>((Number<T>::up(value) - g.m) - g.l);
    return Number<T>::down(g.scale * (g.total * prob - target));
  };
  const auto labelled = [&](int32_t k, A target) {
    if (k == g.label) target += g.a0;
    if (k == g.partner_label) target += g.a1;  // equal labels: the weights add
    return target;
  };
  const bool weighed = !kDense && w != nullptr && g.c != A(0);

  const int32_t last = last_step<L>(vectors, row.threads);
  for (int32_t begin = last; vectors.count > 0 && begin >= 0; begin -= L * row.threads) {
    if (begin != last) step.template load_from<true>(row, vectors, begin + row.tid);
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int32_t v = begin + row.tid + u * row.threads;
      if (v >= vectors.count) continue;
      const int32_t k = vectors.head + v * V;
      const Elements<T, V> value = elements(step.part[u]);
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

  const int32_t singles = vectors.head + row.classes - vectors.tail;
  for (int32_t s = first_single(row); s < singles; s += row.threads) {
    const int32_t k = single_element(vectors, s);
    A target;
    if constexpr (kDense) {
      target = dense_element<T>(p, row.target, k);
    } else {
      target = labelled(k, weighed ? g.c * w[k] : g.c);
    }
    grad[k * p.a.grad_at.classes] = entry(row.z[k * p.a.logits_at.classes], target);
  }
}

}  // namespace fused_mixup
