// In place, any pairing: a block holds a column of all B samples in shared memory.
//
// Each element is read once and written once, the floor of 2N. No other block reads or writes the
// column of a block. Inside the block one barrier separates all reads of originals that other
// threads overwrite from all writes. Rows may share a partner: the pairing need not be a
// permutation.
#pragma once

#include "mix_rows.cuh"

namespace fused_mixup {

constexpr int kLog2TileThreads = 9, kTileThreads = 1 << kLog2TileThreads;

// Bytes of a row in shared memory, beside its vectors, at most.
constexpr int kMostRowBytes = static_cast<int>(sizeof(StagedRow<double, true>));

// Bytes of each sample in a tile, or 0 where not even 16 fit. Wide tiles make long bursts. From 128
// bytes (a cache line) up, the best is the widest that lets two blocks share a multiprocessor, so
// that one loads while the other stores. Up to 64 samples, 512 bytes make a tile of at most 32 KiB:
// in smaller tiles a multiprocessor would have too few bytes in flight. Twice as many are better
// still, where they leave enough tiles (`many`).
inline int tile_width(int64_t batch, int64_t row_bytes, bool many, int64_t shared_limit) {
  for (int width = batch > 64 ? 256 : many ? 1024 : 512; width >= 128; width /= 2) {
    if (batch * (width + row_bytes) <= shared_limit / 2) return width;
  }
  for (int width = 128; width >= 16; width /= 2) {
    if (batch * (width + row_bytes) <= shared_limit) return width;
  }
  return 0;
}

// Tiles that keep every multiprocessor of a large GPU busy for several rounds.
constexpr int64_t kManyTiles = 1024;

template <typename T, int V, bool kBox>
__global__ void __launch_bounds__(kTileThreads, 2)
    tile_kernel(const __grid_constant__ MixParams p, int log2_width) {
  if (p.awaits) await_earlier();
  using Chunk = Vec<T, V>;
  using Row = StagedRow<T, kBox>;
  Chunk* tile = static_cast<Chunk*>(dynamic_shared());  // [B][width]
  const int batch = static_cast<int>(p.batch);
  Row* rows = reinterpret_cast<Row*>(tile + (int64_t{batch} << log2_width));  // [B]
  const auto stage_rows = [&] {
    for (int i = threadIdx.x; i < batch; i += kTileThreads) rows[i] = staged_row<T, kBox>(p, i);
  };
  // The threads of a row are adjacent, so that their accesses join into bursts.
  const int width = 1 << log2_width;
  const int q = threadIdx.x & (width - 1);
  const int log2_step = kLog2TileThreads - log2_width;  // of rows that are served at once
  const int top = threadIdx.x >> log2_width;
  // The thread's rows. Counted by a shift: the compiler would divide by a step.
  const int count = (batch - top + (1 << log2_step) - 1) >> log2_step;
  const uint32_t v = blockIdx.x * width + q;
  const bool active = v < p.geo.count;  // others stay too, as the barrier needs every thread
  const Offsets at = active ? offsets_of<V>(p.geo, v) : Offsets{0, 0};
  const Coordinates c = active ? coordinates<kBox, V>(p.geo, v) : Coordinates{};
  if constexpr (kBox) {
    stage_rows();
    __syncthreads();  // the rows say what is read
  }

  // 1. Stage. Without boxes: the own vector of every sample, since each may be a partner. With
  // boxes: the partner's vector of each row, and only where the row changes; the rest of a CutMix
  // row is never read.
  if (active) {
#pragma unroll 4
    for (int k = 0; k < count; ++k) {
      const int i = top + (k << log2_step);
      int64_t from = i;
      if constexpr (kBox) {
        const RowState<T, kBox>& state = rows[i].state;
        if (state.weights.keep && state.template span<V>(p.geo, c).empty()) continue;
        from = rows[i].partner;
      }
      const T* source = src_row<T>(p, from) + at.src;
      if constexpr (sizeof(Chunk) == 16) {
        copy16_async(tile + i * width + q, source);
      } else {
        tile[i * width + q] = load<V>(source);
      }
    }
  }
  if constexpr (!kBox) stage_rows();  // while the vectors are in flight
  copies_done();
  // No thread may write a sample before all threads have staged it: after this barrier all
  // originals that another row needs are in the tile. (A row's own original is overwritten only by
  // the thread that reads it.)
  __syncthreads();

  // 2. Mix and write back.
  if (active) {
#pragma unroll 2
    for (int k = 0; k < count; ++k) {
      const int i = top + (k << log2_step);
      const RowState<T, kBox>& state = rows[i].state;
      const Span span = state.template span<V>(p.geo, c);
      if (state.weights.keep && span.empty()) continue;
      T* target = dst_row<T>(p, i) + at.dst;
      Chunk own{}, other;
      if constexpr (kBox) {
        other = tile[i * width + q];
        own = load_once<V>(static_cast<const T*>(target), !span.template full<V>());
      } else {
        own = tile[i * width + q];
        other = tile[rows[i].partner * width + q];
      }
      store_once(target, combine(own, other, state.weights, span));
    }
  }
}

// The tile of this type and access, or one of 0 bytes where a batch is too large.
template <typename T, int V, bool kBox>
int tile_width_of(const MixParams& p, int64_t shared_limit) {
  constexpr int kBytes = static_cast<int>(sizeof(T)) * V;
  // A row of single bytes takes one thread each, of which there are 512.
  const bool many = kBytes == 16 && int64_t{p.geo.count} * kBytes >= 1024 * kManyTiles;
  return tile_width(p.batch, sizeof(StagedRow<T, kBox>), many, shared_limit);
}

template <typename T, int V, bool kBox>
cudaError_t launch_tile(const MixParams& p, int tile_bytes, cudaStream_t stream) {
  int log2_width = 0;
  while ((2 << log2_width) * static_cast<int>(sizeof(T)) * V <= tile_bytes) ++log2_width;
  const int64_t blocks = (int64_t{p.geo.count} + (int64_t{1} << log2_width) - 1) >> log2_width;
  const size_t per_row = (sizeof(T) * V << log2_width) + sizeof(StagedRow<T, kBox>);
  return launch_dependent(p.awaits, tile_kernel<T, V, kBox>, blocks, dim3(kTileThreads),
                          static_cast<size_t>(p.batch) * per_row, stream, p, log2_width);
}

}  // namespace fused_mixup
