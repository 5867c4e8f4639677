// Out of place, any pairing: roll, a partner tensor, and the transposes of both.
//
// Each element is read once from memory and once more, as a partner's, from L2, and written once.
// Blocks are numbered with the batch fastest, so that all samples of one column are in flight
// together and a partner's vector is in L2 when it is read again.
#pragma once

#include "mix_rows.cuh"

namespace fused_mixup {

template <int V>
constexpr int kGatherUnroll = V > 1 ? 2 : 4;

template <typename T, int V, bool kBox>
__global__ void __launch_bounds__(kThreads) gather_kernel(const __grid_constant__ MixParams p) {
  if (p.awaits) await_earlier();
  constexpr int U = kGatherUnroll<V>;
  const uint32_t chunk = p.row_blocks.div(blockIdx.x);
  const int64_t i = int64_t{blockIdx.x - chunk * p.row_blocks.divisor} * blockDim.y + threadIdx.y;
  if (i >= p.pairs) return;
  const T* own_row = src_row<T>(p, i);
  const T* other_row = src_row<T>(p, partner_of(p.pairing, p.partner, i, p.batch));
  const RowState<T, kBox> state(p, i);
  const uint32_t first = chunk * blockDim.x * U + threadIdx.x;
  Vec<T, V> own[U], other[U];
  Span span[U];
  Offsets at[U];
#pragma unroll
  for (int u = 0; u < U; ++u) {
    // There is no branch here, so that the loads of all u are in flight together.
    const bool active = first + u * blockDim.x < p.geo.count;
    const uint32_t v = active ? first + u * blockDim.x : 0;
    span[u] = state.template span<V>(p.geo, coordinates<kBox, V>(p.geo, v));
    at[u] = offsets_of<V>(p.geo, v);
    const bool need_own = active && !span[u].template full<V>();
    const bool need_other = active && (!state.weights.keep || !span[u].empty());
    own[u] = other[u] = Vec<T, V>{};
    if (need_own) own[u] = load<V>(own_row + at[u].src);
    if (need_other) other[u] = load<V>(other_row + at[u].src);
  }
#pragma unroll
  for (int u = 0; u < U; ++u) {
    if (first + u * blockDim.x >= p.geo.count) continue;
    store_once(dst_row<T>(p, i) + at[u].dst, combine(own[u], other[u], state.weights, span[u]));
  }
}

// grad_j = own part of j + the partner parts of the rows whose partner j is, summed in their order.
template <typename T, int V, bool kBox>
__global__ void __launch_bounds__(kThreads) scatter_kernel(const __grid_constant__ MixParams p) {
  constexpr int U = kGatherUnroll<V>;
  using A = typename Number<T>::Acc;
  const uint32_t chunk = p.row_blocks.div(blockIdx.x);
  const int64_t j = int64_t{blockIdx.x - chunk * p.row_blocks.divisor} * blockDim.y + threadIdx.y;
  if (j >= p.pairs) return;
  const uint32_t first = chunk * blockDim.x * U + threadIdx.x;
  A sum[U][V];
  Vec<T, V> grad[U], sent[U];
  Span span[U];
  Coordinates c[U];
  Offsets at[U];
#pragma unroll
  for (int u = 0; u < U; ++u) {
    // Beyond the end a thread reads vector 0, and writes nothing below.
    const uint32_t v = first + u * blockDim.x < p.geo.count ? first + u * blockDim.x : 0;
    c[u] = coordinates<kBox, V>(p.geo, v);
    at[u] = offsets_of<V>(p.geo, v);
  }
  // All loads of the row and of its first sender, mostly the only one, are in flight before the
  // first vector is taken apart, where the thread waits.
  int64_t begin = 0, end = 1, i = j + 1 == p.batch ? 0 : j + 1;  // roll: the partner of j+1 alone
  if (p.pairing == kTensor) {
    // Of a permutation the senders lie in order: the first is there with the offsets.
    const int64_t guess = partner_of(kTensor, p.sources, j, p.batch);
    // Clamped, as the caller's tensors must not lead out of bounds.
    begin = p.offsets[j] < 0 ? 0 : p.offsets[j];
    end = p.offsets[j + 1] > p.batch ? p.batch : p.offsets[j + 1];
    i = guess;
    if (begin != j && begin < end) i = partner_of(kTensor, p.sources, begin, p.batch);
  }
#pragma unroll
  for (int u = 0; u < U; ++u) grad[u] = load_if<V>(true, src_row<T>(p, j) + at[u].src);
  RowState<T, kBox> sender(p, i);
  const auto load_sent = [&](bool any) {
#pragma unroll
    for (int u = 0; u < U; ++u) {
      span[u] = sender.template span<V>(p.geo, c[u]);
      // Without boxes the loads do not wait for the weights.
      const bool needed = any && (!kBox || !span[u].empty() || sender.weights.w1 != A(0));
      sent[u] = load_if<V>(needed, src_row<T>(p, i) + at[u].src);
    }
  };
  load_sent(begin < end);
  const RowState<T, kBox> state(p, j);
#pragma unroll
  for (int u = 0; u < U; ++u) {
    own_part(grad[u], state.weights, state.template span<V>(p.geo, c[u]), sum[u]);
  }
#pragma unroll 1
  for (int64_t s = begin; s < end;) {
#pragma unroll
    for (int u = 0; u < U; ++u) add_partner_part(sent[u], sender.weights, span[u], sum[u]);
    if (++s == end) break;
    i = partner_of(kTensor, p.sources, s, p.batch);
    sender = RowState<T, kBox>(p, i);
    load_sent(true);
  }
#pragma unroll
  for (int u = 0; u < U; ++u) {
    if (first + u * blockDim.x >= p.geo.count) continue;
    store_once(dst_row<T>(p, j) + at[u].dst, rounded<T, V>(sum[u]));
  }
}

template <typename T, int V, bool kBox, bool kTransposed>
cudaError_t launch_gather(MixParams p, cudaStream_t stream) {
  dim3 block;
  constexpr int U = kGatherUnroll<V>;
  const int64_t blocks = set_grid<U>(&p, p.batch, 1, &block);
  if constexpr (kTransposed) {
    return launch(scatter_kernel<T, V, kBox>, blocks, block, 0, stream, p);
  } else {
    return launch_dependent(p.awaits, gather_kernel<T, V, kBox>, blocks, block, 0, stream, p);
  }
}

}  // namespace fused_mixup
