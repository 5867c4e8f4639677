// draw_plan: draws partners, λ, boxes and weights of a batch in one launch, or two.
//
// Fused: random words, keys and their sort, the match of partners, λ, boxes, the weights of labels
// and values, and the step of the state. docs/drawing.md specifies what is drawn;
// csrc/common/draw.h computes it. Read: the state, and labels or partners where given. Written: the
// plan, 28 bytes and a box per sample.
//
// One block draws up to 512 samples, a thread for each. The partner of a sample depends on the keys
// of all samples, and the state may step only after all threads have read it: both need a barrier
// across all threads that draw, and a launch has no barrier between blocks. In larger batches that
// block draws the partners alone, and a second grid the rows, which depend on no other row. Batches
// beyond kNear sort in the memory of the plan, which is written last, so that no scratch is
// allocated.
#pragma once

#include "../common/draw.h"
#include "dependent.cuh"
#include "plan_sort.cuh"

namespace fused_mixup {

constexpr int kPlanThreads = 512;
constexpr int kRowsThreads = 128;
constexpr int kNear = 1024;           // samples whose MatchScratch fits into shared memory
constexpr int32_t kNobody = 1 << 20;  // no sample

struct PlanArgs {
  int64_t* state;          // device [4]
  const double* settings;  // device [6], or null for draw.setting
  DrawArgs draw;
  int batch, per, pairing;
  bool rows;              // plan_kernel draws the rows too
  const int64_t* labels;  // device [B], for kCrossClass
  const int32_t* given;   // device [B], for kTensor
  const int32_t* sample;  // device [B], the samples' indices in a larger batch, or null
  int32_t* partner;       // device [B]
  float* weight;          // device [B, 2]
  double* blend;          // device [B, 2], 16-byte aligned
  int32_t* box;           // device [B, 2D]
  bool mix_starts_early;  // a kernel that takes the plan may come before this one has ended
  cudaStream_t stream;
};

struct PlanShared {
  int64_t state[kStateWords];
  DrawArgs draw;
  DrawnRow row;     // for kPerBatch: serves all samples that are mixed
  int32_t largest;  // size of the largest class
};

// The scratch of match(), 24 bytes per sample, which is as much as the weights of a sample take.
struct MatchScratch {
  int64_t* keys;     // [B]
  int32_t* holder;   // [2B], a hash table: the first sample of the class in each slot
  int32_t* slot;     // [B], the slot of each sample's class
  int32_t* members;  // [B], how many samples a class has so far, by its first sample

  __device__ __forceinline__ MatchScratch(void* first16, void* last8, int batch)
      : keys(static_cast<int64_t*>(first16)),
        holder(reinterpret_cast<int32_t*>(keys + batch)),
        slot(static_cast<int32_t*>(last8)),
        members(slot + batch) {}
};

// The slot of the class of sample i. A slot never passes to another class, so the label of the
// sample that it holds, which no thread writes, names its class.
__device__ __forceinline__ int claim_slot(const int64_t* labels, int i, int32_t* holder,
                                          int slots) {
  const int64_t label = labels[i];
  // The factor, 2^64 over the golden ratio, takes neighbouring labels far apart.
  const uint64_t mixed = static_cast<uint64_t>(label) * 0x9E3779B97F4A7C15u;
  int slot = static_cast<int>(below(static_cast<uint32_t>(mixed >> 32), slots));
  for (;;) {
    const int32_t other = atomicCAS(holder + slot, kNobody, i);
    if (other == kNobody) return slot;
    if (labels[other] == label) {
      atomicMin(holder + slot, i);
      return slot;
    }
    slot = slot + 1 < slots ? slot + 1 : 0;
  }
}

// Makes the keys of the pairing across classes. Raises `largest` from 0 to the size of the largest
// class.
__device__ __forceinline__ void class_keys(const PlanArgs& a, const Stream& stream,
                                           const MatchScratch& at, int32_t* largest) {
  const int tid = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  for (int i = tid; i < a.batch; i += threads) {
    at.holder[2 * i] = at.holder[2 * i + 1] = kNobody;
    at.members[i] = 0;
  }
  __syncthreads();  // the table is empty before a slot is claimed
  for (int i = tid; i < a.batch; i += threads) {
    at.slot[i] = claim_slot(a.labels, i, at.holder, 2 * a.batch);
  }
  __syncthreads();  // each slot holds the first of its class
  int most = 0;
  for (int i = tid; i < a.batch; i += threads) {
    const int32_t leader = at.holder[at.slot[i]];
    const int count = atomicAdd(at.members + leader, 1) + 1;
    most = count > most ? count : most;
    at.keys[i] = class_key(stream, static_cast<uint32_t>(i), static_cast<uint32_t>(leader));
  }
  atomicMax(largest, most);
}

// Draws partners by a sort: shuffle, derangement and across classes.
__device__ __forceinline__ void match(const PlanArgs& a, const Stream& stream, PlanShared& shared) {
  const int tid = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  unsigned char* near = static_cast<unsigned char*>(dynamic_shared());
  const bool is_near = a.batch <= kNear;
  const MatchScratch at(is_near ? near : static_cast<void*>(a.blend),
                        is_near ? near + 16 * a.batch : static_cast<void*>(a.weight), a.batch);
  if (a.pairing == kCrossClass) {
    class_keys(a, stream, at, &shared.largest);
  } else {
    for (int i = tid; i < a.batch; i += threads) {
      at.keys[i] = order_key(stream, static_cast<uint32_t>(i));
    }
  }
  __syncthreads();  // all keys are written
  if (is_near) {
    sort_keys(at.keys, a.batch);
  } else {
    sort_keys_by(reinterpret_cast<int64_t*>(near), at.keys, a.batch);
  }
  const int shift =
      a.pairing == kCrossClass ? static_cast<int>(class_shift(stream, shared.largest, a.batch)) : 1;
  const auto sample_at = [&](int64_t p) {
    return static_cast<int32_t>(at.keys[p] & (kMaxDrawn - 1));
  };
  for (int p = tid; p < a.batch; p += threads) {
    if (a.pairing == kShuffle && a.per != kPerPair) {
      a.partner[p] = sample_at(p);
    } else {
      a.partner[sample_at(p)] = sample_at(matched_place(p, a.batch, a.per, shift));
    }
  }
  __syncthreads();  // all partners are written, and no thread reads keys where rows will be written
}

__device__ __forceinline__ void put_row(const PlanArgs& a, int i, const DrawnRow& row, bool known) {
  const int d = a.draw.spatial;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    a.weight[2 * i + k] = known ? row.weight[k] : NAN;
    a.blend[2 * i + k] = known ? row.blend[k] : NAN;
  }
#pragma unroll
  for (int k = 0; k < kMaxSpatial; ++k) {
    if (k >= d) break;
    a.box[2 * d * i + k] = row.start[k];
    a.box[2 * d * i + d + k] = row.stop[k];
  }
}

// Reads state and settings, and draws the row that serves the whole batch. By one thread, so that
// the state can step without another barrier.
__device__ __forceinline__ void read_state(const PlanArgs& a, bool rows, PlanShared& shared) {
  for (int k = 0; k < kStateWords; ++k) shared.state[k] = a.state[k];
  shared.draw = a.draw;
  if (a.settings != nullptr) {
    for (int k = 0; k < kSettings; ++k) shared.draw.setting[k] = a.settings[k];
  }
  shared.largest = 0;
  if (!a.rows && rows &&
      shared.state[kVersionWord] == kStateVersion) {  // plan_kernel has stepped it
    const uint64_t step = static_cast<uint64_t>(shared.state[kStepWord]) - 1;
    shared.state[kStepWord] = static_cast<int64_t>(step);
  }
  if (rows && a.per == kPerBatch) {
    // The row passes through a local variable: the compiler would not report the writes of a result
    // that is built in place to the race detector.
    const DrawnRow row = draw_row(Stream(shared.state), shared.draw, 0, true);
    shared.row = row;
  }
}

__device__ __forceinline__ void draw_sample(const PlanArgs& a, const PlanShared& shared,
                                            const Stream& stream, bool known, int i) {
  const int partner = a.partner[i], own = a.sample != nullptr ? a.sample[i] : i;
  const bool mixes = partner != own;
  if (a.per == kPerBatch && mixes) return put_row(a, i, shared.row, known);
  const int unit = a.per == kPerPair && partner < own ? partner : own;
  put_row(a, i, draw_row(stream, shared.draw, static_cast<uint32_t>(unit), mixes), known);
}

__global__ void __launch_bounds__(kPlanThreads, 1) plan_kernel(const __grid_constant__ PlanArgs a) {
  if (a.mix_starts_early) let_next_start();
  PlanShared& shared = block_shared<PlanShared>();
  const int tid = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  // 1. The state.
  if (tid == 0) read_state(a, a.rows, shared);
  __syncthreads();  // state, settings and the shared row are written
  const Stream stream(shared.state);
  const bool known = shared.state[kVersionWord] == kStateVersion;
  // 2. Partners.
  if (a.pairing >= kShuffle) match(a, stream, shared);
  // 3. Rows.
  for (int i = tid; i < a.batch; i += threads) {
    if (a.pairing < kShuffle) {
      a.partner[i] = a.sample != nullptr
                         ? a.given[i]
                         : static_cast<int>(partner_of(a.pairing, a.given, i, a.batch));
    }
    if (a.rows) draw_sample(a, shared, stream, known, i);
  }
  if (tid == 0 && known) {
    a.state[kStepWord] = static_cast<int64_t>(static_cast<uint64_t>(shared.state[kStepWord]) + 1);
  }
}

// The rows of a larger batch, after plan_kernel: a thread for each sample.
__global__ void __launch_bounds__(kRowsThreads)
    plan_rows_kernel(const __grid_constant__ PlanArgs a) {
  PlanShared& shared = block_shared<PlanShared>();
  if (threadIdx.x == 0) read_state(a, true, shared);
  __syncthreads();  // state, settings and the shared row are written
  const int i = static_cast<int>(blockIdx.x * kRowsThreads + threadIdx.x);
  if (i >= a.batch) return;
  const bool known = shared.state[kVersionWord] == kStateVersion;
  draw_sample(a, shared, Stream(shared.state), known, i);
}

// Draws the partners and steps the state; with a.rows draws the rows too.
inline cudaError_t draw_partners(const PlanArgs& a) {
  // An empty batch advances the state too.
  const int warps = a.batch > 0 ? (a.batch + 31) / 32 : 1;
  const int threads = 32 * warps < kPlanThreads ? 32 * warps : kPlanThreads;
  size_t memory = 0;
  if (a.pairing >= kShuffle) {
    memory = a.batch <= kNear ? size_t{24} * a.batch : sizeof(int64_t) * kChunk;
  }
  return launch(plan_kernel, 1, dim3(static_cast<unsigned>(threads)), memory, a.stream, a);
}

inline cudaError_t draw_plan(PlanArgs a) {
  a.rows = a.batch <= kPlanThreads;
  const cudaError_t error = draw_partners(a);
  if (a.rows || error != cudaSuccess) return error;
  const int64_t blocks = (a.batch + kRowsThreads - 1) / kRowsThreads;
  return launch(plan_rows_kernel, blocks, dim3(kRowsThreads), 0, a.stream, a);
}

}  // namespace fused_mixup
