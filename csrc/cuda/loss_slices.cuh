// How a long row of logits divides into slices, one for each block of a cluster, and how a slice
// comes into the block's shared memory.
#pragma once

#include "cluster.cuh"
#include "loss_args.cuh"

namespace fused_mixup {

constexpr int kClusterThreads = 256;
// Bytes of a row for one block: with the next row's as many, three blocks share a multiprocessor
// and have 96 KiB in flight. Shorter rows stay in L1.
constexpr int64_t kClusterSlice = 32 * 1024;
constexpr int64_t kClusterStatic = 1024;  // at least the static shared memory of the kernel

// How a row is laid out over the blocks of a cluster. Block q has vectors q·vectors … of the row,
// the first and the last one the single elements too.
struct ClusterShape {
  int blocks;  // 0: no cluster holds a row
  int32_t vectors;
  int32_t buffer;     // bytes from the one buffer to the other, 0 for one buffer
  int32_t target_at;  // where the dense target starts in a buffer
  size_t shared;      // bytes of dynamic shared memory
};

template <typename T>
ClusterShape cluster_shape(const LossArgs& a) {
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  int64_t wide = 0;  // bytes of an element of the dense target
  if (a.target != nullptr) wide = a.target_dtype == a.dtype ? static_cast<int64_t>(sizeof(T)) : 4;
  const int64_t bytes = a.classes * (static_cast<int64_t>(sizeof(T)) + wide);
  ClusterShape shape = {};
  int blocks = a.cluster_blocks;
  if (blocks == kChooseCluster) {
    blocks = bytes <= kClusterSlice ? 0 : 2;
    while (blocks > 0 && blocks < kMostClusterBlocks && bytes > blocks * kClusterSlice) blocks *= 2;
  }
  if (blocks == 0) return shape;
  const int64_t vectors = (a.classes / V + blocks - 1) / blocks;
  const int64_t most = vectors * V + 2 * (V - 1);  // elements of a slice
  // A slice starts at the same place between two multiples of 16 as in device memory.
  const auto room = [&](int64_t size) { return (most * size + 30) / 16 * 16; };
  const int64_t near = room(sizeof(T)), buffer = near + (wide != 0 ? room(wide) : 0);
  const int64_t limit = a.shared_limit - kClusterStatic;
  if (buffer > limit) return shape;
  const bool ahead = 2 * buffer <= limit;
  shape.blocks = blocks;
  shape.vectors = static_cast<int32_t>(vectors);
  shape.buffer = ahead ? static_cast<int32_t>(buffer) : 0;
  shape.target_at = static_cast<int32_t>(near);
  shape.shared = static_cast<size_t>(ahead ? 2 * buffer : buffer);
  return shape;
}

// Whether loss and gradient of these rows run on clusters; their classes are adjacent.
template <typename T>
bool takes_clusters(const LossArgs& a) {
  if (sizeof(T) == 8 || a.cluster_blocks == 0 || a.classes == 0) return false;
  if (!a.forward || a.grad == nullptr || a.stats != nullptr) return false;
  if (a.logits_at.classes != 1 || a.grad_at.classes != 1) return false;
  if (a.target != nullptr && a.target_at.classes != 1) return false;
  return cluster_shape<T>(a).blocks > 0;
}

// The slice of a row that this block has, in device memory.
template <typename T>
struct Slice {
  int64_t b, s;        // the row
  const T* row;        // its class 0
  int32_t first, end;  // classes of the slice

  __device__ __forceinline__ Slice(const LossArgs& a, const ClusterShape& shape, int64_t r)
      : b(quotient(r, a.positions)), s(r - b * a.positions) {
    constexpr int V = 16 / static_cast<int>(sizeof(T));
    row = start<T>(a.logits, a.logits_at, b, s);
    const RowVectors all = row_vectors(row, static_cast<int32_t>(a.classes), true);
    const int rank = cluster_rank();
    first = rank == 0 ? 0 : within(all, all.head + rank * shape.vectors * V);
    end = rank + 1 == cluster_blocks() ? static_cast<int32_t>(a.classes)
                                       : within(all, all.head + (rank + 1) * shape.vectors * V);
  }

  static __device__ __forceinline__ int32_t within(const RowVectors& all, int32_t k) {
    return k < all.tail ? k : all.tail;
  }
};

// Starts to copy adjacent elements to shared memory, where they are aligned as in device memory;
// returns where. The few elements before and behind whole vectors wait in a thread's register, as
// a store to shared memory would wait for them here.
template <typename E>
__device__ __forceinline__ E* start_copy(unsigned char* buffer, const E* from, int32_t count,
                                         E& single) {
  constexpr int V = 16 / static_cast<int>(sizeof(E));
  E* const to = reinterpret_cast<E*>(buffer + reinterpret_cast<uintptr_t>(from) % 16);
  const RowVectors vectors = row_vectors(from, count, true);
  const int tid = static_cast<int>(threadIdx.x);
#pragma unroll 4
  for (int32_t v = tid; v < vectors.count; v += kClusterThreads) {
    copy16_async(to + vectors.head + v * V, from + vectors.head + v * V);
  }
  if (tid < vectors.head + count - vectors.tail) single = from[single_element(vectors, tid)];
  return to;
}

// Puts the single elements in their places.
template <typename E>
__device__ __forceinline__ void finish_copy(E* to, int32_t count, const E& single) {
  const RowVectors vectors = row_vectors(to, count, true);
  const int tid = static_cast<int>(threadIdx.x);
  if (tid < vectors.head + count - vectors.tail) to[single_element(vectors, tid)] = single;
}

// A slice in shared memory.
template <typename T, bool kDense>
struct Staged {
  T *z, single;
  float* wide;  // a dense target that is float32 beside half logits
  T* target;    // one of the type of the logits
  float wide_single;
  T target_single;

  __device__ __forceinline__ void start_slice(const LossArgs& a, const ClusterShape& shape,
                                              unsigned char* buffer, int64_t r) {
    const Slice<T> at(a, shape, r);
    const int32_t count = at.end - at.first;
    z = start_copy(buffer, at.row + at.first, count, single);
    if (!kDense && threadIdx.x == 0) {  // all threads wait for these at the row's beginning
      prefetch(a.labels + r);
      prefetch(a.partner_labels + r);
      if (a.weight != nullptr) prefetch(a.weight + 2 * at.b);
    }
    if constexpr (kDense) {
      const void* from = dense_start<T>(a, at.b, at.s);
      if (a.target_dtype == a.dtype) {
        target = start_copy(buffer + shape.target_at, static_cast<const T*>(from) + at.first, count,
                            target_single);
      } else {
        wide = start_copy(buffer + shape.target_at, static_cast<const float*>(from) + at.first,
                          count, wide_single);
      }
    }
  }

  // Waits for this thread's copies; others need a barrier.
  __device__ __forceinline__ void finish_slice(const LossArgs& a, int32_t count) {
    finish_copy(z, count, single);
    if constexpr (kDense) {
      if (a.target_dtype == a.dtype) {
        finish_copy(target, count, target_single);
      } else {
        finish_copy(wide, count, wide_single);
      }
    }
    copies_done();
  }

  __device__ __forceinline__ const void* dense(const LossArgs& a) const {
    if constexpr (!kDense) return nullptr;
    return a.target_dtype == a.dtype ? static_cast<const void*>(target)
                                     : static_cast<const void*>(wide);
  }
};

}  // namespace fused_mixup
