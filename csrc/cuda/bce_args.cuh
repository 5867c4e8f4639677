// What the kernels of the soft-target binary cross-entropy share.
//
//   loss = w_c [(1-t) x + P softplus(-x)],   d/dx = w_c [(1-t) - P σ(-x)],   P = 1 + (q_c - 1) t
//
// With e = exp(-|x|) that is, without a difference of nearly equal numbers on either side of 0,
//   loss / w_c = P log1p(e) + (x < 0 ? q_c t (-x) : (1-t) x)
//   d/dx / w_c = x < 0 ? P e / (1 + e) - q_c t : (1-t) - P e / (1 + e)
// With γ, s = softplus(-x) and (1 - σ)^γ = exp(-γ softplus(x)):
//   F(x) = (1 - σ)^γ s,   F'(x) = -(1 - σ)^γ (γ σ s + 1 - σ)
//   loss / w_c = q_c t F(x) + (1-t) F(-x),   d/dx / w_c = q_c t F'(x) - (1-t) F'(-x)
// A sparse target is t_c = Σ_k w_k ((1-ts) [y_k == c] + ts/K): one number for all classes but the
// labels. With a threshold t becomes 1 where it is above, else 0.
#pragma once

#include "loss_reduce.cuh"
#include "loss_schedule.cuh"

namespace fused_mixup {

struct BinaryArgs : CallArgs {
  const void* pos_weight;  // arithmetic type [K], or null
  bool has_threshold;
  double threshold, focal_gamma;
  void* element_losses;  // arithmetic type [B, K, S] contiguous, or null
  double divisor;        // what a mean divides by, else 1

  // Whether single elements have a loss, or an upstream gradient: then no vectors are read.
  FUSED_MIXUP_HOST_DEVICE bool per_element() const {
    return element_losses != nullptr || grad_loss_at.classes != 0;
  }
};

template <typename A>
struct BinaryParams {
  BinaryArgs a;
  Total result;
  A on, off;  // 1 - ts + ts/K; ts/K
  A threshold, divisor, gamma;
  int threads_per_row;  // for rows: 32, or blockDim.x
  int slices;           // for columns: threads that share a vector of positions
};

template <typename A>
BinaryParams<A> binary_params(const BinaryArgs& a) {
  BinaryParams<A> p = {};
  const SmoothedOneHot value(a.target_smoothing, a.classes);
  p.a = a;
  p.result = {sizeof(A) == 8, a.divisor, a.loss, nullptr};
  p.on = static_cast<A>(value.on);
  p.off = static_cast<A>(value.off);
  p.threshold = static_cast<A>(a.threshold);
  p.divisor = static_cast<A>(a.divisor);
  p.gamma = static_cast<A>(a.focal_gamma);
  return p;
}

// log1p(x) for x in [0, 1]: x times a polynomial fitted to log1p(x) / x at Chebyshev's points.
// Degree 6 has a relative error of at most 1.5e-6, far below a half logit's rounding; degree 9,
// of 1.5e-7.
template <typename T>
__device__ __forceinline__ float log1p_of(float x) {
  if constexpr (sizeof(T) == 2) {
    float sum = 0.013874484226107597f;
    sum = sum * x - 0.06559030711650848f;
    sum = sum * x + 0.148294135928154f;
    sum = sum * x - 0.23454520106315613f;
    sum = sum * x + 0.3309752643108368f;
    sum = sum * x - 0.4998590052127838f;
    return x * (sum * x + 0.9999985694885254f);
  }
  float sum = -0.0031760570127516985f;
  sum = sum * x + 0.019542526453733444f;
  sum = sum * x - 0.056373611092567444f;
  sum = sum * x + 0.10543623566627502f;
  sum = sum * x - 0.1526966691017151f;
  sum = sum * x + 0.1966327428817749f;
  sum = sum * x - 0.24951615929603577f;
  sum = sum * x + 0.33329710364341736f;
  sum = sum * x - 0.49999892711639404f;
  return x * (sum * x + 1.0f);
}
template <typename T>
__device__ __forceinline__ double log1p_of(double x) {
  return log1p(x);
}

template <typename T>
__device__ __forceinline__ float inverse_of(float x) {
  if constexpr (sizeof(T) == 2) return fast_inverse(x);
  return 1.0f / x;
}
template <typename T>
__device__ __forceinline__ double inverse_of(double x) {
  return 1.0 / x;
}

// softplus(x) with e = exp(-|x|).
template <typename T, typename A>
__device__ __forceinline__ A softplus(A x, A e) {
  return log1p_of<T>(e) + (x > A(0) ? x : A(0));
}

// The loss of an element x and its slope, with e = exp(-|x|).
template <typename A>
struct BinaryTerm {
  A w, p, toward, away;  // w_c; P; q_c t, which pulls x up; 1 - t, which pulls it down

  __device__ __forceinline__ BinaryTerm(const BinaryArgs& a, int32_t k, A t)
      : w(1), p(1), toward(t), away(A(1) - t) {
    if (a.class_weight != nullptr) w = static_cast<const A*>(a.class_weight)[k];
    if (a.pos_weight != nullptr) {
      toward = static_cast<const A*>(a.pos_weight)[k] * t;
      p = away + toward;
    }
  }

  template <typename T, bool kFocal>
  __device__ __forceinline__ A loss(A x, A e, A gamma) const {
    if constexpr (kFocal) {
      const A s = softplus<T>(-x, e), other = softplus<T>(x, e);
      return w * (toward * exp_of<T>(-gamma * other) * s + away * exp_of<T>(-gamma * s) * other);
    }
    return w * (p * log1p_of<T>(e) + (x < A(0) ? -x * toward : x * away));
  }
  template <typename T, bool kFocal>
  __device__ __forceinline__ A slope(A x, A e, A gamma) const {
    if constexpr (kFocal) {
      const A s = softplus<T>(-x, e), other = softplus<T>(x, e), inverse = inverse_of<T>(A(1) + e);
      const A sigmoid = (x < A(0) ? e : A(1)) * inverse, rest = (x < A(0) ? A(1) : e) * inverse;
      return w * (away * exp_of<T>(-gamma * s) * (gamma * rest * other + sigmoid) -
                  toward * exp_of<T>(-gamma * other) * (gamma * sigmoid * s + rest));
    }
    const A pulled = p * (e * inverse_of<T>(A(1) + e));
    return w * (x < A(0) ? pulled - toward : away - pulled);
  }
};

template <typename A>
__device__ __forceinline__ A apply_threshold(const BinaryParams<A>& p, A t) {
  if (!p.a.has_threshold) return t;
  return t > p.threshold ? A(1) : A(0);
}

// The values of a sparse target in the rows of a sample: at no label, at either label, at both.
template <typename A>
struct BinaryTarget {
  A elsewhere, own, other, both;

  __device__ __forceinline__ BinaryTarget(const BinaryParams<A>& p, A w0, A w1) {
    elsewhere = apply_threshold(p, add(term(w0, p.off), term(w1, p.off)));
    own = apply_threshold(p, add(term(w0, p.on), term(w1, p.off)));
    other = apply_threshold(p, add(term(w0, p.off), term(w1, p.on)));
    both = apply_threshold(p, add(term(w0, p.on), term(w1, p.on)));
  }
};

// The labels of a row; kPoisoned where one of them is no class.
struct BinaryLabels {
  static constexpr int32_t kPoisoned = -1;
  int32_t own, other;

  BinaryLabels() = default;
  __device__ __forceinline__ BinaryLabels(int64_t y0, int64_t y1, int64_t classes) {
    const bool valid = y0 >= 0 && y0 < classes && y1 >= 0 && y1 < classes;
    own = valid ? static_cast<int32_t>(y0) : kPoisoned;
    other = static_cast<int32_t>(y1);
  }
  // Whether t may differ from `elsewhere` in the `count` classes from k on.
  __device__ __forceinline__ bool near(int32_t k, int32_t count) const {
    const int32_t h0 = own - k, h1 = other - k;
    return (h0 >= 0 && h0 < count) || (h1 >= 0 && h1 < count) || own == kPoisoned;
  }
  template <typename A>
  __device__ __forceinline__ A at(const BinaryTarget<A>& t, int32_t k) const {
    const A value = own == k ? (other == k ? t.both : t.own) : other == k ? t.other : t.elsewhere;
    return own == kPoisoned ? static_cast<A>(NAN) : value;
  }
};

// The upstream gradient of an element's loss, or of its row's, divided by the divisor.
template <typename A>
__device__ __forceinline__ A binary_scale(const BinaryParams<A>& p, int64_t b, int64_t s,
                                          int32_t k) {
  if (p.a.grad_loss == nullptr) return A(1) / p.divisor;
  const A* given = start<A>(p.a.grad_loss, p.a.grad_loss_at, b, s);
  return given[k * p.a.grad_loss_at.classes] / p.divisor;
}

}  // namespace fused_mixup
