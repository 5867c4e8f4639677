// soft_target_cross_entropy, its gradient and the ranks of labels, on raw arguments: chooses the
// kernel.
#pragma once

#include "loss_cluster.cuh"
#include "loss_columns.cuh"
#include "loss_rows.cuh"

namespace fused_mixup {

template <typename T>
int column_width(const LossArgs& a) {
  return a.ranks != nullptr ? 1 : 16 / static_cast<int>(sizeof(T));
}

template <typename T, int V>
cudaError_t launch_columns(const LossArgs& a, const LossSchedule& schedule) {
  LossParams<typename Number<T>::Acc> p = loss_params<typename Number<T>::Acc>(a);
  p.slices = schedule.slices;
  const dim3 block(kColumnThreads);
  if (a.target != nullptr) {
    return launch(column_kernel<T, V, TargetKind::kDense>, schedule.blocks, block, 0, a.stream, p);
  }
  if constexpr (V == 1) {
    if (a.ranks != nullptr) {
      return launch(column_kernel<T, 1, TargetKind::kRanked>, schedule.blocks, block, 0, a.stream,
                    p);
    }
  }
  return launch(column_kernel<T, V, TargetKind::kSparse>, schedule.blocks, block, 0, a.stream, p);
}

template <typename T>
LossSchedule schedule_of(const LossArgs& a) {
  LossSchedule schedule = loss_schedule<T>(a, column_width<T>(a));
  if (!schedule.columns && takes_clusters<T>(a)) schedule.blocks = a.rows();  // a sum for each row
  return schedule;
}

template <typename T>
cudaError_t sweep(const LossArgs& a, const LossSchedule& schedule) {
  if constexpr (sizeof(T) != 8) {
    if (schedule.columns && schedule.width > 1) {
      return launch_columns<T, 16 / static_cast<int>(sizeof(T))>(a, schedule);
    }
    if (schedule.columns) return launch_columns<T, 1>(a, schedule);
    if (takes_clusters<T>(a)) return launch_clusters_of_rows<T>(a);
  }
  return launch_rows<T>(a);
}

// How many LossSums of scratch a call needs that asks for a loss.
inline int64_t loss_scratch(const LossArgs& a) {
  int64_t blocks = 0;
  with_floating(a.dtype, [&](auto z) {
    blocks = schedule_of<decltype(z)>(a).blocks;
    return cudaSuccess;
  });
  return blocks + kReduceBlocks;
}

// Computes the loss with its stats, count and ranks, its gradient, or both: whatever `a` has memory
// for.
inline cudaError_t soft_target_cross_entropy(const LossArgs& a) {
  return with_floating(a.dtype, [&](auto z) {
    using T = decltype(z);
    const LossSchedule schedule = schedule_of<T>(a);
    const bool reduces = a.partials != nullptr;
    cudaError_t error = cudaSuccess;
    // The gradient divides by the count before the loss has been reduced.
    if (a.forward && a.grad != nullptr && a.reduction == kMean && a.can_ignore() &&
        schedule.blocks > 0) {
      error = count_rows(a, a.partials + schedule.blocks);
      if (error != cudaSuccess) return error;
    }
    if (schedule.blocks > 0 && (a.classes > 0 || a.forward)) error = sweep<T>(a, schedule);
    if (error != cudaSuccess || !reduces) return error;
    ReduceArgs sums = {};
    sums.partials = a.partials;
    sums.count = schedule.blocks;
    sums.wide = sizeof(T) == 8;
    sums.divisor = a.reduction == kMean ? 0.0 : 1.0;
    sums.loss = a.loss;
    sums.count_out = a.count;
    return reduce(sums, a.partials + schedule.blocks, a.stream);
  });
}

}  // namespace fused_mixup
