// How the elements of a row whose classes are adjacent are dealt to threads.
#pragma once

#include "vec.cuh"

namespace fused_mixup {

constexpr int64_t kMostClasses = (int64_t{1} << 31) - 4096;  // counted in 32 bits, a step beyond

// `head` elements one by one until the row's address is a multiple of 16, then `vectors` of V, then
// the rest one by one. A row whose elements are no neighbours is all head.
struct RowCut {
  int32_t head, vectors, tail;  // tail: the first element after the vectors
};

template <typename T>
__device__ __forceinline__ RowCut cut_row(const T* row, int32_t classes, bool adjacent) {
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  if (!adjacent) return {classes, 0, classes};
  const int off = static_cast<int>(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
  int32_t head = off == 0 ? 0 : V - off;
  if (head > classes) head = classes;
  const int32_t vectors = (classes - head) / V;
  return {head, vectors, head + vectors * V};
}

// The k-th single element of a row: head first, then tail.
__device__ __forceinline__ int32_t single_element(const RowCut& cut, int32_t k) {
  return k < cut.head ? k : cut.tail + (k - cut.head);
}

template <typename T>
__device__ __forceinline__ bool row_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// V neighbours at p: by 16-byte accesses where it is aligned to them, else one by one.
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

// 64 registers per thread, which hold four loads under way. Doubles spill in 64.
template <typename T>
constexpr int kRowThreads = sizeof(T) == 8 ? 512 : 1024;

// A warp for a row of up to 8 vectors per lane; for longer ones a block, of as many threads as
// keep about 8 vectors each.
template <typename T>
int threads_per_row(int64_t classes) {
  const int64_t vectors = classes * static_cast<int64_t>(sizeof(T)) / 16;
  if (vectors <= 256) return 32;
  int threads = 128;
  while (threads < kRowThreads<T> && threads * 8 < vectors) threads *= 2;
  return threads;
}

}  // namespace fused_mixup
