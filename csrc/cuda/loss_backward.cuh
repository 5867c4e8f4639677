// Backward of the soft-target cross-entropy: one sweep.
//
//   d loss / d z_k = scale (S p_k - t_k),   p_k = exp((z_k - m) - l),   S = Σ t
//
// Read per element: the logit once (and a dense target once); m, l and S come from the forward.
// Written: the gradient once. Every entry, those of the true classes included, is
// computed from scratch in float32 and rounded once.
#pragma once

#include "loss_rows.cuh"

namespace fused_mixup {

// Two blocks of 512 threads leave a thread 64 registers, which hold four loads under way. The 1
// lets doubles have 128: in 64 they spill.
template <typename T, typename U, bool kDense>
__global__ void __launch_bounds__(kLossThreads, sizeof(T) == 8 ? 1 : 2)
    loss_backward_kernel(const __grid_constant__ LossParams<typename Number<T>::Acc> p) {
  using A = typename Number<T>::Acc;
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  const bool warp_row = p.threads_per_row == 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t b = warp_row ? static_cast<int64_t>(blockIdx.x) * kWarpRows + warp : blockIdx.x;
  if (b >= p.a.batch) return;
  const int tid = warp_row ? lane : static_cast<int>(threadIdx.x);
  const int threads = p.threads_per_row;
  const T* z = static_cast<const T*>(p.a.logits) + b * p.a.row_stride;
  T* grad = static_cast<T*>(p.a.grad) + b * p.a.grad_row_stride;
  const U* t = kDense ? static_cast<const U*>(p.a.target) + b * p.a.target_row_stride : nullptr;
  // Vectors only where both sides have neighbours.
  const RowCut cut =
      cut_row(z, p.a.classes, p.a.column_stride == 1 ? p.a.grad_column_stride : int64_t{0});
  const bool grad_aligned = row_aligned(grad + cut.head);
  const bool t_near = p.a.target_column_stride == 1;
  const bool t_aligned = kDense && t_near && row_aligned(t + cut.head);
  const auto target_of = [&](U raw) {
    const A value = static_cast<A>(Number<U>::up(raw));
    return p.total == A(0) ? value : p.keep * value + p.per_class;
  };

  // 1. What the row's entries share. S comes from the forward, NaN for a label out of range; the
  // labels are looked at again, for stats may come from elsewhere.
  const A* stats = static_cast<const A*>(p.a.stats) + 3 * b;
  const A m = stats[0], l = stats[1];
  A sum = stats[2], c = A(0), a0 = A(0), a1 = A(0);
  int64_t y0 = -1, y1 = -1;
  if constexpr (!kDense) {
    const SparseRow<A> row(p, b);
    if (!row.valid) sum = static_cast<A>(NAN);
    c = row.c;
    a0 = row.a0;
    a1 = row.a1;
    y0 = row.label;
    y1 = row.partner_label;
  }
  const A* grad_loss = static_cast<const A*>(p.a.grad_loss);
  A scale = grad_loss[p.a.reduction == kNone ? b * p.a.grad_loss_stride : 0];
  if (p.a.reduction == kMean) scale /= static_cast<A>(p.a.batch);
  const auto entry = [&](T value, A target) {
    const A prob = exp_of<T>((Number<T>::up(value) - m) - l);
    return Number<T>::down(scale * (sum * prob - target));
  };

  // 2. The gradient.
  const int64_t singles = cut.head + p.a.classes - cut.tail;
  for (int64_t s = tid; s < singles; s += threads) {
    const int64_t k = single_element(cut, s);
    A target = c;
    if constexpr (kDense) {
      target = target_of(t[k * p.a.target_column_stride]);
    } else {
      if (k == y0) target += a0;
      if (k == y1) target += a1;  // equal labels: the weights add
    }
    grad[k * p.a.grad_column_stride] = entry(z[k * p.a.column_stride], target);
  }
  // A dense target is read beside the logits, and doubles have no registers for more.
  constexpr int L = kDense || sizeof(T) == 8 ? kLossUnroll / 2 : kLossUnroll;
  for (int64_t first = tid; first < cut.vectors; first += L * threads) {
    Vec<T, V> part[L];
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int64_t v = first + u * threads;
      if (v < cut.vectors) part[u] = load<V>(z + cut.head + v * V);
    }
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int64_t v = first + u * threads;
      if (v >= cut.vectors) continue;
      const int64_t k = cut.head + v * V;
      const Elements<T, V> value = elements(part[u]);
      Elements<T, V> out;
      if constexpr (kDense) {
        Elements<U, V> target;
        if (t_near) {
          target = load_any<V>(t + k, t_aligned);
        } else {
#pragma unroll
          for (int e = 0; e < V; ++e) target.e[e] = t[(k + e) * p.a.target_column_stride];
        }
#pragma unroll
        for (int e = 0; e < V; ++e) out.e[e] = entry(value.e[e], target_of(target.e[e]));
      } else {
        // Few vectors hold a true class: the others skip the comparisons.
        const int64_t h0 = y0 - k, h1 = y1 - k;
        if ((h0 >= 0 && h0 < V) || (h1 >= 0 && h1 < V)) {
#pragma unroll
          for (int e = 0; e < V; ++e) {
            A target = c;
            if (h0 == e) target += a0;
            if (h1 == e) target += a1;
            out.e[e] = entry(value.e[e], target);
          }
        } else {
#pragma unroll
          for (int e = 0; e < V; ++e) out.e[e] = entry(value.e[e], c);
        }
      }
      if (grad_aligned) {
        store(grad + k, packed(out));
      } else {
#pragma unroll
        for (int e = 0; e < V; ++e) grad[k + e] = out.e[e];
      }
    }
  }
}

template <typename T, typename U>
cudaError_t loss_backward_typed(const LossArgs& a) {
  using A = typename Number<T>::Acc;
  if (a.batch == 0 || a.classes == 0) return cudaSuccess;
  const int threads = threads_per_row(a.classes, sizeof(T));
  const LossParams<A> p = loss_params<A>(a, threads);
  const int64_t blocks = threads == 32 ? (a.batch + kWarpRows - 1) / kWarpRows : a.batch;
  const dim3 grid(static_cast<unsigned>(blocks));
  const dim3 block(threads == 32 ? 32 * kWarpRows : threads);
  if (a.target != nullptr) {
    return launch(loss_backward_kernel<T, U, true>, grid, block, 0, a.stream, p);
  }
  if constexpr (sizeof(T) == sizeof(U)) {
    return launch(loss_backward_kernel<T, U, false>, grid, block, 0, a.stream, p);
  }
  return cudaErrorInvalidValue;
}

}  // namespace fused_mixup
