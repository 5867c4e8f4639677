// Soft-target binary cross-entropy of rows whose classes are adjacent: a warp or a block takes a
// row. Rows with classes elsewhere are served too, element by element.
//
// Fused: the target's construction, threshold, softplus, weights, sums; the gradient. Device memory
// per element, N bytes of logits (a dense target comes on top): N for the loss, 2N with a gradient.
// One sweep makes both, as loss and gradient of an element depend on no other element. Where every
// element has its own loss, which is written in the arithmetic type, elements are read one by one.
#pragma once

#include "bce_args.cuh"

namespace fused_mixup {

template <typename T, bool kFocal>
__global__ void __launch_bounds__(kRowThreads<T>, 1)
    binary_row_kernel(const __grid_constant__ BinaryParams<typename Number<T>::Acc> p) {
  using A = typename Number<T>::Acc;
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  constexpr int L = kLossUnroll / 2;
  const bool warp_row = p.threads_per_row == 32;
  int64_t r = warp_row ? static_cast<int64_t>(blockIdx.x) * kWarpRows + threadIdx.x / 32
                       : static_cast<int64_t>(blockIdx.x);
  const bool live = r < p.a.rows();
  if (!live) r = 0;  // a warp without a row stays, as a barrier follows
  const int64_t b = quotient(r, p.a.positions), s = r - b * p.a.positions;
  const T* z = start<T>(p.a.logits, p.a.logits_at, b, s);
  T* grad = const_cast<T*>(start<T>(p.a.grad, p.a.grad_at, b, s));
  const bool wants_grad = p.a.grad != nullptr;
  const void* target = p.a.target != nullptr ? dense_start<T>(p.a, b, s) : nullptr;
  const int32_t classes = live ? static_cast<int32_t>(p.a.classes) : 0;
  const int tid = warp_row ? static_cast<int>(threadIdx.x) % 32 : static_cast<int>(threadIdx.x);
  const int threads = p.threads_per_row;
  const bool adjacent = !p.a.per_element() && (!wants_grad || p.a.grad_at.classes == 1);
  const RowVectors vectors = row_vectors(p.a, z, target, classes, adjacent);
  const bool grad_aligned = row_aligned(grad + vectors.head);
  BinaryLabels labels = {};
  if (target == nullptr) labels.open(p, r);
  const BinaryTarget<A> sparse(p, target == nullptr ? b : 0);
  A sum = A(0);

  // 1. The elements. A thread reads each before it writes: the gradient may replace the logits.
  const int32_t singles = vectors.head + classes - vectors.tail;
  for (int32_t i = tid; i < singles; i += threads) {
    const int32_t k = single_element(vectors, i);
    const A x = Number<T>::up(z[k * p.a.logits_at.classes]), small = exp_of<T>(-fabs(x));
    A t = labels.at(sparse, k);
    if (target != nullptr) {
      t = apply_threshold(p, dense_value<T, A>(p.a, target, k * p.a.target_at.classes));
    }
    const BinaryTerm<A> element(p.a, k, t);
    if (p.a.forward) {
      const A loss = element.template loss<T, kFocal>(x, small, p.gamma);
      sum += loss;
      if (p.a.element_losses != nullptr) {
        static_cast<A*>(p.a.element_losses)[(b * p.a.classes + k) * p.a.positions + s] = loss;
      }
    }
    if (wants_grad) {
      const A scale = binary_scale(p, b, s, k);
      grad[k * p.a.grad_at.classes] =
          Number<T>::down(scale * element.template slope<T, kFocal>(x, small, p.gamma));
    }
  }
  const A scale = vectors.count > 0 && wants_grad ? binary_scale(p, b, s, 0) : A(1);
  for (int32_t first = tid; first < vectors.count; first += L * threads) {
    Vec<T, V> part[L];
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int32_t v = first + u * threads;
      if (v < vectors.count) part[u] = load<V>(z + vectors.head + v * V);
    }
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int32_t v = first + u * threads;
      if (v >= vectors.count) continue;
      const int32_t k = vectors.head + v * V;
      const Elements<T, V> values = elements(part[u]);
      Elements<A, V> t;
      if (target != nullptr) {
        t = dense_values<T, V, A>(p.a, target, k);
#pragma unroll
        for (int e = 0; e < V; ++e) t.e[e] = apply_threshold(p, t.e[e]);
      } else {
        // Few vectors hold a true class; the others skip the comparisons.
        const bool near = labels.near(k, V);
#pragma unroll
        for (int e = 0; e < V; ++e) t.e[e] = near ? labels.at(sparse, k + e) : sparse.elsewhere;
      }
      Elements<T, V> out = {};
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const A x = Number<T>::up(values.e[e]), small = exp_of<T>(-fabs(x));
        const BinaryTerm<A> element(p.a, k + e, t.e[e]);
        if (p.a.forward) sum += element.template loss<T, kFocal>(x, small, p.gamma);
        if (wants_grad)
          out.e[e] = Number<T>::down(scale * element.template slope<T, kFocal>(x, small, p.gamma));
      }
      if (wants_grad) store_any(grad + k, out, grad_aligned);
    }
  }
  if (!p.a.forward) return;

  // 2. The row's loss, then the block's.
  double total = static_cast<double>(sum);
  if (warp_row) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) total += __shfl_xor_sync(0xffffffffu, total, lane);
    if (p.a.row_losses != nullptr && tid == 0 && live) {
      static_cast<A*>(p.a.row_losses)[r] = static_cast<A>(total);
    }
    if (tid != 0) total = 0.0;
  }
  const LossSum all = block_sum({total, 0.0});
  if (threadIdx.x != 0) return;
  if (!warp_row && p.a.row_losses != nullptr) {
    static_cast<A*>(p.a.row_losses)[r] = static_cast<A>(all.loss);
  }
  if (p.a.partials != nullptr) p.a.partials[blockIdx.x] = all;
}

}  // namespace fused_mixup
