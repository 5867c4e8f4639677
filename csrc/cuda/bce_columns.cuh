// Soft-target binary cross-entropy where positions are adjacent, as in contiguous [B, K, d1…]. A
// thread walks a vector of positions through the classes, or through every slices-th class, with no
// transposed copy. Device memory per element as in bce_rows.cuh. Vectors have 8 bytes of half
// logits, as the state of eight positions would not fit the registers.
#pragma once

#include "bce_args.cuh"

namespace fused_mixup {

constexpr int kBinaryWidth = 4;  // positions

template <typename T, int V, bool kFocal>
__global__ void __launch_bounds__(kColumnThreads, 5)  // 96 registers
    binary_column_kernel(const __grid_constant__ BinaryParams<typename Number<T>::Acc> p) {
  using A = typename Number<T>::Acc;
  const int lanes = kColumnThreads / p.slices;
  const int slice = static_cast<int>(threadIdx.x) / lanes;
  const int64_t per_sample = p.a.positions / V, vectors = p.a.batch * per_sample;
  int64_t v = static_cast<int64_t>(blockIdx.x) * lanes + threadIdx.x - slice * lanes;
  const bool live = v < vectors;
  if (!live) v = 0;  // has no classes, and stays for the barrier of the sum
  const int64_t b = quotient(v, per_sample), s = (v - b * per_sample) * V;
  const T* z = start<T>(p.a.logits, p.a.logits_at, b, s);
  T* grad = const_cast<T*>(start<T>(p.a.grad, p.a.grad_at, b, s));
  const bool wants_grad = p.a.grad != nullptr;
  const void* target = p.a.target != nullptr ? dense_start<T>(p.a, b, s) : nullptr;
  BinaryLabels labels[V] = {};
#pragma unroll
  for (int e = 0; e < V; ++e) {
    const int64_t r = b * p.a.positions + s + e;
    if (target != nullptr) continue;
    labels[e] = BinaryLabels(p.a.labels[r], p.a.partner_labels[r], p.a.classes);
  }
  const LabelWeights<A> weights(p.a.weight, p.a.weight_row, target == nullptr ? b : 0);
  const BinaryTarget<A> sparse(p, weights.own, weights.other);
  A scale[V];
  // A few thousand classes are added: float32 would lose digits.
  double sums[V];
#pragma unroll
  for (int e = 0; e < V; ++e) {
    scale[e] = wants_grad ? binary_scale(p, b, s + e, 0) : A(1);
    sums[e] = 0.0;
  }

  // 1. The elements. A thread reads each before it writes: the gradient may replace the logits.
  const auto take = [&](int32_t k, const Vec<T, V>& part) {
    const Elements<T, V> values = elements(part);
    Elements<A, V> t;
    if (target != nullptr) {
      const int64_t at = k * p.a.target_at.classes;
      if constexpr (V == 1) {
        t.e[0] = dense_value<T, A>(p.a, target, at);
      } else {
        t = dense_values<T, V, A>(p.a, target, at);
      }
#pragma unroll
      for (int e = 0; e < V; ++e) t.e[e] = apply_threshold(p, t.e[e]);
    } else {
#pragma unroll
      for (int e = 0; e < V; ++e) t.e[e] = labels[e].at(sparse, k);
    }
    Elements<T, V> out = {};
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const A x = Number<T>::up(values.e[e]), small = exp_of<T>(-fabs(x));
      const BinaryTerm<A> element(p.a, k, t.e[e]);
      if (p.a.forward) {
        const A loss = element.template loss<T, kFocal>(x, small, p.gamma);
        sums[e] += static_cast<double>(loss);
        if (V == 1 && p.a.element_losses != nullptr) {
          static_cast<A*>(p.a.element_losses)[(b * p.a.classes + k) * p.a.positions + s] = loss;
        }
      }
      if (wants_grad) {
        if (V == 1 && p.a.grad_loss_at.classes != 0) scale[e] = binary_scale(p, b, s, k);
        out.e[e] = Number<T>::down(scale[e] * element.template slope<T, kFocal>(x, small, p.gamma));
      }
    }
    if (wants_grad) store_once(grad + k * p.a.grad_at.classes, packed(out));
  };
  const int32_t classes = live ? static_cast<int32_t>(p.a.classes) : 0, step = p.slices;
  constexpr int L = sizeof(T) == 2 ? 2 * kLossUnroll : kLossUnroll;
  int32_t k = slice;
  for (; k + (L - 1) * step < classes; k += L * step) {
    Vec<T, V> part[L];
#pragma unroll
    for (int u = 0; u < L; ++u) {
      part[u] = load_once<V>(z + (k + u * step) * p.a.logits_at.classes);
    }
#pragma unroll
    for (int u = 0; u < L; ++u) take(k + u * step, part[u]);
  }
  for (; k < classes; k += step) take(k, load_once<V>(z + k * p.a.logits_at.classes));
  if (!p.a.forward) return;

  // 2. The losses of the positions (row_losses has one slice, which holds whole sums), then the sum
  // of the block.
  double total = 0.0;
#pragma unroll
  for (int e = 0; e < V; ++e) {
    total += sums[e];
    if (p.a.row_losses != nullptr && live) {
      static_cast<A*>(p.a.row_losses)[b * p.a.positions + s + e] = static_cast<A>(sums[e]);
    }
  }
  if (p.a.partials != nullptr) finish_sums(p.a.partials, p.a.ticket, p.result, {total, 0.0});
}

}  // namespace fused_mixup
