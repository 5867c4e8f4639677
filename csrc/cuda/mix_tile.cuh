// In place, any pairing: a block holds a column of all B samples in shared memory.
//
// Each element is read once and written once, the floor of 2N. No other block reads or writes the
// column of a block. Inside the block one barrier separates all reads of originals that other
// threads overwrite from all writes. Rows may share a partner: the pairing need not be a
// permutation.
#pragma once

#include "mix_rows.cuh"

namespace fused_mixup {

constexpr int kTileThreads = 512;

// Bytes of each sample in a tile, or 0 where not even 16 fit. Wide tiles make long bursts. From 128
// bytes (a cache line) up, the best is the widest that lets two blocks share a multiprocessor, so
// that one loads while the other stores. Up to 64 samples, 512 bytes make a tile of at most 32 KiB:
// in smaller tiles a multiprocessor would have too few bytes in flight. (512 is also the number of
// threads, which have to serve at least one row of single bytes.)
inline int tile_width(int64_t batch, int64_t shared_limit) {
  for (int width = batch <= 64 ? 512 : 256; width >= 128; width /= 2) {
    if (batch * width <= shared_limit / 2) return width;
  }
  for (int width = 128; width >= 16; width /= 2) {
    if (batch * width <= shared_limit) return width;
  }
  return 0;
}

template <typename T, int V, bool kBox>
__global__ void __launch_bounds__(kTileThreads, 2)
    tile_kernel(const __grid_constant__ MixParams p, int log2_width) {
  if (p.awaits) await_earlier();
  using Chunk = Vec<T, V>;
  Chunk* tile = static_cast<Chunk*>(dynamic_shared());  // [B][width]
  // The threads of a row are adjacent, so that their accesses join into bursts.
  const int width = 1 << log2_width;
  const int q = threadIdx.x & (width - 1);
  const int64_t step = blockDim.x >> log2_width;
  const int64_t top = threadIdx.x >> log2_width;
  const uint32_t v = blockIdx.x * width + q;
  const bool active = v < p.geo.count;  // others stay too, as the barrier needs every thread
  const Offsets at = active ? offsets_of<V>(p.geo, v) : Offsets{0, 0};
  const Coordinates c = active ? coordinates<kBox, V>(p.geo, v) : Coordinates{};

  // 1. Stage. Without boxes: the own vector of every sample, since each may be a partner. With
  // boxes: the partner's vector of each row, and only where the row changes; the rest of a CutMix
  // row is never read.
  if (active) {
#pragma unroll 4
    for (int64_t i = top; i < p.batch; i += step) {
      int64_t from = i;
      if constexpr (kBox) {
        const RowState<T, kBox> state(p, i);
        if (state.weights.keep && state.template span<V>(p.geo, c).empty()) continue;
        from = partner_of(p.pairing, p.partner, i, p.batch);
      }
      const T* source = src_row<T>(p, from) + at.src;
      if constexpr (sizeof(Chunk) == 16) {
        copy16_async(tile + i * width + q, source);
      } else {
        tile[i * width + q] = load<V>(source);
      }
    }
  }
  copies_done();
  // No thread may write a sample before all threads have staged it: after this barrier all
  // originals that another row needs are in the tile. (A row's own original is overwritten only by
  // the thread that reads it.)
  __syncthreads();

  // 2. Mix and write back.
  if (active) {
#pragma unroll 2
    for (int64_t i = top; i < p.batch; i += step) {
      const RowState<T, kBox> state(p, i);
      const Span span = state.template span<V>(p.geo, c);
      if (state.weights.keep && span.empty()) continue;
      T* target = dst_row<T>(p, i) + at.dst;
      Chunk own{}, other;
      if constexpr (kBox) {
        other = tile[i * width + q];
        if (!span.template full<V>()) own = load<V>(static_cast<const T*>(target));
      } else {
        own = tile[i * width + q];
        other = tile[partner_of(p.pairing, p.partner, i, p.batch) * width + q];
      }
      store(target, combine(own, other, state.weights, span));
    }
  }
}

template <typename T, int V, bool kBox>
cudaError_t launch_tile(const MixParams& p, int tile_bytes, cudaStream_t stream) {
  int log2_width = 0;
  while ((2 << log2_width) * static_cast<int>(sizeof(T)) * V <= tile_bytes) ++log2_width;
  const int64_t blocks = (int64_t{p.geo.count} + (int64_t{1} << log2_width) - 1) >> log2_width;
  const size_t shared = static_cast<size_t>(p.batch) * (sizeof(T) * V << log2_width);
  return launch_dependent(p.awaits, tile_kernel<T, V, kBox>, blocks, dim3(kTileThreads), shared,
                          stream, p, log2_width);
}

}  // namespace fused_mixup
