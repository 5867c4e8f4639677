// How a row of adjacent classes divides into vectors of 16 bytes, and into threads.
#pragma once

#include "vec.cuh"

namespace fused_mixup {

// Classes are counted in 32 bits, and a thread's count goes one step beyond the last class.
constexpr int64_t kMostClasses = (int64_t{1} << 31) - 4096;

// `head` single elements, up to an address that is a multiple of 16; then `count` vectors of V
// elements; then single elements from `tail` on. A row whose classes are not adjacent is all head.
struct RowVectors {
  int32_t head, count, tail;
};

template <typename T>
__device__ __forceinline__ RowVectors row_vectors(const T* row, int32_t classes, bool adjacent) {
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  if (!adjacent) return {classes, 0, classes};
  const int off = static_cast<int>(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
  int32_t head = off == 0 ? 0 : V - off;
  if (head > classes) head = classes;
  const int32_t count = (classes - head) / V;
  return {head, count, head + count * V};
}

// The k-th single element of a row: head first, then tail.
__device__ __forceinline__ int32_t single_element(const RowVectors& vectors, int32_t k) {
  return k < vectors.head ? k : vectors.tail + (k - vectors.head);
}

template <typename T>
__device__ __forceinline__ bool row_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// V adjacent elements at p, by 16-byte accesses where p is aligned to them, else one by one.
template <int V, typename T>
__device__ __forceinline__ Elements<T, V> load_any(const T* p, bool aligned) {
  constexpr int W = 16 / static_cast<int>(sizeof(T)) < V ? 16 / static_cast<int>(sizeof(T)) : V;
  Elements<T, V> out;
  if (aligned) {
#pragma unroll
    for (int g = 0; g < V; g += W) {
      const Elements<T, W> part = elements(load<W>(p + g));
#pragma unroll
      for (int e = 0; e < W; ++e) out.e[g + e] = part.e[e];
    }
  } else {
#pragma unroll
    for (int e = 0; e < V; ++e) out.e[e] = p[e];
  }
  return out;
}

template <int V, typename T>
__device__ __forceinline__ void store_any(T* p, const Elements<T, V>& values, bool aligned) {
  if (aligned) {
    store(p, packed(values));
    return;
  }
#pragma unroll
  for (int e = 0; e < V; ++e) p[e] = values.e[e];
}

constexpr int kWarpRows = 8;  // rows per block where a warp takes a row

// Threads have 64 registers each, which hold four loads in flight. Doubles would spill in 64.
template <typename T>
constexpr int kRowThreads = sizeof(T) == 8 ? 512 : 1024;

// A warp takes a row of up to 8 vectors per lane. A block takes a longer row, with as many threads
// as get about 8 vectors each.
template <typename T>
int threads_per_row(int64_t classes) {
  const int64_t vectors = classes * static_cast<int64_t>(sizeof(T)) / 16;
  if (vectors <= 256) return 32;
  int threads = 128;
  while (threads < kRowThreads<T> && threads * 8 < vectors) threads *= 2;
  return threads;
}

}  // namespace fused_mixup
