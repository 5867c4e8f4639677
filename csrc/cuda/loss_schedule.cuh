// Which kernel a loss runs on: rows, or columns of adjacent positions.
#pragma once

#include "loss_args.cuh"
#include "row_cut.cuh"

namespace fused_mixup {

constexpr int kLossUnroll = 4;  // 16-byte loads in flight per thread
constexpr int kColumnThreads = 128;

// How a call is cut: rows, or columns of `width` positions shared by `slices` threads each.
struct LossPlan {
  bool columns;
  int width, slices;
  int64_t blocks;
};

// Whether positions can be read by v at once.
inline bool column_vectors(const CallArgs& a, int v) {
  const auto fits = [&](const void* base, const Strides& at) {
    return aligned16(base) && at.positions == 1 && at.classes % v == 0 &&
           (a.batch == 1 || at.batch % v == 0);
  };
  return a.positions % v == 0 && fits(a.logits, a.logits_at) &&
         (a.grad == nullptr || fits(a.grad, a.grad_at)) &&
         (a.target == nullptr || fits(a.target, a.target_at));
}

// Threads that keep 4 loads of 16 bytes in flight on every multiprocessor of a large GPU.
constexpr int64_t kEnoughThreads = 128 * 1024;
// What the blocks of a GPU may have between the two sweeps of loss and gradient, per block: six of
// them on 132 multiprocessors are then half of an H100's L2.
constexpr int64_t kSweptTwice = 32 * 1024;

template <typename T>
int64_t row_blocks(const CallArgs& a) {
  return threads_per_row<T>(a.classes) == 32 ? (a.rows() + kWarpRows - 1) / kWarpRows : a.rows();
}

// width: the positions of the kernel's vectors, 1 where it has none.
template <typename T>
LossPlan loss_plan(const CallArgs& a, int width) {
  LossPlan plan = {false, 1, 1, row_blocks<T>(a)};
  // Doubles: a sector holds four of them, few enough to read them class by class.
  if (sizeof(T) == 8 || a.positions == 1 || a.logits_at.positions != 1) return plan;
  if (a.grad != nullptr && a.grad_at.positions != 1) return plan;
  plan.width = column_vectors(a, width) ? width : 1;
  const int64_t vectors = a.rows() / plan.width;
  // A slice reads whole 64-byte pieces, and no fewer classes than it has loads in flight.
  const int narrowest = 64 / (plan.width * static_cast<int>(sizeof(T)));
  const auto wants_more = [&] {
    const int64_t swept =
        kColumnThreads / plan.slices * plan.width * static_cast<int64_t>(sizeof(T)) * a.classes;
    return vectors * plan.slices < kEnoughThreads ||
           (a.forward && a.grad != nullptr && swept > kSweptTwice);
  };
  while (kColumnThreads / plan.slices > narrowest && plan.slices * kLossUnroll < a.classes &&
         wants_more()) {
    plan.slices *= 2;
  }
  // Few positions of many classes: a block for each, though it uses little of what it reads.
  if (vectors * plan.slices < kEnoughThreads / 8 && a.classes >= 1024) return plan;
  const int64_t lanes = kColumnThreads / plan.slices;
  plan.columns = true;
  plan.blocks = (vectors + lanes - 1) / lanes;
  return plan;
}

}  // namespace fused_mixup
