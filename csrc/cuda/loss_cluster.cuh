// Loss and gradient of long rows, each in the shared memory of a cluster of blocks.
//
// Device memory: 2N. Each logit is read once, and its gradient written once; a dense target is read
// once. A row of loss_rows.cuh is read again for its gradient, and stays in L1 or L2 only if it is
// short, or few are in flight.
//
//   1. Each block copies its slice of the row into shared memory; the next row's is in flight while
//      this one's is in use, in a second buffer where shared memory holds two.
//   2. Each block sweeps its slice for max and sums.
//   3. The blocks exchange their sums through each other's shared memory and merge them in one
//      order, so that all end with the same bits.
//   4. Each block writes the gradient of its slice from shared memory.
//
// In place a label's logit may be overwritten by another block, so that each block reads those
// that it needs before it arrives at the barrier of step 3.
#pragma once

#include "cluster.cuh"
#include "loss_rows.cuh"

namespace fused_mixup {

constexpr int kClusterThreads = 256;
// Blocks per multiprocessor, which bound the registers. The labels' ranks take the third one's.
template <TargetKind kKind>
constexpr int kClusterResident = kKind == TargetKind::kRanked ? 2 : 3;
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

// The sums of a block's slice, for the other blocks. Two sets in turn: a block may write the next
// row's while another still reads this one's, but not those of the row after, as a barrier of the
// cluster lies between.
struct ClusterSums {
  float sums[2][4];
  int32_t ahead[2][2];
};

// Merges the sums of the blocks of a cluster; every thread ends with the row's sums.
template <typename T, TargetKind kKind>
__device__ __forceinline__ void merge_cluster(Partial<float>& sums, LabelRank<float>* rank, int set,
                                              bool weighed) {
  ClusterSums& own = block_shared<ClusterSums>();
  if (threadIdx.x == 0) {
    own.sums[set][0] = sums.m;
    own.sums[set][1] = sums.e;
    own.sums[set][2] = sums.d;
    own.sums[set][3] = sums.weight;
    if constexpr (kKind == TargetKind::kRanked) {
      own.ahead[set][0] = rank[0].ahead;
      own.ahead[set][1] = rank[1].ahead;
    }
  }
  cluster_arrive();  // the others read what thread 0 has written, and write over labels' logits
  cluster_wait();
  const int lane = static_cast<int>(threadIdx.x % 32);
  const bool reads = lane < cluster_blocks();
  sums = Partial<float>();
  if (reads) {
    sums.m = remote_load(&own.sums[set][0], lane);
    sums.e = remote_load(&own.sums[set][1], lane);
    sums.d = remote_load(&own.sums[set][2], lane);
    sums.weight = remote_load(&own.sums[set][3], lane);
  }
  sums.template merge_warp<T>(weighed);
  if constexpr (kKind == TargetKind::kRanked) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int32_t ahead = reads ? remote_load(&own.ahead[set][k], lane) : 0;
#pragma unroll
      for (int by = 16; by > 0; by /= 2) ahead += __shfl_xor_sync(0xffffffffu, ahead, by);
      rank[k].ahead = ahead;
    }
  }
}

template <typename T, TargetKind kKind>
__global__ void __launch_bounds__(kClusterThreads, kClusterResident<kKind>)
    cluster_kernel(const __grid_constant__ LossParams<float> p,
                   const __grid_constant__ ClusterShape shape) {
  if constexpr (!kHasClusters) return;
  constexpr bool kDense = kKind == TargetKind::kDense;
  const int64_t rows = p.a.rows(), step = gridDim.x / cluster_blocks();
  const float* class_weight = static_cast<const float*>(p.a.class_weight);
  unsigned char* const memory = static_cast<unsigned char*>(dynamic_shared());
  int64_t r = blockIdx.x / cluster_blocks();
  Staged<T, kDense> staged = {};
  staged.start_slice(p.a, shape, memory, r);  // there are no more clusters than rows
  for (int turn = 0; r < rows; r += step, turn ^= 1) {
    // 1. The slice, and the next row's.
    const Slice<T> at(p.a, shape, r);
    RowView<T> row;
    row.z = staged.z;
    row.target = staged.dense(p.a);
    row.classes = at.end - at.first;
    row.tid = static_cast<int>(threadIdx.x);
    row.threads = kClusterThreads;
    staged.finish_slice(p.a, row.classes);
    __syncthreads();  // the slice has arrived, and no thread reads the other buffer any more
    if (shape.buffer != 0 && r + step < rows) {
      staged.start_slice(p.a, shape, memory + (turn ^ 1) * shape.buffer, r + step);
    }

    // 2. Labels and their logits, of which one thread alone needs those of a plain loss.
    const bool writes = cluster_rank() == 0 && row.tid == 0;
    SparseRow<float> sparse;
    T picked[2] = {};
    LabelRank<float> rank[2];
    if constexpr (!kDense) {
      sparse = SparseRow<float>(p, at.b, r);
      if (sparse.valid) sparse.weigh_labels(class_weight);
      if (sparse.valid && (writes || p.gamma != 0.0f)) {
        if (sparse.a0 != 0.0f) picked[0] = at.row[sparse.label];
        if (sparse.a1 != 0.0f) picked[1] = at.row[sparse.partner_label];
      }
    }
    if constexpr (kKind == TargetKind::kRanked) {
      rank[0].template open<T>(p.a, at.row, p.a.labels[r]);
      rank[1].template open<T>(p.a, at.row, p.a.partner_labels[r]);
      if (rank[0].valid) rank[0].label -= at.first;
      if (rank[1].valid) rank[1].label -= at.first;
    }
    RowGradient<float> g = {};
    g.scale = scale_of_row(p, at.b, at.s);

    // 3. The sums, of the slice and of the row.
    LossParams<float> mine = p;  // whose classes are numbered from the slice's first one
    mine.a.logits_at.classes = mine.a.target_at.classes = mine.a.grad_at.classes = 1;
    if (class_weight != nullptr) mine.a.class_weight = class_weight + at.first;
    Partial<float> sums = sweep_row<T, kKind>(mine, row, rank);
    merge_row<T, kKind>(sums, rank, kClusterThreads, kDense || p.smooth);
    merge_cluster<T, kKind>(sums, rank, turn, kDense || p.smooth);
    g.m = sums.m;
    g.l = sums.log_sum();
    float loss;
    if constexpr (kDense) {
      g.total = sums.weight;
      loss = g.l * g.total - sums.d;
      g.label = g.partner_label = -1;
    } else {
      g.label = sparse.label - at.first;
      g.partner_label = sparse.partner_label - at.first;
      sparse.label = 0;  // where their logits stand in `picked`
      sparse.partner_label = 1;
      g.total = total_of(p, sparse, sums);
      loss = sparse_loss<T>(mine, sparse, sums, g.l, g.total, picked);
      if (p.gamma != 0.0f && !sparse.ignored) {
        loss = focal_loss<T>(mine, sparse, g.m, g.l, picked);
        if (sparse.valid) g.total = 0.0f * g.l + sparse.a0 + sparse.a1;
      }
      g.c = sparse.c;
      g.a0 = sparse.a0;
      g.a1 = sparse.a1;
      g.ignored = sparse.ignored;
    }
    if (!g.ignored) add_z_loss(p, g.m, g.l, loss, g.total);
    if (writes) {
      if (p.a.row_losses != nullptr) static_cast<float*>(p.a.row_losses)[r] = loss;
      if constexpr (kKind == TargetKind::kRanked) {
        p.a.ranks[r] = rank[0].rank(p.a.classes);
        if (p.a.rank_planes == 2) p.a.ranks[rows + r] = rank[1].rank(p.a.classes);
      }
      if (p.a.partials != nullptr) {
        p.a.partials[r] = {static_cast<double>(loss), g.ignored ? 0.0 : 1.0};
      }
    }

    // 4. The gradient.
    T* const grad = const_cast<T*>(start<T>(p.a.grad, p.a.grad_at, at.b, at.s));
    gradient_row<T, kDense>(mine, row, g, grad + at.first);
    if (shape.buffer == 0 && r + step < rows) {
      __syncthreads();  // all threads have read the slice
      staged.start_slice(p.a, shape, memory, r + step);
    }
  }
  cluster_arrive();  // no block ends before the others have read its sums
  cluster_wait();
}

template <typename T>
cudaError_t launch_clusters_of_rows(const LossArgs& a) {
  const auto with_kernel = [&](auto kernel) {
    const ClusterShape shape = cluster_shape<T>(a);
    const dim3 block(kClusterThreads);
    int resident = 0;
    const cudaError_t error =
        resident_clusters(kernel, shape.blocks, block, shape.shared, &resident);
    if (error != cudaSuccess) return error;
    if (resident < 1) return launch_rows<T>(a);  // a part of a GPU may be too small
    const int64_t clusters = a.rows() < resident ? a.rows() : resident;
    return launch_clusters(kernel, clusters, shape.blocks, block, shape.shared, a.stream,
                           loss_params<float>(a), shape);
  };
  if (a.target != nullptr) return with_kernel(cluster_kernel<T, TargetKind::kDense>);
  if (a.ranks != nullptr) return with_kernel(cluster_kernel<T, TargetKind::kRanked>);
  return with_kernel(cluster_kernel<T, TargetKind::kSparse>);
}

}  // namespace fused_mixup
