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
