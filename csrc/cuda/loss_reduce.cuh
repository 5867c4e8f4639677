// Sums over rows, in a fixed order: every run gives the same bits.
//
// Every block of a loss kernel writes one LossSum. The block that is the last to finish adds them
// all, in the order of the blocks, so that its number does not matter. Where there are more than it
// should add, reduce_kernel does; it also counts the rows of a target where the gradient needs
// their number before.
#pragma once

#include "loss_args.cuh"

namespace fused_mixup {

constexpr int kReduceThreads = 512;
constexpr int64_t kReduceBlocks = 512;
constexpr int64_t kReduceShare = 8192;    // sums for one block, before a second one joins
constexpr int64_t kLastBlockSums = 2048;  // for the last block of a loss kernel

struct ReduceArgs {
  const LossSum* partials;  // [count], or null to count the rows of `target`
  int64_t count;
  LossSum* sums;  // [blocks]: scratch
  unsigned* ticket;
  Total total;
  CallArgs target;  // for kRows
  int64_t ignore_index;
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

// An empty batch has the sum 0 and the mean NaN, as in PyTorch; so has a batch of ignored rows
// alone.
__device__ __forceinline__ void write_total(const Total& total, LossSum sum) {
  const double loss = sum.loss / (total.divisor != 0.0 ? total.divisor : sum.count);
  if (total.wide) {
    if (total.loss != nullptr) *static_cast<double*>(total.loss) = loss;
    if (total.count != nullptr) *static_cast<double*>(total.count) = sum.count;
  } else {
    if (total.loss != nullptr) *static_cast<float*>(total.loss) = static_cast<float>(loss);
    if (total.count != nullptr) *static_cast<float*>(total.count) = static_cast<float>(sum.count);
  }
}

// Adds the sums of all threads of all blocks. Every block leaves its own in sums [blocks], and the
// last one to do so adds them; without a ticket another kernel does. All threads of a block call
// this.
__device__ __forceinline__ void finish_sums(LossSum* sums, unsigned* ticket, const Total& total,
                                            LossSum sum) {
  sum = block_sum(sum);
  if (ticket == nullptr) {
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
    return;
  }
  bool& last = block_shared<bool>();
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = sum;
    __threadfence();  // its sum is there before its ticket is counted
    // Wraps to 0: the ticket serves the next kernel too.
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();  // the other sums are read after their tickets were counted
  }
  __syncthreads();  // all threads know; and thread 0 has read what block_sum() shares
  if (!last) return;
  sum = {0.0, 0.0};
#pragma unroll 4  // four loads in flight: a lone block waits for each round of loads
  for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) {
    const double2 one = __ldcg(reinterpret_cast<const double2*>(sums) + i);
    sum.loss += one.x;
    sum.count += one.y;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) write_total(total, sum);
}

// Whether a row of a sparse target with these labels counts.
__device__ __forceinline__ bool counts(const CallArgs& a, int64_t ignore_index, int64_t row,
                                       int64_t y0, int64_t y1) {
  const bool own = y0 != ignore_index, other = y1 != ignore_index;
  if (own && other) return true;
  const LabelWeights<float> weights(a.weight, a.weight_row, quotient(row, a.positions));
  const bool poisoned =
      (own && (y0 < 0 || y0 >= a.classes)) || (other && (y1 < 0 || y1 >= a.classes));
  return poisoned || (own && weights.own != 0.0f) || (other && weights.other != 0.0f);
}

// How many rows count of those from `first` to `end`, in steps of the threads of a block.
__device__ __forceinline__ double count_share(const CallArgs& a, int64_t ignore_index,
                                              int64_t first, int64_t end) {
  constexpr int N = 4;  // rows whose labels are in flight
  const int64_t step = blockDim.x;
  int64_t count = 0;
  for (int64_t row = first; row < end; row += N * step) {
    int64_t own[N], other[N];
#pragma unroll
    for (int u = 0; u < N; ++u) {
      if (row + u * step >= end) continue;
      own[u] = a.labels[row + u * step];
      other[u] = a.partner_labels[row + u * step];
    }
#pragma unroll
    for (int u = 0; u < N; ++u) {
      if (row + u * step >= end) continue;
      count += counts(a, ignore_index, row + u * step, own[u], other[u]);
    }
  }
  return static_cast<double>(count);
}

// The number of rows that count, for all threads of a block, each of which counts some.
__device__ __forceinline__ double count_in_block(const LossArgs& a) {
  double& count = block_shared<double>();
  const double share = count_share(a, a.ignore_index, threadIdx.x, a.rows());
  const LossSum sum = block_sum({0.0, share});
  if (threadIdx.x == 0) count = sum.count;
  __syncthreads();  // all threads read what thread 0 wrote
  return count;
}

template <bool kRows>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(const __grid_constant__ ReduceArgs a) {
  const int64_t share = (a.count + gridDim.x - 1) / gridDim.x;
  const int64_t first = share * blockIdx.x;
  const int64_t end = first + share < a.count ? first + share : a.count;
  LossSum sum{0.0, 0.0};
  if constexpr (kRows) {
    sum.count = count_share(a.target, a.ignore_index, first + threadIdx.x, end);
  } else {
#pragma unroll 4  // as in finish_sums()
    for (int64_t i = first + threadIdx.x; i < end; i += kReduceThreads) {
      sum.loss += a.partials[i].loss;
      sum.count += a.partials[i].count;
    }
  }
  finish_sums(a.sums, a.ticket, a.total, sum);
}

template <bool kRows>
cudaError_t reduce(ReduceArgs a, const CallArgs& call, LossSum* scratch) {
  const int64_t shares = (a.count + kReduceShare - 1) / kReduceShare;
  const int64_t blocks = shares < 1 ? 1 : shares < kReduceBlocks ? shares : kReduceBlocks;
  a.sums = scratch;
  const cudaError_t error =
      fresh_ticket(call.stream, reinterpret_cast<unsigned*>(scratch + kReduceBlocks), &a.ticket);
  if (error != cudaSuccess) return error;
  return launch(reduce_kernel<kRows>, blocks, dim3(kReduceThreads), 0, call.stream, a);
}

// The scratch of a call, in LossSums: those of up to `blocks` blocks, those of reduce(), a ticket.
inline int64_t sum_scratch(int64_t blocks) { return blocks + kReduceBlocks + 1; }

// Adds the sums of `blocks` blocks.
inline cudaError_t add_sums(const CallArgs& call, int64_t blocks, const Total& total) {
  ReduceArgs a = {};
  a.partials = call.partials;
  a.count = blocks;
  a.total = total;
  return reduce<false>(a, call, call.partials + blocks);
}

// Counts the rows that are not ignored, from labels and weights alone. blocks: of the call.
inline cudaError_t count_rows(const CallArgs& call, int64_t ignore_index, const Total& total,
                              int64_t blocks) {
  ReduceArgs a = {};
  a.count = call.rows();
  a.total = total;
  a.target = call;
  a.ignore_index = ignore_index;
  return reduce<true>(a, call, call.partials + blocks);
}

// What a call makes of the sum over its rows.
template <typename T>
Total total_of_call(const LossArgs& a) {
  return {sizeof(T) == 8, a.reduction == kMean ? 0.0 : 1.0, a.loss, a.count};
}

// Whether a gradient divides by the number of rows that count before the loss has been summed.
inline bool needs_count(const LossArgs& a) {
  return a.forward && a.grad != nullptr && a.reduction == kMean && a.can_ignore();
}

// Counts the rows in a kernel before the one that has `blocks` sums.
template <typename T>
cudaError_t count_before(const LossArgs& a, int64_t blocks) {
  return count_rows(a, a.ignore_index, {sizeof(T) == 8, 1.0, nullptr, a.count}, blocks);
}

// Launches a kernel of a loss, and adds the sums of its blocks, where a loss is asked for.
template <typename Kernel, typename Params>
cudaError_t launch_summed(Kernel* kernel, int64_t blocks, int threads, Params p) {
  const CallArgs& call = p.a;
  const bool sums = call.partials != nullptr, last_block = blocks <= kLastBlockSums;
  cudaError_t error = cudaSuccess;
  if (sums && last_block) {
    LossSum* spare = call.partials + blocks;
    error = fresh_ticket(call.stream, reinterpret_cast<unsigned*>(spare), &p.a.ticket);
  }
  if (error == cudaSuccess) error = launch(kernel, blocks, dim3(threads), 0, call.stream, p);
  if (error != cudaSuccess || !sums || last_block) return error;
  return add_sums(call, blocks, p.result);
}

}  // namespace fused_mixup
