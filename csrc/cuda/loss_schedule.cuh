// Which kernel a loss runs on, rows or columns of adjacent positions, and on how many blocks.
#pragma once

#include "loss_args.cuh"

namespace fused_mixup {

constexpr int kColumnThreads = 128;

// Rows, or columns: vectors of `width` positions, each shared by `slices` threads.
struct LossSchedule {
  bool columns;
  int width, slices;
  int64_t blocks;
};

// Whether vectors of v positions can be read.
inline bool column_vectors(const CallArgs& a, int v) {
  const auto fits = [&](const void* base, const Strides& at) {
    return aligned16(base) && at.positions == 1 && at.classes % v == 0 &&
           (a.batch == 1 || at.batch % v == 0);
  };
  return a.positions % v == 0 && fits(a.logits, a.logits_at) &&
         (a.grad == nullptr || fits(a.grad, a.grad_at)) &&
         (a.target == nullptr || fits(a.target, a.target_at));
}

// This many threads fill a large GPU, with 4 loads of 16 bytes in flight per thread.
constexpr int64_t kEnoughThreads = 128 * 1024;
// How many bytes a block may read between the two sweeps of loss and gradient: six blocks on each
// of 132 multiprocessors then take half of an H100's L2.
constexpr int64_t kSweptTwice = 32 * 1024;

template <typename T>
int64_t row_blocks(const CallArgs& a) {
  return threads_per_row<T>(a.classes) == 32 ? (a.rows() + kWarpRows - 1) / kWarpRows : a.rows();
}

// width: positions in a vector of the kernel, 1 where it has no vectors.
template <typename T>
LossSchedule loss_schedule(const CallArgs& a, int width) {
  LossSchedule schedule = {false, 1, 1, row_blocks<T>(a)};
  // Doubles take rows: a sector holds only four of them, which costs little to read class by class.
  if (sizeof(T) == 8 || a.positions == 1 || a.logits_at.positions != 1) return schedule;
  if (a.grad != nullptr && a.grad_at.positions != 1) return schedule;
  schedule.width = column_vectors(a, width) ? width : 1;
  const int64_t vectors = a.rows() / schedule.width;
  // A slice reads whole pieces of 64 bytes, and at least as many classes as it has loads in flight.
  const int narrowest = 64 / (schedule.width * static_cast<int>(sizeof(T)));
  const auto wants_more = [&] {
    const int64_t swept = kColumnThreads / schedule.slices * schedule.width *
                          static_cast<int64_t>(sizeof(T)) * a.classes;
    return vectors * schedule.slices < kEnoughThreads ||
           (a.forward && a.grad != nullptr && swept > kSweptTwice);
  };
  while (kColumnThreads / schedule.slices > narrowest &&
         schedule.slices * kLossUnroll < a.classes && wants_more()) {
    schedule.slices *= 2;
  }
  // Few positions of many classes take rows: a block each, though it uses little of what it reads.
  if (vectors * schedule.slices < kEnoughThreads / 8 && a.classes >= 1024) return schedule;
  const int64_t lanes = kColumnThreads / schedule.slices;
  schedule.columns = true;
  schedule.blocks = (vectors + lanes - 1) / lanes;
  return schedule;
}

}  // namespace fused_mixup
