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

template <typename T>
LossSchedule schedule_of(const LossArgs& a) {
  LossSchedule schedule = loss_schedule<T>(a, column_width<T>(a));
  if (!schedule.columns && takes_clusters<T>(a)) schedule.blocks = a.rows();  // a sum for each row
  return schedule;
}

// Calls f with the kernel of the schedule and the threads of its blocks.
template <typename T, typename F>
cudaError_t with_kernel(const LossArgs& a, const LossSchedule& schedule, F&& f) {
  constexpr TargetKind kSparse = TargetKind::kSparse, kRanked = TargetKind::kRanked,
                       kDense = TargetKind::kDense;
  if constexpr (sizeof(T) != 8) {
    constexpr int V = 16 / static_cast<int>(sizeof(T));
    if (schedule.columns && schedule.width == V) {
      if (a.target != nullptr) return f(column_kernel<T, V, kDense>, kColumnThreads);
      return f(column_kernel<T, V, kSparse>, kColumnThreads);
    }
    if (schedule.columns) {
      if (a.target != nullptr) return f(column_kernel<T, 1, kDense>, kColumnThreads);
      if (a.ranks != nullptr) return f(column_kernel<T, 1, kRanked>, kColumnThreads);
      return f(column_kernel<T, 1, kSparse>, kColumnThreads);
    }
  }
  const int threads = row_block<T>(a.classes);
  const auto with_part = [&](auto part) {
    constexpr LossPart kPart = decltype(part)::value;
    if (a.target != nullptr) return f(row_kernel<T, kDense, kPart>, threads);
    if constexpr (kPart != LossPart::kGradient) {
      if (a.ranks != nullptr) return f(row_kernel<T, kRanked, kPart>, threads);
    }
    return f(row_kernel<T, kSparse, kPart>, threads);
  };
  using std::integral_constant;
  if (!a.forward) return with_part(integral_constant<LossPart, LossPart::kGradient>());
  if (a.grad == nullptr) return with_part(integral_constant<LossPart, LossPart::kLoss>());
  return with_part(integral_constant<LossPart, LossPart::kBoth>());
}

// How many LossSums of scratch a call needs that asks for a loss.
inline int64_t loss_scratch(const LossArgs& a) {
  int64_t blocks = 0;
  with_floating(a.dtype, [&](auto z) {
    blocks = schedule_of<decltype(z)>(a).blocks;
    return cudaSuccess;
  });
  return sum_scratch(blocks);
}

// The blocks of a kernel of rows may read this many bytes of labels together, to count the rows
// each for itself. The bytes come from L2. Where there are more, a kernel before counts them.
constexpr int64_t kCountedByAll = 12 * 1024 * 1024;

template <typename T>
cudaError_t launch_loss(const LossArgs& a, const LossSchedule& schedule) {
  return with_kernel<T>(a, schedule, [&](auto* kernel, int threads) {
    LossParams<typename Number<T>::Acc> p = loss_params<typename Number<T>::Acc>(a);
    p.slices = schedule.slices;
    p.threads_per_row = threads_per_row<T>(a.classes);
    p.result = total_of_call<T>(a);
    const bool counts = needs_count(a);
    p.counts = counts && !schedule.columns && schedule.blocks * a.rows() * 16 <= kCountedByAll;
    if (counts && !p.counts) {
      const cudaError_t error = count_before<T>(a, schedule.blocks);
      if (error != cudaSuccess) return error;
      p.result.count = nullptr;  // it is there, and blocks read it
    }
    return launch_summed(kernel, schedule.blocks, threads, p);
  });
}

// Computes the loss with its stats, count and ranks, its gradient, or both: whatever `a` has memory
// for.
inline cudaError_t soft_target_cross_entropy(const LossArgs& a) {
  return with_floating(a.dtype, [&](auto z) {
    using T = decltype(z);
    const LossSchedule schedule = schedule_of<T>(a);
    const bool runs = schedule.blocks > 0 && (a.classes > 0 || a.forward);
    if constexpr (sizeof(T) != 8) {
      bool done = false;
      if (runs && !schedule.columns && takes_clusters<T>(a)) {
        const cudaError_t error = launch_clusters_of_rows<T>(a, &done);
        if (error != cudaSuccess || done) return error;
      }
    }
    if (runs) return launch_loss<T>(a, loss_schedule<T>(a, column_width<T>(a)));
    if (a.partials == nullptr) return cudaSuccess;
    return add_sums(a, 0, total_of_call<T>(a));
  });
}

}  // namespace fused_mixup
