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
  const bool wants_grad = p.a.grad != nullptr, is_sparse = p.a.target == nullptr;
  const bool adjacent = !p.a.per_element() && (!wants_grad || p.a.grad_at.classes == 1);
  const int64_t rows = p.a.rows(), per_block = warp_row ? kWarpRows : 1;
  RowView<T> row;
  row.classes = static_cast<int32_t>(p.a.classes);
  row.tid = warp_row ? static_cast<int>(threadIdx.x) % 32 : static_cast<int>(threadIdx.x);
  row.threads = p.threads_per_row;
  A sum = A(0);
  const int64_t r = blockIdx.x * per_block + (warp_row ? threadIdx.x / 32 : 0);
  const bool live = r < rows;  // of the whole warp
  if (live) {
    const int64_t b = p.a.positions == 1 ? r : quotient(r, p.a.positions);
    const int64_t s = r - b * p.a.positions;
    row.z = start<T>(p.a.logits, p.a.logits_at, b, s);
    row.target = is_sparse ? nullptr : dense_start<T>(p.a, b, s);
    T* grad = const_cast<T*>(start<T>(p.a.grad, p.a.grad_at, b, s));
    const RowVectors vectors = row_vectors(p.a, row.z, row.target, row.classes, adjacent);
    const bool grad_aligned = row_aligned(grad + vectors.head);

    // 1. The elements. A thread reads each before it writes: the gradient may replace the logits.
    RowLabels given = {};
    if (is_sparse) given = RowLabels(p.a, b, r);
    RowStep<T, L> step;
    BinaryLabels labels = {};
    if (is_sparse) labels = BinaryLabels(given.own, given.other, p.a.classes);
    const BinaryTarget<A> sparse(p, given.own_weight, given.other_weight);
    const int32_t singles = vectors.head + row.classes - vectors.tail;
    for (int32_t i = first_single(row); i < singles; i += row.threads) {
      const int32_t k = single_element(vectors, i);
      const A x = Number<T>::up(row.z[k * p.a.logits_at.classes]), small = exp_of<T>(-fabs(x));
      A t = labels.at(sparse, k);
      if (!is_sparse) {
        t = apply_threshold(p, dense_value<T, A>(p.a, row.target, k * p.a.target_at.classes));
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
        grad[k * p.a.grad_at.classes] = Number<T>::down(
            binary_scale(p, b, s, k) * element.template slope<T, kFocal>(x, small, p.gamma));
      }
    }
    const A scale = vectors.count > 0 && wants_grad ? binary_scale(p, b, s, 0) : A(1);
    for (int32_t begin = 0; begin < vectors.count; begin += L * row.threads) {
      step.template load_from<true>(row, vectors, begin + row.tid);
#pragma unroll
      for (int u = 0; u < L; ++u) {
        const int32_t v = begin + row.tid + u * row.threads;
        if (v >= vectors.count) continue;
        const int32_t k = vectors.head + v * V;
        const Elements<T, V> values = elements(step.part[u]);
        Elements<A, V> t;
        if (!is_sparse) {
          t = dense_values<T, V, A>(p.a, row.target, k);
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
          if (wants_grad) {
            out.e[e] =
                Number<T>::down(scale * element.template slope<T, kFocal>(x, small, p.gamma));
          }
        }
        if (wants_grad) store_any(grad + k, out, grad_aligned);
      }
    }
  }
  if (!p.a.forward) return;

  // 2. The row's loss, then the block's.
  double total = static_cast<double>(sum);
  if (warp_row) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) total += __shfl_xor_sync(0xffffffffu, total, lane);
    if (row.tid != 0) total = 0.0;
  }
  if (p.a.row_losses != nullptr) {
    if (!warp_row) total = block_sum({total, 0.0}).loss;
    if (row.tid == 0 && live) static_cast<A*>(p.a.row_losses)[r] = static_cast<A>(total);
  }
  if (p.a.partials != nullptr) finish_sums(p.a.partials, p.a.ticket, p.result, {total, 0.0});
}

}  // namespace fused_mixup
