// In place, batches too large for a tile of shared memory: walks the pairing in a safe order.
//
// The pairing is a graph i -> partner_i. A row that is no (longer a) partner of another row can be
// overwritten. Once all such rows are removed, one after the other, only cycles are left; they are
// walked with the first value in a register for the last row. Extra memory: 2 B integers. Each
// element is read up to twice (the second time from cache) and written once.
#pragma once

#include "mix_rows.cuh"

namespace fused_mixup {

constexpr int kOrderThreads = 1024;
constexpr uint32_t kCycleFirst = uint32_t{1} << 31;  // the original of this row has to be kept
constexpr uint32_t kCycleLast = uint32_t{1} << 30;   // the partner is the kept original
constexpr uint32_t kRowMask = kCycleLast - 1;

// Runs as one block. order: [B] rows in a safe order, with the flags above; need: [B] scratch.
__global__ void __launch_bounds__(kOrderThreads)
    order_kernel(const int32_t* partner, int64_t batch, int32_t* order, int32_t* need) {
  int32_t& tail = block_shared<int32_t>();
  const int64_t tid = threadIdx.x, threads = blockDim.x;
  // 1. Count how many rows need row i as their partner.
  for (int64_t i = tid; i < batch; i += threads) need[i] = 0;
  if (tid == 0) tail = 0;
  __syncthreads();  // all counts are zero before the first is raised
  for (int64_t i = tid; i < batch; i += threads) {
    atomicAdd(need + partner_of(kTensor, partner, i, batch), 1);
  }
  __syncthreads();  // all counts are complete before the first is read
  for (int64_t i = tid; i < batch; i += threads) {
    if (need[i] == 0) order[atomicAdd(&tail, 1)] = static_cast<int32_t>(i);
  }
  // 2. Remove rows layer by layer. `order` is the queue: a layer is [head, end).
  for (int32_t head = 0;;) {
    __syncthreads();  // the layer is complete
    const int32_t end = tail;
    __syncthreads();  // all threads have read `tail` before the next layer raises it
    if (head == end) break;
    for (int64_t t = head + tid; t < end; t += threads) {
      const int64_t next = partner_of(kTensor, partner, order[t], batch);
      if (atomicSub(need + next, 1) == 1) {
        order[atomicAdd(&tail, 1)] = static_cast<int32_t>(next);
      }
    }
    head = end;
  }
  // 3. Cycles are left. One thread lists them in B steps; a walk takes B steps too.
  if (tid != 0) return;
  int64_t count = tail;
  for (int64_t first = 0; first < batch; ++first) {
    if (need[first] == 0) continue;
    int64_t at = first;
    do {
      need[at] = 0;
      const int64_t next = partner_of(kTensor, partner, at, batch);
      order[count++] =
          static_cast<int32_t>(static_cast<uint32_t>(at) | (at == first ? kCycleFirst : 0) |
                               (next == first ? kCycleLast : 0));
      at = next;
    } while (at != first);
  }
}

// A thread owns one vector of every sample and walks `order`, four rows at a time. It may read
// ahead, as in this order no row overwrites what a later row reads.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads, 2) walk_kernel(const __grid_constant__ MixParams p) {
  constexpr int U = 4;
  const uint32_t v = blockIdx.x * blockDim.x + threadIdx.x;
  if (v >= p.geo.count) return;
  const Offsets at = offsets_of<V>(p.geo, v);
  const Coordinates c = coordinates_of<V>(p.geo, v);
  Vec<T, V> kept{};
  for (int64_t t = 0; t < p.batch; t += U) {
    Vec<T, V> own[U], other[U];
    uint32_t entry[U];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      own[u] = other[u] = Vec<T, V>{};
      if (t + u >= p.batch) continue;
      if (p.order != nullptr) {
        entry[u] = static_cast<uint32_t>(p.order[t + u]);
      } else {  // roll is one cycle, walked from the last row down
        entry[u] = static_cast<uint32_t>(p.batch - 1 - (t + u)) | (t + u == 0 ? kCycleFirst : 0) |
                   (t + u == p.batch - 1 ? kCycleLast : 0);
      }
      const int64_t i = entry[u] & kRowMask;
      own[u] = load<V>(src_row<T>(p, i) + at.src);
      if ((entry[u] & kCycleLast) == 0) {
        const int64_t j = partner_of(p.pairing, p.partner, i, p.batch);
        other[u] = load<V>(src_row<T>(p, j) + at.src);
      }
    }
#pragma unroll
    for (int u = 0; u < U; ++u) {
      if (t + u >= p.batch) continue;
      const int64_t i = entry[u] & kRowMask;
      if ((entry[u] & kCycleFirst) != 0) kept = own[u];
      if ((entry[u] & kCycleLast) != 0) other[u] = kept;
      const RowState<T, true> state(p, i);
      const Span span = state.template span<V>(p.geo, c);
      if (state.weights.keep && span.empty()) continue;
      store(dst_row<T>(p, i) + at.dst, combine(own[u], other[u], state.weights, span));
    }
  }
}

// scratch: int32 [2 B], or null for roll.
template <typename T, int V>
cudaError_t launch_walk(MixParams p, int32_t* scratch, cudaStream_t stream) {
  if (p.pairing == kTensor) {
    const cudaError_t error = launch(order_kernel, 1, dim3(kOrderThreads), 0, stream, p.partner,
                                     p.batch, scratch, scratch + p.batch);
    if (error != cudaSuccess) return error;
    p.order = scratch;
  }
  const int64_t blocks = (p.geo.count + kThreads - 1) / kThreads;
  return launch(walk_kernel<T, V>, blocks, dim3(kThreads), 0, stream, p);
}

}  // namespace fused_mixup
