// The sums of a row, and its loss.
//
//   m = max z,  l = log Σ exp(z - m),  T = Σ t,  loss = l T - Σ t (z - m)
//
// and with focal terms or a z-loss as loss_args.cuh says.
//
// The sums are relative to the running maximum and shifted when it rises, so that one sweep is
// enough.
#pragma once

#include "label_ranks.cuh"

namespace fused_mixup {

// Sums over part of a row, relative to its maximum m. While m is -inf every exp(z - m) counts 0.
template <typename A>
struct Partial {
  A m, e;    // max, Σ exp(z - m)
  A d;       // Σ t (z - m), terms with t = 0 dropped; t is the dense target, or the class weight
  A weight;  // Σ t, likewise

  __device__ __forceinline__ Partial() : m(-INFINITY), e(0), d(0), weight(0) {}

  // Raises the maximum. At -inf there is nothing to shift, and inf - inf would be NaN.
  template <typename T>
  __device__ __forceinline__ void raise(A to) {
    if (!(to > m)) return;
    if (m != A(-INFINITY)) {
      const A shift = m - to;
      e *= exp_of<T>(shift);
      if (weight != A(0)) d += weight * shift;
    }
    m = to;
  }

  // raise() without a branch, for threads that hold the sums of several rows.
  template <typename T>
  __device__ __forceinline__ void raise_flat(A to, bool weighed) {
    const A top = to > m ? to : m;
    const A shift = nothing_yet() ? A(0) : m - top;
    e *= exp_of<T>(shift);
    if (weighed) d += weight * shift;
    m = top;
  }

  // Whether all values so far are -inf or NaN.
  __device__ __forceinline__ bool nothing_yet() const { return m == A(-INFINITY); }
  // -inf - -inf would be NaN; exp(-inf) is 0.
  __device__ __forceinline__ A base() const { return nothing_yet() ? A(0) : m; }

  // After raise() to a maximum that is no less than z.
  template <typename T>
  __device__ __forceinline__ void take(A z) {
    e += exp_of<T>(z - base());
  }

  __device__ __forceinline__ void weigh(A z, A t) {
    d += t == A(0) ? A(0) : t * (z - base());
    weight += t;
  }

  template <typename T>
  __device__ __forceinline__ void merge(Partial other) {
    const A top = m > other.m ? m : other.m;
    raise<T>(top);
    other.raise<T>(top);
    e += other.e;
    d += other.d;
    weight += other.weight;
  }

  // All lanes of a warp call this together. Every lane ends with the warp's sums, as each xor pairs
  // it with a lane whose sums it does not have yet. weighed: d and weight are in use.
  template <typename T>
  __device__ __forceinline__ void merge_warp(bool weighed) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) {
      Partial other;
      other.m = __shfl_xor_sync(0xffffffffu, m, lane);
      other.e = __shfl_xor_sync(0xffffffffu, e, lane);
      if (weighed) {
        other.d = __shfl_xor_sync(0xffffffffu, d, lane);
        other.weight = __shfl_xor_sync(0xffffffffu, weight, lane);
      }
      merge<T>(other);
    }
  }

  // A row of -inf alone has the maximum -inf and becomes NaN, as in F.cross_entropy.
  __device__ __forceinline__ A log_sum() const {
    return nothing_yet() ? static_cast<A>(NAN) : static_cast<A>(log(e));
  }
};

// T of a row with the sparse target `row`, after weigh_labels(). C multiplies Σ of all class
// weights, which the sweep has taken where C may differ from 0.
template <typename A>
__device__ __forceinline__ A total_of(const LossParams<A>& p, const SparseRow<A>& row,
                                      const Partial<A>& sums) {
  if (!row.valid) return static_cast<A>(NAN);  // poisons the gradient of the row too
  if (row.ignored) return A(0);
  if (p.a.class_weight == nullptr) return row.sum;
  return row.a0 + row.a1 + (row.c == A(0) ? A(0) : row.c * sums.weight);
}

// Adds the z-loss of a row to its loss and to T.
template <typename A>
__device__ __forceinline__ void add_z_loss(const LossParams<A>& p, A m, A l, A& loss, A& total) {
  if (p.z_loss == A(0)) return;
  const A log_z = m + l;
  loss += p.z_loss * log_z * log_z;
  total += A(2) * p.z_loss * log_z;
}

// The focal terms of a row's labels, whose coefficients stand in `row`: multiplies these by h(p),
// as the gradient takes them, and returns the loss. m + l of the row may be NaN; then all are.
template <typename T, typename A>
__device__ __forceinline__ A focal_loss(const LossParams<A>& p, SparseRow<A>& row, A m, A l,
                                        const T* z) {
  A loss = A(0) * l;
  if (!row.valid) return static_cast<A>(NAN);
  if (row.a0 != A(0)) {
    const A value = Number<T>::up(z[row.label * p.a.logits_at.classes]);
    const FocalTerm<A> term(p.gamma, (value - m) - l);
    loss += row.a0 * term.loss;
    row.a0 *= term.slope;
  }
  if (row.a1 != A(0)) {
    const A value = Number<T>::up(z[row.partner_label * p.a.logits_at.classes]);
    const FocalTerm<A> term(p.gamma, (value - m) - l);
    loss += row.a1 * term.loss;
    row.a1 *= term.slope;
  }
  return loss;
}

template <typename T, typename A>
__device__ __forceinline__ A sparse_loss(const LossParams<A>& p, const SparseRow<A>& row,
                                         const Partial<A>& sums, A l, A total, const T* z) {
  if (!row.valid || row.ignored) return total;
  A dot = A(0);
  if (row.a0 != A(0)) {
    dot += row.a0 * (Number<T>::up(z[row.label * p.a.logits_at.classes]) - sums.m);
  }
  if (row.a1 != A(0)) {
    dot += row.a1 * (Number<T>::up(z[row.partner_label * p.a.logits_at.classes]) - sums.m);
  }
  if (row.c != A(0)) dot += row.c * sums.d;
  return l * total - dot;
}

}  // namespace fused_mixup
