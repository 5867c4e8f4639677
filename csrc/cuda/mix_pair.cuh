// Pairings in which two samples are each other's partner (flip), or a sample its own (self).
//
// Fused: widening, two products, sum, rounding, box, for both samples of a pair. Each element is
// read once and written once, the floor of 2N bytes, in place and out of place. In a CutMix row
// only the vectors that touch the box are read and written.
//
// One thread owns the same vectors of both samples and holds both originals in registers before it
// writes either. So the in-place form has no race and needs no barrier, whatever the two boxes.
#pragma once

#include "mix_rows.cuh"

namespace fused_mixup {

// Vectors of each sample in flight per thread: two, which makes four 16-byte loads before the first
// use. uint8 widens 32 bytes per pair of vectors, which leaves registers for one.
template <int V>
constexpr int kPairUnroll = V == 16 ? 1
                            : V > 1 ? 2
                                    : 4;

// Blocks per multiprocessor, which bound the registers per thread. With 64 registers the four loads
// stay together, and more is in flight than with the registers that the compiler would take for
// boxes. Single elements gain nothing. (A multiprocessor of 1536 threads cannot hold eight blocks;
// there the compiler disregards the number.)
template <int V, bool kBox>
constexpr int kPairBlocks = V == 1   ? 2
                            : V < 16 ? 4
                            : kBox   ? 5
                                     : 8;

template <typename T, int V, bool kBox, bool kTransposed>
__global__ void __launch_bounds__(kThreads, kPairBlocks<V, kBox>)
    pair_kernel(const __grid_constant__ MixParams p) {
  if (p.awaits) await_earlier();
  constexpr int U = kPairUnroll<V>;
  const int64_t chunk = blockIdx.x % p.chunks;
  const int64_t i = blockIdx.x / p.chunks * blockDim.y + threadIdx.y;
  if (i >= p.pairs) return;
  const int64_t j = p.pairing == kFlip ? p.batch - 1 - i : i;
  const bool alone = i == j;  // self, or the middle of an odd batch
  const RowState<T, kBox> a(p, i), b(p, j);
  const uint32_t first = static_cast<uint32_t>(chunk) * blockDim.x * U + threadIdx.x;

  // 1. Load what the outputs of both rows need.
  Vec<T, V> va[U], vb[U];
  Span sa[U], sb[U];
  Offsets at[U];
  bool write_a[U], write_b[U];
#pragma unroll
  for (int u = 0; u < U; ++u) {
    // There is no branch here, so that the loads of all u are in flight together.
    const bool active = first + u * blockDim.x < p.geo.count;
    const uint32_t v = active ? first + u * blockDim.x : 0;
    const Coordinates c = coordinates<kBox, V>(p.geo, v);
    at[u] = offsets_of<V>(p.geo, v);
    sa[u] = a.template span<V>(p.geo, c);
    sb[u] = b.template span<V>(p.geo, c);
    const bool mixes_a = !a.weights.keep || !sa[u].empty();
    const bool mixes_b = !b.weights.keep || !sb[u].empty();
    write_a[u] = active && (!p.in_place || mixes_a);
    write_b[u] = active && !alone && (!p.in_place || mixes_b);
    const bool full_a = sa[u].template full<V>(), full_b = sb[u].template full<V>();
    va[u] = vb[u] = Vec<T, V>{};
    const bool both = kTransposed || alone;
    const bool need_a = (write_a[u] && (both || !full_a)) || (write_b[u] && (both || mixes_b));
    const bool need_b = (write_b[u] && (both || !full_b)) || (write_a[u] && (both || mixes_a));
    if (need_a) va[u] = load<V>(src_row<T>(p, i) + at[u].src);
    if (need_b) vb[u] = load<V>(src_row<T>(p, j) + at[u].src);
  }

  // 2. Mix and write. Both originals are in registers, so the order of the stores is free.
#pragma unroll
  for (int u = 0; u < U; ++u) {
    if constexpr (kTransposed) {
      typename Number<T>::Acc sum[V];
      if (write_a[u]) {
        own_part(va[u], a.weights, sa[u], sum);
        add_partner_part(vb[u], b.weights, sb[u], sum);
        store(dst_row<T>(p, i) + at[u].dst, rounded<T, V>(sum));
      }
      if (write_b[u]) {
        own_part(vb[u], b.weights, sb[u], sum);
        add_partner_part(va[u], a.weights, sa[u], sum);
        store(dst_row<T>(p, j) + at[u].dst, rounded<T, V>(sum));
      }
    } else {
      if (write_a[u]) {
        store(dst_row<T>(p, i) + at[u].dst, combine(va[u], vb[u], a.weights, sa[u]));
      }
      if (write_b[u]) {
        store(dst_row<T>(p, j) + at[u].dst, combine(vb[u], va[u], b.weights, sb[u]));
      }
    }
  }
}

template <typename T, int V, bool kBox, bool kTransposed>
cudaError_t launch_pair(MixParams p, cudaStream_t stream) {
  const int64_t rows = p.pairing == kFlip ? (p.batch + 1) / 2 : p.batch;
  dim3 block;
  const int64_t blocks = set_grid<kPairUnroll<V>>(&p, rows, &block);
  return launch_dependent(p.awaits, pair_kernel<T, V, kBox, kTransposed>, blocks, block, 0, stream,
                          p);
}

}  // namespace fused_mixup
