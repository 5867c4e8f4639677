// mix_targets: dense soft labels of a mixed batch.
//
//   out[b, k, r] = Σ_s w_bs ((1-ε) [label_s == k] + ε/K),   label_0 = labels[b, r],
//                                                           label_1 = labels[partner_b, r]
// Fused: two one-hot encodings, smoothing, the partner's gather, two products, sum, round.
// Read: two labels and two weights per row, from cache; written: each element once, 16 bytes per
// thread. A label outside [0, K) makes its column NaN.
#pragma once

#include "../common/layout.h"
#include "vec.cuh"

namespace fused_mixup {

struct TargetArgs {
  DType dtype;            // of out
  void* out;              // [B, K, R] contiguous, 16-byte aligned
  const int64_t* labels;  // device [B, R]
  int64_t batch, classes, rest;
  int pairing;
  const int32_t* partner;  // device [B], for kTensor
  const float* weight;     // device [B, 2], or null: weight_row serves all
  float weight_row[2];
  double label_smoothing;
  cudaStream_t stream;
};

template <typename A>
struct TargetParams {
  TargetArgs a;
  A on, off;
  int64_t total;
};

constexpr int kTargetThreads = 256;

template <typename A>
struct TargetColumn {  // what all classes of (b, r) share
  int64_t label, partner_label;
  A w0, w1;
  bool valid;

  __device__ __forceinline__ TargetColumn(const TargetArgs& a, int64_t b, int64_t r) {
    const int64_t j = partner_of(a.pairing, a.partner, b, a.batch);
    label = a.labels[b * a.rest + r];
    partner_label = a.labels[j * a.rest + r];
    w0 = static_cast<A>(a.weight != nullptr ? a.weight[2 * b] : a.weight_row[0]);
    w1 = static_cast<A>(a.weight != nullptr ? a.weight[2 * b + 1] : a.weight_row[1]);
    valid = label >= 0 && label < a.classes && partner_label >= 0 && partner_label < a.classes;
  }
};

template <typename T>
__global__ void __launch_bounds__(kTargetThreads)
    targets_kernel(const __grid_constant__ TargetParams<typename Number<T>::Acc> p) {
  using A = typename Number<T>::Acc;
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * V;
  if (n >= p.total) return;
  // Once per 16 bytes written. Most outputs are small enough for 32-bit division.
  const int64_t column = quotient(n, p.a.rest);
  int64_t r = n - column * p.a.rest;
  int64_t b = quotient(column, p.a.classes);
  int64_t k = column - b * p.a.classes;
  TargetColumn<A> of(p.a, b, r);
  Elements<T, V> out;
  const int valid = p.total - n < V ? static_cast<int>(p.total - n) : V;
#pragma unroll
  for (int e = 0; e < V; ++e) {
    if (e < valid) {
      const A sum = add(term(of.w0, k == of.label ? p.on : p.off),
                        term(of.w1, k == of.partner_label ? p.on : p.off));
      out.e[e] = Number<T>::down(of.valid ? sum : static_cast<A>(NAN));
    }
    // A vector may run into the next class, and the next sample: carry.
    if (e + 1 >= valid) continue;
    bool moved = false;
    if (++r == p.a.rest) {
      r = 0;
      if (++k == p.a.classes) {
        k = 0;
        ++b;
        moved = true;
      }
    }
    if (moved || p.a.rest > 1) of = TargetColumn<A>(p.a, b, r);
  }
  T* to = static_cast<T*>(p.a.out) + n;
  if (valid == V) {
    store(to, packed(out));
    return;
  }
#pragma unroll
  for (int e = 0; e < V; ++e) {
    if (e < valid) to[e] = out.e[e];
  }
}

template <typename T>
cudaError_t targets_typed(const TargetArgs& a) {
  using A = typename Number<T>::Acc;
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  TargetParams<A> p;
  p.a = a;
  const double off = a.label_smoothing / static_cast<double>(a.classes);
  p.off = static_cast<A>(off);
  p.on = static_cast<A>(1.0 - a.label_smoothing + off);
  p.total = a.batch * a.classes * a.rest;
  const int64_t blocks = (p.total + kTargetThreads * V - 1) / (kTargetThreads * V);
  return launch(targets_kernel<T>, blocks, dim3(kTargetThreads), 0, a.stream, p);
}

inline cudaError_t mix_targets(const TargetArgs& a) {
  if (a.batch == 0 || a.classes <= 0 || a.rest == 0) return cudaSuccess;
  switch (a.dtype) {
    case kHalf:
      return targets_typed<__half>(a);
    case kBFloat16:
      return targets_typed<__nv_bfloat16>(a);
    case kFloat:
      return targets_typed<float>(a);
    case kDouble:
      return targets_typed<double>(a);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace fused_mixup
