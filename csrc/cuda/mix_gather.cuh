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
  const int64_t chunk = blockIdx.x / p.row_blocks;
  const int64_t i = blockIdx.x % p.row_blocks * blockDim.y + threadIdx.y;
  if (i >= p.pairs) return;
  const T* own_row = src_row<T>(p, i);
  const T* other_row = src_row<T>(p, partner_of(p.pairing, p.partner, i, p.batch));
  const RowState<T, kBox> state(p, i);
  const uint32_t first = static_cast<uint32_t>(chunk) * blockDim.x * U + threadIdx.x;
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
    own[u] = other[u] = Vec<T, V>{};
    const bool need_own = active && !span[u].template full<V>();
    const bool need_other = active && (!state.weights.keep || !span[u].empty());
    if (need_own) own[u] = load<V>(own_row + at[u].src);
    if (need_other) other[u] = load<V>(other_row + at[u].src);
  }
#pragma unroll
  for (int u = 0; u < U; ++u) {
    if (first + u * blockDim.x >= p.geo.count) continue;
    store(dst_row<T>(p, i) + at[u].dst, combine(own[u], other[u], state.weights, span[u]));
  }
}

// grad_j = own part of j + the partner parts of the rows whose partner j is, summed in their order.
template <typename T, int V, bool kBox>
__global__ void __launch_bounds__(kThreads) scatter_kernel(const __grid_constant__ MixParams p) {
  constexpr int U = kGatherUnroll<V>;
  using A = typename Number<T>::Acc;
  const int64_t chunk = blockIdx.x / p.row_blocks;
  const int64_t j = blockIdx.x % p.row_blocks * blockDim.y + threadIdx.y;
  if (j >= p.pairs) return;
  const uint32_t first = static_cast<uint32_t>(chunk) * blockDim.x * U + threadIdx.x;
  A sum[U][V];
  Vec<T, V> grad[U];
  Coordinates c[U];
  Offsets at[U];
  // All loads of a row are in flight before the first vector is taken apart, where the thread
  // waits.
#pragma unroll
  for (int u = 0; u < U; ++u) {
    // Beyond the end a thread reads vector 0, and writes nothing below.
    const uint32_t v = first + u * blockDim.x < p.geo.count ? first + u * blockDim.x : 0;
    c[u] = coordinates<kBox, V>(p.geo, v);
    at[u] = offsets_of<V>(p.geo, v);
    grad[u] = load<V>(src_row<T>(p, j) + at[u].src);
  }
  int64_t begin = 0, end = 1;  // roll: j is the partner of j+1 alone
  if (p.pairing == kTensor) {
    // Clamped, as the caller's tensors must not lead out of bounds.
    begin = p.offsets[j] < 0 ? 0 : p.offsets[j];
    end = p.offsets[j + 1] > p.batch ? p.batch : p.offsets[j + 1];
  }
  const RowState<T, kBox> state(p, j);
#pragma unroll
  for (int u = 0; u < U; ++u) {
    own_part(grad[u], state.weights, state.template span<V>(p.geo, c[u]), sum[u]);
  }
#pragma unroll 1  // there is mostly one row: more at once would only take registers
  for (int64_t s = begin; s < end; ++s) {
    const int64_t i = p.pairing == kTensor ? partner_of(kTensor, p.sources, s, p.batch)
                                           : (j + 1 == p.batch ? 0 : j + 1);
    const RowState<T, kBox> sender(p, i);
    Span span[U];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      span[u] = sender.template span<V>(p.geo, c[u]);
      grad[u] = Vec<T, V>{};
      if (!span[u].empty() || sender.weights.w1 != A(0)) {
        grad[u] = load<V>(src_row<T>(p, i) + at[u].src);
      }
    }
#pragma unroll
    for (int u = 0; u < U; ++u) add_partner_part(grad[u], sender.weights, span[u], sum[u]);
  }
#pragma unroll
  for (int u = 0; u < U; ++u) {
    if (first + u * blockDim.x >= p.geo.count) continue;
    store(dst_row<T>(p, j) + at[u].dst, rounded<T, V>(sum[u]));
  }
}

template <typename T, int V, bool kBox, bool kTransposed>
cudaError_t launch_gather(MixParams p, cudaStream_t stream) {
  dim3 block;
  constexpr int U = kGatherUnroll<V>;
  const int64_t blocks = set_grid<U>(&p, p.batch, &block);
  if constexpr (kTransposed) {
    return launch(scatter_kernel<T, V, kBox>, blocks, block, 0, stream, p);
  } else {
    return launch_dependent(p.awaits, gather_kernel<T, V, kBox>, blocks, block, 0, stream, p);
  }
}

}  // namespace fused_mixup
