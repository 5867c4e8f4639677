// scale_: x *= factor, a number on the device. Where it is one, x is neither read nor written.
//
// Every thread first reads the factor, from cache, and returns if it is one. So the host need not
// ask whether the upstream gradient of a gradient that was made with its loss is the assumed one.
#pragma once

#include "geometry.cuh"

namespace fused_mixup {

struct ScaleArgs {
  DType dtype;
  const void* factor;  // arithmetic type []
  Samples samples;     // x on both sides, its first dim as the batch
  cudaStream_t stream;
};

struct ScaleParams {
  void* x;
  const void* factor;
  int64_t vectors, batch_stride;
  bool one_run;        // whether vector v lies at v times its length
  bool narrow;         // whether there are fewer than 2^31 vectors
  FastDiv per_sample;  // a sample's vectors, where narrow
  Geometry g;
};

constexpr int kScaleThreads = 256;
constexpr int kScaleVectors = 4;  // per thread, all in flight

template <typename T, int V>
__global__ void __launch_bounds__(kScaleThreads)
    scale_kernel(const __grid_constant__ ScaleParams p) {
  using A = typename Number<T>::Acc;
  const A factor = *static_cast<const A*>(p.factor);
  if (factor == A(1)) return;
  const int64_t first =
      static_cast<int64_t>(blockIdx.x) * kScaleThreads * kScaleVectors + threadIdx.x;
  Vec<T, V> part[kScaleVectors];
  T* at[kScaleVectors];
  // All addresses come first: a division between the loads would keep them apart.
#pragma unroll
  for (int u = 0; u < kScaleVectors; ++u) {
    const int64_t v = first + u * kScaleThreads;
    at[u] = static_cast<T*>(p.x) + v * V;
    if (p.one_run || v >= p.vectors) continue;
    const int64_t b = p.narrow ? p.per_sample.div(static_cast<uint32_t>(v)) : v / p.g.count;
    const uint32_t within = static_cast<uint32_t>(v - b * p.g.count);
    at[u] = static_cast<T*>(p.x) + b * p.batch_stride + offsets_of<V>(p.g, within).dst;
  }
#pragma unroll
  for (int u = 0; u < kScaleVectors; ++u) {
    if (first + u * kScaleThreads < p.vectors) part[u] = load_once<V>(at[u]);
  }
#pragma unroll
  for (int u = 0; u < kScaleVectors; ++u) {
    if (first + u * kScaleThreads >= p.vectors) continue;
    Elements<T, V> values = elements(part[u]);
#pragma unroll
    for (int e = 0; e < V; ++e) values.e[e] = Number<T>::down(Number<T>::up(values.e[e]) * factor);
    store_once(at[u], packed(values));
  }
}

template <typename T>
cudaError_t scale_typed(const ScaleArgs& a) {
  ScaleParams p = {};
  p.x = a.samples.dst;
  p.factor = a.factor;
  p.batch_stride = a.samples.dst_batch_stride;
  int width = 1;
  int64_t dst_start, src_start;
  BoxRange none;
  if (!make_geometry(a.samples, sizeof(T), 0, nullptr, &p.g, &width, &dst_start, &src_start,
                     &none)) {
    return cudaErrorInvalidValue;
  }
  p.vectors = a.samples.batch * static_cast<int64_t>(p.g.count);
  if (p.vectors == 0) return cudaSuccess;
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  const int64_t length = static_cast<int64_t>(p.g.count) * width;
  p.one_run = p.g.ndim == 0 && (a.samples.batch == 1 || p.batch_stride == length);
  p.narrow = p.vectors < (int64_t{1} << 31);
  p.per_sample = FastDiv(p.narrow ? p.g.count : 1);
  const int64_t share = kScaleThreads * kScaleVectors;
  const int64_t blocks = (p.vectors + share - 1) / share;
  const dim3 block(kScaleThreads);
  if (width == V) return launch(scale_kernel<T, V>, blocks, block, 0, a.stream, p);
  return launch(scale_kernel<T, 1>, blocks, block, 0, a.stream, p);
}

inline cudaError_t scale(const ScaleArgs& a) {
  return with_floating(a.dtype, [&](auto x) { return scale_typed<decltype(x)>(a); });
}

}  // namespace fused_mixup
