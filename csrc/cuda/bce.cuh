// soft_target_binary_cross_entropy and its gradient on raw arguments: which kernel.
#pragma once

#include "bce_columns.cuh"
#include "bce_rows.cuh"

namespace fused_mixup {

// The losses of positions are sums over all classes, which only one slice sees.
template <typename T>
LossPlan binary_plan(const BinaryArgs& a) {
  LossPlan plan = loss_plan<T>(a, a.per_element() ? 1 : kBinaryWidth);
  if (plan.columns && a.row_losses != nullptr) {
    plan.slices = 1;
    plan.blocks = (a.rows() / plan.width + kColumnThreads - 1) / kColumnThreads;
  }
  return plan;
}

template <typename T>
cudaError_t binary_sweep(const BinaryArgs& a, const LossPlan& plan) {
  BinaryParams<typename Number<T>::Acc> p = binary_params<typename Number<T>::Acc>(a);
  p.slices = plan.slices;
  p.threads_per_row = threads_per_row<T>(a.classes);
  if constexpr (sizeof(T) != 8) {
    constexpr int V = kBinaryWidth;
    const dim3 block(kColumnThreads);
    if (plan.columns && plan.width == V) {
      return launch(binary_column_kernel<T, V>, plan.blocks, block, 0, a.stream, p);
    }
    if (plan.columns) return launch(binary_column_kernel<T, 1>, plan.blocks, block, 0, a.stream, p);
  }
  const dim3 block(p.threads_per_row == 32 ? 32 * kWarpRows : p.threads_per_row);
  return launch(binary_row_kernel<T>, plan.blocks, block, 0, a.stream, p);
}

// LossSums of scratch for a call that wants a loss.
inline int64_t binary_scratch(const BinaryArgs& a) {
  int64_t blocks = 0;
  with_loss_type(a.dtype, [&](auto z) {
    blocks = binary_plan<decltype(z)>(a).blocks;
    return cudaSuccess;
  });
  return blocks + kReduceBlocks;
}

// The loss, its gradient, or both: what `a` has room for.
inline cudaError_t soft_target_binary_cross_entropy(const BinaryArgs& a) {
  return with_loss_type(a.dtype, [&](auto z) {
    using T = decltype(z);
    const LossPlan plan = binary_plan<T>(a);
    cudaError_t error = cudaSuccess;
    if (plan.blocks > 0) error = binary_sweep<T>(a, plan);
    if (error != cudaSuccess || a.partials == nullptr) return error;
    ReduceArgs sums = {};
    sums.partials = a.partials;
    sums.count = plan.blocks;
    sums.wide = sizeof(T) == 8;
    sums.divisor = a.divisor;
    sums.loss = a.loss;
    return reduce(sums, a.partials + plan.blocks, a.stream);
  });
}

}  // namespace fused_mixup
