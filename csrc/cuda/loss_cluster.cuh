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

#include <type_traits>

#include "loss_rows.cuh"
#include "loss_slices.cuh"

namespace fused_mixup {

// Blocks per multiprocessor, which bound the registers. The labels' ranks take the third one's.
template <TargetKind kKind>
constexpr int kClusterResident = kKind == TargetKind::kRanked ? 2 : 3;

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
  constexpr int L = kDense ? 1 : 2;  // vectors in registers at once, as shared memory is near
  using Labels = std::conditional_t<kDense, NoLabels, RowLabels>;
  const float divisor = p.a.reduction == kMean ? divisor_of(p) : 1.0f;
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

    // 2. The sums of the slice; labels, and those of their logits that this thread needs.
    LossParams<float> mine = p;  // whose classes are adjacent, and numbered from the slice's first
    mine.a.logits_at.classes = mine.a.target_at.classes = mine.a.grad_at.classes = 1;
    if (class_weight != nullptr) mine.a.class_weight = class_weight + at.first;
    const RowVectors vectors = row_vectors(mine.a, row.z, row.target, row.classes, true);
    const bool writes = cluster_rank() == 0 && row.tid == 0;
    const Labels labels(p.a, at.b, r);
    SparseRow<float> sparse;
    T picked[2] = {};
    LabelRank<float> rank[2];
    const auto loaded = [&] {
      if constexpr (!kDense) {
        sparse = SparseRow<float>(p, labels);
        if (sparse.valid) sparse.weigh_labels(class_weight);
        if (sparse.valid && (writes || p.gamma != 0.0f)) {
          if (sparse.a0 != 0.0f) picked[0] = at.row[sparse.label];
          if (sparse.a1 != 0.0f) picked[1] = at.row[sparse.partner_label];
        }
      }
      if constexpr (kKind == TargetKind::kRanked) {
        rank[0].template open<T>(p.a, at.row, labels.own);
        rank[1].template open<T>(p.a, at.row, labels.other);
        if (rank[0].valid) rank[0].label -= at.first;
        if (rank[1].valid) rank[1].label -= at.first;
      }
    };
    Partial<float> sums = sweep_row<T, kKind, L>(mine, row, vectors, rank, loaded);
    merge_row<T, kKind>(sums, rank, kClusterThreads, kDense || p.smooth);

    // 3. The sums of the row, and its loss.
    merge_cluster<T, kKind>(sums, rank, turn, kDense || p.smooth);
    RowGradient<float> g = {};
    g.label = sparse.label - at.first;
    g.partner_label = sparse.partner_label - at.first;
    sparse.label = 0;  // where their logits stand in `picked`
    sparse.partner_label = 1;
    const RowView<T> chosen = {picked, nullptr, 2, writes ? 0 : 1, 2};
    const float loss = finish_row<T, kKind>(mine, chosen, r, sums, rank, sparse, g);
    if (writes && p.a.partials != nullptr) {
      p.a.partials[r] = {static_cast<double>(loss), sparse.ignored ? 0.0 : 1.0};
    }

    // 4. The gradient.
    T* const grad = const_cast<T*>(start<T>(p.a.grad, p.a.grad_at, at.b, at.s)) + at.first;
    g.scale = scale_of_row(p, at.b, at.s, divisor);
    g.c = sparse.c;
    g.a0 = sparse.a0;
    g.a1 = sparse.a1;
    if (sparse.ignored) {
      zero_row(row, grad, 1);
    } else {
      RowStep<T, L, true> part;
      part.template load_from<true>(row, vectors, last_step<L>(vectors, row.threads) + row.tid);
      gradient_row<T, kDense>(mine, row, vectors, g, grad, part);
    }
    if (shape.buffer == 0 && r + step < rows) {
      __syncthreads();  // all threads have read the slice
      staged.start_slice(p.a, shape, memory, r + step);
    }
  }
  cluster_arrive();  // no block ends before the others have read its sums
  cluster_wait();
}

// Not `done` where the GPU holds no such cluster: a part of one may be too small.
template <typename T>
cudaError_t launch_clusters_of_rows(const LossArgs& a, bool* done) {
  const auto with_kernel = [&](auto kernel) {
    const ClusterShape shape = cluster_shape<T>(a);
    const dim3 block(kClusterThreads);
    int resident = 0;
    cudaError_t error = resident_clusters(kernel, shape.blocks, block, shape.shared, &resident);
    *done = resident > 0;
    if (error != cudaSuccess || !*done) return error;
    if (needs_count(a)) error = count_before<T>(a, a.rows());
    if (error != cudaSuccess) return error;
    const int64_t clusters = a.rows() < resident ? a.rows() : resident;
    error = launch_clusters(kernel, clusters, shape.blocks, block, shape.shared, a.stream,
                            loss_params<float>(a), shape);
    if (error != cudaSuccess || a.partials == nullptr) return error;
    return add_sums(a, a.rows(), total_of_call<T>(a));
  };
  if (a.target != nullptr) return with_kernel(cluster_kernel<T, TargetKind::kDense>);
  if (a.ranks != nullptr) return with_kernel(cluster_kernel<T, TargetKind::kRanked>);
  return with_kernel(cluster_kernel<T, TargetKind::kSparse>);
}

}  // namespace fused_mixup
