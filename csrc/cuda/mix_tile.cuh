// In place, any pairing: a block holds a column of all B samples in shared memory.
//
// Read and written per element: once each, the floor of 2N. A block owns its column alone, so
// other blocks never see what it writes; inside it one barrier parts all reads of originals that
// others overwrite from all writes. Partners may be shared, the pairing need be no permutation.
#pragma once

#include "mix_rows.cuh"

namespace fused_mixup {

constexpr int kTileThreads = 512;

// Bytes of each sample in a tile, or 0 where not even 16 fit. Wide tiles make long bursts; but of
// those of 128 bytes (a cache line) and more the widest that lets two blocks share a
// multiprocessor wins, so that one loads while the other stores. Up to 64 samples twice the width
// makes a tile of at most 32 KiB: with less a multiprocessor has too few bytes in flight. (Not
// more, as the threads have to serve a row of single bytes at least.)
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
  using Chunk = Vec<T, V>;
  Chunk* tile = static_cast<Chunk*>(dynamic_shared());  // [B][width]
  // The threads of a row stand side by side: their accesses join into bursts.
  const int width = 1 << log2_width;
  const int q = threadIdx.x & (width - 1);
  const int64_t step = blockDim.x >> log2_width;
  const int64_t top = threadIdx.x >> log2_width;
  const uint32_t v = blockIdx.x * width + q;
  const bool active = v < p.geo.count;  // no early return: the barrier needs every thread
  const Offsets at = active ? offsets_of<V>(p.geo, v) : Offsets{0, 0};
  const Coordinates c = active ? coordinates<kBox, V>(p.geo, v) : Coordinates{};

  // 1. Stage. Without boxes: every sample's own vector, since any may be somebody's partner. With
  // boxes: for each row its partner's vector, and only where the row changes there; what a CutMix
  // row leaves alone is never read.
  if (active) {
#pragma unroll 4
    for (int64_t i = top; i < p.batch; i += step) {
      int64_t from = i;
      if constexpr (kBox) {
        const RowState<T, kBox> state(p, i);
        if (state.row.keep && state.template span<V>(p.geo, c).empty()) continue;
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
  // Nobody may write a sample before everybody has staged it: past this barrier all originals
  // that another row needs are in the tile. (A row's own original is overwritten by the thread
  // that reads it, and by no other.)
  __syncthreads();

  // 2. Mix and write back.
  if (active) {
#pragma unroll 2
    for (int64_t i = top; i < p.batch; i += step) {
      const RowState<T, kBox> state(p, i);
      const Span span = state.template span<V>(p.geo, c);
      if (state.row.keep && span.empty()) continue;
      T* target = dst_row<T>(p, i) + at.dst;
      Chunk own{}, other;
      if constexpr (kBox) {
        other = tile[i * width + q];
        if (!span.template full<V>()) own = load<V>(static_cast<const T*>(target));
      } else {
        own = tile[i * width + q];
        other = tile[partner_of(p.pairing, p.partner, i, p.batch) * width + q];
      }
      store(target, combine(own, other, state.row, span));
    }
  }
}

template <typename T, int V, bool kBox>
cudaError_t launch_tile(const MixParams& p, int tile_bytes, cudaStream_t stream) {
  int log2_width = 0;
  while ((2 << log2_width) * static_cast<int>(sizeof(T)) * V <= tile_bytes) ++log2_width;
  const int64_t blocks = (int64_t{p.geo.count} + (int64_t{1} << log2_width) - 1) >> log2_width;
  const size_t shared = static_cast<size_t>(p.batch) * (sizeof(T) * V << log2_width);
  return launch(tile_kernel<T, V, kBox>, blocks, dim3(kTileThreads), shared, stream, p, log2_width);
}

}  // namespace fused_mixup
