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
    store_once(p, packed(values));  // results are not read again
    return;
  }
#pragma unroll
  for (int e = 0; e < V; ++e) p[e] = values.e[e];
}

// A row, for one of the threads that share it.
template <typename T>
struct RowView {
  const T* z;
  const void* target;  // the first element of a dense target
  int32_t classes;
  int tid, threads;
};

// The vectors of one step of a sweep, for one thread: those from `first` on, in steps of all
// threads. kNear: the row lies in shared memory.
template <typename T, int L, bool kNear = false>
struct RowStep {
  static constexpr int V = 16 / static_cast<int>(sizeof(T));
  Vec<T, V> part[L];

  template <bool kLast>
  __device__ __forceinline__ void load_from(const RowView<T>& row, const RowVectors& vectors,
                                            int32_t first) {
#pragma unroll
    for (int u = 0; u < L; ++u) {
      const int32_t v = first + u * row.threads;
      if (v >= vectors.count) continue;
      const T* at = row.z + vectors.head + v * V;
      part[u] = kLast && !kNear ? load_once<V>(at) : load<V>(at);
    }
  }
};

// Where the last step of a sweep starts.
template <int L>
__device__ __forceinline__ int32_t last_step(const RowVectors& vectors, int threads) {
  return vectors.count == 0 ? 0 : (vectors.count - 1) / (L * threads) * (L * threads);
}

// Single elements go to the last threads, which have the fewest vectors.
template <typename T>
__device__ __forceinline__ int32_t first_single(const RowView<T>& row) {
  return row.threads - 1 - row.tid;
}

constexpr int kWarpRows = 8;  // rows per block where a warp takes a row

// Threads have 64 registers each, which hold four loads in flight. Doubles would spill in 64.
template <typename T>
constexpr int kRowThreads = sizeof(T) == 8 ? 512 : 1024;

// 16-byte loads in flight per thread.
constexpr int kLossUnroll = 4;
// The rows that a multiprocessor works on at a time have at most this many bytes: all of them are
// read twice where a loss and its gradient are made, and have to fit half of an H100's L2.
constexpr int64_t kSweptRows = 192 * 1024;

// A warp takes a row of up to 8 vectors per lane. A block takes a longer row. Small blocks overlap
// best: one loads while another merges its sums. Of the counts of threads down to three quarters,
// the one that leaves the fewest loads of the last step idle is taken: 256 for 21841 half logits,
// 1024 for 131072.
template <typename T>
int threads_per_row(int64_t classes) {
  const int64_t bytes = classes * static_cast<int64_t>(sizeof(T)), vectors = bytes / 16;
  if (vectors <= 256) return 32;
  int most = 128;
  while (most < kRowThreads<T> && kRowThreads<T> / most * bytes > kSweptRows) most *= 2;
  const int loads = sizeof(T) == 8 ? kLossUnroll / 2 : kLossUnroll;
  const auto idle = [&](int threads) {
    const int64_t step = int64_t{threads} * loads;
    return (step - vectors % step) % step;
  };
  int best = most;
  // By shares of idle loads, a / (a + vectors): fewer idle ones are a smaller share.
  for (int threads = most - 32; threads >= most / 4 * 3; threads -= 32) {
    if (idle(threads) < idle(best)) best = threads;
  }
  return best;
}

// The threads of a block of rows.
template <typename T>
int row_block(int64_t classes) {
  const int threads = threads_per_row<T>(classes);
  return threads == 32 ? 32 * kWarpRows : threads;
}

}  // namespace fused_mixup
