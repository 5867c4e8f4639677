// mix_targets: dense soft labels of a mixed batch.
//
//   out[b, k, r] = Σ_s w_bs ((1-ε) [label_s == k] + ε/K),   label_0 = labels[b, r],
//                                                           label_1 = labels[partner_b, r]
// Fused: two one-hot encodings, smoothing, the gather of the partner's label, two products, sum,
// rounding. Read: two labels and two weights per row, from cache. Written: each element once, 16
// bytes per thread. A label outside [0, K) makes its column NaN.
#pragma once

#include "../common/layout.h"
#include "label_weights.cuh"
#include "vec.cuh"

namespace fused_mixup {

struct TargetArgs {
  DType dtype;            // type of out
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
    const LabelWeights<A> weights(a.weight, a.weight_row, b);
    w0 = weights.own;
    w1 = weights.other;
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
  // These divisions run once per 16 bytes; in most outputs they are 32-bit divisions.
  const int64_t column = quotient(n, p.a.rest);
  int64_t r = n - column * p.a.rest;
  int64_t b = quotient(column, p.a.classes);
  int64_t k = column - b * p.a.classes;
  TargetColumn<A> pair(p.a, b, r);
  Elements<T, V> out;
  const int valid = p.total - n < V ? static_cast<int>(p.total - n) : V;
#pragma unroll
  for (int e = 0; e < V; ++e) {
    if (e < valid) {
      const A sum = add(term(pair.w0, k == pair.label ? p.on : p.off),
                        term(pair.w1, k == pair.partner_label ? p.on : p.off));
      out.e[e] = Number<T>::down(pair.valid ? sum : static_cast<A>(NAN));
    }
    // A vector may run into the next class, or into the next sample.
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
    if (moved || p.a.rest > 1) pair = TargetColumn<A>(p.a, b, r);
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
  const SmoothedOneHot value(a.label_smoothing, a.classes);
  p.off = static_cast<A>(value.off);
  p.on = static_cast<A>(value.on);
  p.total = a.batch * a.classes * a.rest;
  const int64_t blocks = (p.total + kTargetThreads * V - 1) / (kTargetThreads * V);
  return launch(targets_kernel<T>, blocks, dim3(kTargetThreads), 0, a.stream, p);
}

inline cudaError_t mix_targets(const TargetArgs& a) {
  if (a.batch == 0 || a.classes <= 0 || a.rest == 0) return cudaSuccess;
  return with_floating(a.dtype, [&](auto t) { return targets_typed<decltype(t)>(a); });
}

}  // namespace fused_mixup
