// Sums over rows, in a fixed order: every run gives the same bits.
//
// Every block of a loss kernel writes one LossSum. One block adds a few of them. Up to
// kReduceBlocks blocks add many of them, or count the labels of many rows, and one more block adds
// their sums.
#pragma once

#include "loss_args.cuh"

namespace fused_mixup {

constexpr int kReduceThreads = 512;
constexpr int64_t kReduceBlocks = 512;
constexpr int64_t kReduceShare = 8192;  // sums for one block, before a second one joins

struct ReduceArgs {
  const LossSum* partials;  // [count], or null to count the rows of the target below
  int64_t count;
  LossSum* next;           // [blocks], where there are several
  bool wide;               // whether loss and count are float64
  double divisor;          // divides the loss; 0 for the count
  void *loss, *count_out;  // either may be null
  // For kRows, which counts the rows of a sparse target that are not ignored.
  const int64_t *labels, *partner_labels;
  const float* weight;
  float weight_row[2];
  int64_t positions, classes, ignore_index;
};

// The sum over the threads of a block, through shared memory. Thread 0 returns it.
__device__ __forceinline__ LossSum block_sum(LossSum sum) {
  auto& shared = block_shared<LossSum[32]>();
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) {
    sum.loss += __shfl_xor_sync(0xffffffffu, sum.loss, lane);
    sum.count += __shfl_xor_sync(0xffffffffu, sum.count, lane);
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
  __syncthreads();  // thread 0 reads what every warp wrote
  if (threadIdx.x != 0) return sum;
  sum = shared[0];
  for (unsigned w = 1; w < blockDim.x / 32; ++w) {
    sum.loss += shared[w].loss;
    sum.count += shared[w].count;
  }
  return sum;
}

__device__ __forceinline__ bool counts(const ReduceArgs& a, int64_t row) {
  const int64_t y0 = a.labels[row], y1 = a.partner_labels[row];
  const bool own = y0 != a.ignore_index, other = y1 != a.ignore_index;
  if (own && other) return true;
  const LabelWeights<float> weights(a.weight, a.weight_row, quotient(row, a.positions));
  const bool poisoned =
      (own && (y0 < 0 || y0 >= a.classes)) || (other && (y1 < 0 || y1 >= a.classes));
  return poisoned || (own && weights.own != 0.0f) || (other && weights.other != 0.0f);
}

// An empty batch has the sum 0 and the mean NaN, as in PyTorch; so has a batch of ignored rows
// alone.
template <bool kRows>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(const __grid_constant__ ReduceArgs a) {
  const int64_t share = (a.count + gridDim.x - 1) / gridDim.x;
  const int64_t first = share * blockIdx.x;
  const int64_t end = first + share < a.count ? first + share : a.count;
  LossSum sum{0.0, 0.0};
#pragma unroll 4  // four loads in flight: a lone block waits for each round of loads
  for (int64_t i = first + threadIdx.x; i < end; i += kReduceThreads) {
    if constexpr (kRows) {
      sum.count += counts(a, i) ? 1.0 : 0.0;
    } else {
      sum.loss += a.partials[i].loss;
      sum.count += a.partials[i].count;
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  if (gridDim.x > 1) {
    a.next[blockIdx.x] = sum;
    return;
  }
  const double loss = sum.loss / (a.divisor != 0.0 ? a.divisor : sum.count);
  if (a.wide) {
    if (a.loss != nullptr) *static_cast<double*>(a.loss) = loss;
    if (a.count_out != nullptr) *static_cast<double*>(a.count_out) = sum.count;
  } else {
    if (a.loss != nullptr) *static_cast<float*>(a.loss) = static_cast<float>(loss);
    if (a.count_out != nullptr) *static_cast<float*>(a.count_out) = static_cast<float>(sum.count);
  }
}

// scratch: kReduceBlocks sums.
inline cudaError_t reduce(ReduceArgs a, LossSum* scratch, cudaStream_t stream) {
  const bool rows = a.partials == nullptr && a.labels != nullptr;
  const int64_t shares = (a.count + kReduceShare - 1) / kReduceShare;
  const int64_t blocks = shares < 1 ? 1 : shares < kReduceBlocks ? shares : kReduceBlocks;
  a.next = scratch;
  const dim3 block(kReduceThreads);
  const cudaError_t error = rows ? launch(reduce_kernel<true>, blocks, block, 0, stream, a)
                                 : launch(reduce_kernel<false>, blocks, block, 0, stream, a);
  if (error != cudaSuccess || blocks == 1) return error;
  a.partials = scratch;
  a.count = blocks;
  return launch(reduce_kernel<false>, 1, block, 0, stream, a);
}

// count = the rows that are not ignored, from labels and weights alone.
inline cudaError_t count_rows(const LossArgs& l, LossSum* scratch) {
  ReduceArgs a = {};
  a.count = l.rows();
  a.wide = l.dtype == kDouble;
  a.divisor = 1.0;
  a.count_out = l.count;
  a.labels = l.labels;
  a.partner_labels = l.partner_labels;
  a.weight = l.weight;
  a.weight_row[0] = l.weight_row[0];
  a.weight_row[1] = l.weight_row[1];
  a.positions = l.positions;
  a.classes = l.classes;
  a.ignore_index = l.ignore_index;
  return reduce(a, scratch, l.stream);
}

}  // namespace fused_mixup
