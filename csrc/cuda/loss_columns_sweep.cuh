// The sweeps over columns of adjacent positions: one for the sums of their losses, one for the
// gradient. A thread takes a vector of V positions and every slices-th class.
#pragma once

#include <type_traits>

#include "loss_sweep.cuh"

namespace fused_mixup {

// At first the sums of every slice: a place q is a position of this block, and the sums of its
// slice i stand at i * places + q. Then, for the gradient, the terms that the entries of a place
// share.
template <typename A, int V>
struct alignas(16) ColumnShared {
  A m[kColumnThreads * V];
  A e[kColumnThreads * V];       // then l
  A d[kColumnThreads * V];       // then scale * T; dense: T
  A weight[kColumnThreads * V];  // then scale * C; dense: scale
  A hit[2][kColumnThreads * V];  // what is subtracted from the entries of the labels
  int32_t label[2][kColumnThreads * V];
};
constexpr int32_t kIgnored = -2;  // in place of a label: all entries are 0

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

// A thread's share of the sums of V positions: the classes from `slice` on in steps of `slices`.
template <typename T, int V, TargetKind kKind, typename A>
__device__ __forceinline__ void sweep_columns(const LossParams<A>& p, const T* z,
                                              const void* target, int slice, LabelRank<A>* rank,
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
    // The sums are shifted once for N classes.
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

// Writes the gradient of V positions in the same classes. No other thread writes what this one
// reads, so that the gradient may replace the logits.
template <typename T, int V, bool kDense, typename A>
__device__ __forceinline__ void gradient_columns(const LossParams<A>& p, const T* z,
                                                 const void* target, T* grad, int slice,
                                                 const ColumnShared<A, V>& shared, int place) {
  constexpr int L = V == 1 || !kDense ? kLossUnroll : kLossUnroll / 2;
  A m[V], l[V], total[V], base[V];
  int32_t label[V], partner_label[V];
  bool ignored = false, weighed = false;
#pragma unroll
  for (int e = 0; e < V; ++e) {
    m[e] = shared.m[place + e];
    l[e] = shared.e[place + e];
    total[e] = shared.d[place + e];
    base[e] = shared.weight[place + e];
    label[e] = kDense ? 0 : shared.label[0][place + e];
    partner_label[e] = kDense ? 0 : shared.label[1][place + e];
    ignored = ignored || label[e] == kIgnored;
    weighed = weighed || base[e] != A(0);
  }
  // Where C is 0, in all positions of a sample, class weights that are no number stay out.
  const A* w = weighed ? static_cast<const A*>(p.a.class_weight) : nullptr;
  const auto write = [&](int32_t first, auto number) {
    constexpr int N = decltype(number)::value;
    Vec<T, V> part[N];
#pragma unroll
    for (int u = 0; u < N; ++u) {
      part[u] = load_once<V>(z + (first + u * p.slices) * p.a.logits_at.classes);
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
      store_once(grad + k * p.a.grad_at.classes, packed(rounded));
    }
  };
  const int32_t classes = static_cast<int32_t>(p.a.classes);
  int32_t k = slice;
  for (; k + (L - 1) * p.slices < classes; k += L * p.slices) write(k, Constant<L>());
  for (; k < classes; k += p.slices) write(k, Constant<1>());
}

}  // namespace fused_mixup
