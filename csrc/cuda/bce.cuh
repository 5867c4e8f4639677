// soft_target_binary_cross_entropy and its gradient on raw arguments: chooses the kernel.
#pragma once

#include "bce_columns.cuh"
#include "bce_rows.cuh"

namespace fused_mixup {

// The loss of a position is a sum over all classes, so that one slice has to read them all.
template <typename T>
LossSchedule binary_schedule(const BinaryArgs& a) {
  LossSchedule schedule = loss_schedule<T>(a, a.per_element() ? 1 : kBinaryWidth);
  if (schedule.columns && a.row_losses != nullptr) {
    schedule.slices = 1;
    schedule.blocks = (a.rows() / schedule.width + kColumnThreads - 1) / kColumnThreads;
  }
  return schedule;
}

template <typename T, bool kFocal>
cudaError_t binary_sweep(const BinaryArgs& a, const LossSchedule& schedule) {
  BinaryParams<typename Number<T>::Acc> p = binary_params<typename Number<T>::Acc>(a);
  p.slices = schedule.slices;
  p.threads_per_row = threads_per_row<T>(a.classes);
  if constexpr (sizeof(T) != 8) {
    constexpr int V = kBinaryWidth;
    const dim3 block(kColumnThreads);
    if (schedule.columns && schedule.width == V) {
      return launch(binary_column_kernel<T, V, kFocal>, schedule.blocks, block, 0, a.stream, p);
    }
    if (schedule.columns)
      return launch(binary_column_kernel<T, 1, kFocal>, schedule.blocks, block, 0, a.stream, p);
  }
  const dim3 block(p.threads_per_row == 32 ? 32 * kWarpRows : p.threads_per_row);
  return launch(binary_row_kernel<T, kFocal>, schedule.blocks, block, 0, a.stream, p);
}

// How many LossSums of scratch a call needs that asks for a loss.
inline int64_t binary_scratch(const BinaryArgs& a) {
  int64_t blocks = 0;
  with_floating(a.dtype, [&](auto z) {
    blocks = binary_schedule<decltype(z)>(a).blocks;
    return cudaSuccess;
  });
  return blocks + kReduceBlocks;
}

// Computes the loss, its gradient, or both: whatever `a` has memory for.
inline cudaError_t soft_target_binary_cross_entropy(const BinaryArgs& a) {
  return with_floating(a.dtype, [&](auto z) {
    using T = decltype(z);
    const LossSchedule schedule = binary_schedule<T>(a);
    cudaError_t error = cudaSuccess;
    if (schedule.blocks > 0) {
      error = a.focal_gamma != 0.0 ? binary_sweep<T, true>(a, schedule)
                                   : binary_sweep<T, false>(a, schedule);
    }
    if (error != cudaSuccess || a.partials == nullptr) return error;
    ReduceArgs sums = {};
    sums.partials = a.partials;
    sums.count = schedule.blocks;
    sums.wide = sizeof(T) == 8;
    sums.divisor = a.divisor;
    sums.loss = a.loss;
    return reduce(sums, a.partials + schedule.blocks, a.stream);
  });
}

}  // namespace fused_mixup
