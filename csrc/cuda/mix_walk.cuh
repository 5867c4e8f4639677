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

// Vectors in flight per thread, and rows that a block brings into shared memory at once.
template <int V>
constexpr int kWalkUnroll = V > 1 ? 8 : 4;
constexpr int kWalkRows = 256;

template <typename T>
struct WalkRows {
  uint32_t entry[kWalkRows];
  StagedRow<T, true> row[kWalkRows];
};

// A thread owns one vector of every sample and walks `order`, several rows at a time. It may read
// ahead, as in this order no row overwrites what a later row reads. Along a cycle a row's partner
// is the next row, whose own vector is then in a register: it is read once.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads, 2) walk_kernel(const __grid_constant__ MixParams p) {
  constexpr int U = kWalkUnroll<V>;
  WalkRows<T>& rows = block_shared<WalkRows<T>>();
  const uint32_t v = blockIdx.x * blockDim.x + threadIdx.x;
  const bool active = v < p.geo.count;  // others stay too, as the barriers need every thread
  const Offsets at = offsets_of<V>(p.geo, active ? v : 0);
  const Coordinates c = coordinates_of<V>(p.geo, active ? v : 0);
  Vec<T, V> kept{}, last{};  // the first original of a cycle; the partner's of the row before
  int64_t last_row = -1;
  for (int64_t start = 0; start < p.batch; start += kWalkRows) {
    const int count = static_cast<int>(p.batch - start < kWalkRows ? p.batch - start : kWalkRows);
    __syncthreads();  // all threads have walked the rows before
    for (int k = threadIdx.x; k < count; k += kThreads) {
      uint32_t entry;
      if (p.order != nullptr) {
        entry = static_cast<uint32_t>(p.order[start + k]);
      } else {  // roll is one cycle, walked from the last row down
        entry = static_cast<uint32_t>(p.batch - 1 - (start + k)) |
                (start + k == 0 ? kCycleFirst : 0) | (start + k == p.batch - 1 ? kCycleLast : 0);
      }
      rows.entry[k] = entry;
      rows.row[k] = staged_row<T, true>(p, entry & kRowMask);
    }
    __syncthreads();  // the rows are there
    if (!active) continue;
#pragma unroll 1
    for (int t = 0; t < count; t += U) {
      Vec<T, V> own[U], other[U];
      bool follows[U];  // the row is the partner of the row before
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const bool there = t + u < count;
        const int k = there ? t + u : t;
        const int64_t i = rows.entry[k] & kRowMask, j = rows.row[k].partner;
        const bool reads = there && (rows.entry[k] & kCycleLast) == 0;
        follows[u] = i == last_row;
        own[u] = load_once<V>(src_row<T>(p, i) + at.src, there && !follows[u]);
        other[u] = load_once<V>(src_row<T>(p, j) + at.src, reads);
        if (there) last_row = reads ? j : -1;
      }
#pragma unroll
      for (int u = 0; u < U; ++u) {
        if (t + u >= count) continue;
        const uint32_t entry = rows.entry[t + u];
        const RowState<T, true>& state = rows.row[t + u].state;
        if (follows[u]) own[u] = last;
        if ((entry & kCycleFirst) != 0) kept = own[u];
        if ((entry & kCycleLast) != 0) other[u] = kept;
        last = other[u];
        const Span span = state.template span<V>(p.geo, c);
        if (state.weights.keep && span.empty()) continue;
        store_once(dst_row<T>(p, entry & kRowMask) + at.dst,
                   combine(own[u], other[u], state.weights, span));
      }
    }
  }
}

// scratch: int32 [2 B], or null for roll.
template <typename T, int V>
cudaError_t launch_walk(MixParams p, int32_t* scratch, cudaStream_t stream) {
  if (p.batch - 1 > int64_t{kRowMask}) return cudaErrorInvalidValue;  // flags take two bits
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
