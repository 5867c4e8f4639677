// draw_neighbors: draws a partner for each sample among those with labels near by, in one launch.
//
// Fused: squared distances, their kernel, its sum, the place in the sum and the search for it, and
// the step of the state. docs/tables.md specifies what is drawn; csrc/common/neighbors.h computes
// it. Read: per pair of samples 4·D or 8·D bytes of labels, which all warps read at about the same
// time, so that they come from the caches; twice, as the sum is known only at its end (three times
// with a pool, whose nearest label comes first). Written: 4 bytes a sample. No matrix is held.
//
// A warp has a sample, a lane every 32nd label. Weights are whole numbers: their sum does not
// depend on how lanes share them.
//
// The state may step only after every block has read it, and a launch has no barrier between
// blocks. So blocks count themselves in the upper half of the stream's word, of which a stream uses
// the lower one, and the last one clears the count and steps.
#pragma once

#include "../common/neighbors.h"
#include "launch.cuh"

namespace fused_mixup {

constexpr int kNeighborThreads = 256;
constexpr int64_t kNeighborBlocks = 4096;  // more than any GPU has in flight

struct NeighborLaunch {
  int64_t* state;          // device [4]
  const double* settings;  // device [1], or null for bandwidth
  double bandwidth;
  int kernel;
  const void* labels;  // device [B, D], at these strides
  const void* pool;    // device [N, D], or null for labels
  int64_t label_stride[2], pool_stride[2];
  int64_t batch, count, dims;
  int32_t* partner;     // device [B]
  int64_t most_blocks;  // kNeighborBlocks; fewer only in tests
  cudaStream_t stream;
};

struct NeighborShared {
  int64_t state[kStateWords];
};

// A word that another block may be writing.
__device__ inline int64_t read_shared_word(int64_t* p) {
  return static_cast<int64_t>(atomicAdd(reinterpret_cast<unsigned long long*>(p), 0ull));
}

// Reads the state into `words`; the last block to do so steps it.
__device__ inline void take_state(int64_t* state, int64_t* words) {
  for (int k = 0; k < kStateWords; ++k) {
    if (k != kStreamWord) words[k] = read_shared_word(state + k);
  }
  __threadfence();  // this block counts itself once it has read
  auto* stream = reinterpret_cast<unsigned long long*>(state + kStreamWord);
  const unsigned long long before = atomicAdd(stream, 1ull << 32);
  words[kStreamWord] = static_cast<int64_t>(before & 0xFFFFFFFFull);
  if ((before >> 32) + 1 != gridDim.x) return;
  atomicExch(stream, before & 0xFFFFFFFFull);
  if (words[kVersionWord] != kStateVersion) return;
  atomicAdd(reinterpret_cast<unsigned long long*>(state + kStepWord), 1ull);
}

template <typename T>
__device__ __forceinline__ Real squared_distance(const T* a, int64_t a_stride, const T* b,
                                                 int64_t b_stride, int64_t dims) {
  Real sum = 0.0;
  for (int64_t d = 0; d < dims; ++d) {
    const Real gap =
        Real(static_cast<double>(a[d * a_stride])) - Real(static_cast<double>(b[d * b_stride]));
    sum = sum + gap * gap;
  }
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(kNeighborThreads)
    neighbor_kernel(const __grid_constant__ NeighborLaunch a) {
  constexpr unsigned kAll = 0xFFFFFFFFu;
  NeighborShared& shared = block_shared<NeighborShared>();
  if (threadIdx.x == 0) take_state(a.state, shared.state);
  __syncthreads();  // the state is read
  const Stream stream(shared.state);
  const bool known = shared.state[kVersionWord] == kStateVersion;
  const NeighborLaw law(a.settings != nullptr ? *a.settings : a.bandwidth, a.kernel);
  const T* labels = static_cast<const T*>(a.labels);
  const T* pool = a.pool != nullptr ? static_cast<const T*>(a.pool) : labels;
  const int64_t* across = a.pool != nullptr ? a.pool_stride : a.label_stride;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t warps = kNeighborThreads / 32;
  for (int64_t i = blockIdx.x * warps + threadIdx.x / 32; i < a.batch; i += gridDim.x * warps) {
    const T* own = labels + i * a.label_stride[0];
    const auto distance = [&](int64_t j) {
      return squared_distance(own, a.label_stride[1], pool + j * across[0], across[1], a.dims);
    };
    // 1. The nearest label. Among its own batch a sample is its own nearest, at 0.
    double nearest = 0.0;
    if (a.pool != nullptr) {
      nearest = real_of_bits(0x7FF0000000000000u).value;  // infinity
      for (int64_t j = lane; j < a.count; j += 32) {
        const double d = distance(j).value;
        if (d < nearest) nearest = d;  // false for NaN
      }
      for (int by = 16; by > 0; by /= 2) {
        const double other = __shfl_xor_sync(kAll, nearest, by);
        if (other < nearest) nearest = other;
      }
    }
    // 2. The sum of the weights.
    unsigned long long total = 0;
    for (int64_t j = lane; j < a.count; j += 32) total += law.weight(distance(j), nearest);
    for (int by = 16; by > 0; by /= 2) total += __shfl_xor_sync(kAll, total, by);
    // 3. The label that holds the place drawn. All lanes know the same place and sums.
    int64_t chosen = i < a.count ? i : a.count - 1;
    if (known && total > 0) {
      const unsigned long long place = neighbor_place(stream, static_cast<uint32_t>(i), total);
      unsigned long long passed = 0;
      for (int64_t first = 0; first < a.count; first += 32) {
        const int64_t j = first + lane;
        unsigned long long upto = j < a.count ? law.weight(distance(j), nearest) : 0;
        for (int by = 1; by < 32; by *= 2) {
          const unsigned long long before = __shfl_up_sync(kAll, upto, by);
          if (lane >= by) upto += before;
        }
        const unsigned found = __ballot_sync(kAll, passed + upto > place);
        if (found != 0) {
          int ahead = 0;
          while ((found >> ahead & 1) == 0) ++ahead;
          chosen = first + ahead;
          break;
        }
        passed += __shfl_sync(kAll, upto, 31);
      }
    }
    if (lane == 0) a.partner[i] = static_cast<int32_t>(chosen);
  }
}

template <typename T>
cudaError_t draw_neighbors(const NeighborLaunch& a) {
  const int64_t warps = kNeighborThreads / 32;
  int64_t blocks = (a.batch + warps - 1) / warps;
  if (blocks > a.most_blocks) blocks = a.most_blocks;
  if (blocks < 1) blocks = 1;  // an empty batch advances the state too
  return launch(neighbor_kernel<T>, blocks, dim3(kNeighborThreads), 0, a.stream, a);
}

}  // namespace fused_mixup
