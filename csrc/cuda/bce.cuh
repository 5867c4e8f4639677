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

// Calls f with the kernel of the schedule and the threads of its blocks.
template <typename T, bool kFocal, typename F>
cudaError_t with_binary_kernel(const BinaryArgs& a, const LossSchedule& schedule, F&& f) {
  if constexpr (sizeof(T) != 8) {
    constexpr int V = kBinaryWidth;
    if (schedule.columns && schedule.width == V) {
      return f(binary_column_kernel<T, V, kFocal>, kColumnThreads);
    }
    if (schedule.columns) return f(binary_column_kernel<T, 1, kFocal>, kColumnThreads);
  }
  return f(binary_row_kernel<T, kFocal>, row_block<T>(a.classes));
}

template <typename T, bool kFocal>
cudaError_t launch_binary(const BinaryArgs& a, const LossSchedule& schedule) {
  return with_binary_kernel<T, kFocal>(a, schedule, [&](auto* kernel, int threads) {
    BinaryParams<typename Number<T>::Acc> p = binary_params<typename Number<T>::Acc>(a);
    p.slices = schedule.slices;
    p.threads_per_row = threads_per_row<T>(a.classes);
    return launch_summed(kernel, schedule.blocks, threads, p);
  });
}

// How many LossSums of scratch a call needs that asks for a loss.
inline int64_t binary_scratch(const BinaryArgs& a) {
  int64_t blocks = 0;
  with_floating(a.dtype, [&](auto z) {
    blocks = binary_schedule<decltype(z)>(a).blocks;
    return cudaSuccess;
  });
  return sum_scratch(blocks);
}

// Computes the loss, its gradient, or both: whatever `a` has memory for.
inline cudaError_t soft_target_binary_cross_entropy(const BinaryArgs& a) {
  return with_floating(a.dtype, [&](auto z) {
    using T = decltype(z);
    const LossSchedule schedule = binary_schedule<T>(a);
    if (schedule.blocks > 0) {
      return a.focal_gamma != 0.0 ? launch_binary<T, true>(a, schedule)
                                  : launch_binary<T, false>(a, schedule);
    }
    if (a.partials == nullptr) return cudaSuccess;
    return add_sums(a, 0, {sizeof(T) == 8, a.divisor, a.loss, nullptr});
  });
}

}  // namespace fused_mixup
