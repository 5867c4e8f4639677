// In place, roll and partner tensors, on GPUs with bulk copies: columns of all B samples pass
// through a ring of tiles in shared memory. As mix_tile.cuh has it: each element is read once and
// written once, and no other block touches the columns of a block.
//
// One block stays on each multiprocessor and takes every gridDim.x-th column. A tile of a column is
// one bulk copy per sample, which needs no registers and no thread that waits; while the block
// mixes one tile, the copies of the next kStages - 1 are in flight. So loads never pause, whatever
// the batch size: mix_tile.cuh overlaps loads and stores only where two of its tiles fit.
//
// Results leave by ordinary 16-byte stores. They hold no register once issued, and a stage is free
// as soon as its threads have read it. Bulk stores would need the results in shared memory: not
// over the originals, which other rows still read, but in tiles of their own, and these would be
// taken from the loads in flight.
#pragma once

#include "bulk.cuh"
#include "mix_rows.cuh"

namespace fused_mixup {

constexpr int kRingThreads = 1024;
constexpr int kMostStages = 4;
constexpr int kWidestPiece = 16 * kRingThreads;  // bytes: one vector per thread
constexpr int kNarrowestPiece = 64;              // bytes, what memory reads at once
constexpr int64_t kRingTile = 64 * 1024;  // bytes; two in flight exceed what latency asks for

// Pieces of 1 << log2_width vectors of each sample, in `stages` tiles; no stages: no ring.
struct RingShape {
  int log2_width = 0;
  int stages = 0;
};

// Bytes of shared memory for the rows of a plan and the marks; see RingRows.
inline int64_t ring_rows_bytes(int64_t batch, int spatial) {
  const int64_t words = (batch + 31) / 32;
  return batch * (2 * sizeof(double) + sizeof(int32_t) * (1 + 2 * spatial)) + words * 4;
}

// The widest pieces whose tiles keep all blocks busy to the end: `blocks` take the tiles in rounds,
// and in the last round some have none. vectors: of 16 bytes in a sample.
inline RingShape ring_shape(int64_t batch, int64_t vectors, int spatial, int64_t shared_limit,
                            int blocks) {
  const int64_t room = shared_limit - 256 - ring_rows_bytes(batch, spatial);  // 256: barriers
  RingShape best;
  int64_t best_share = 0;  // of the blocks that work in an average round, in thousandths
  int log2_width = 0;
  while ((16 << (log2_width + 1)) <= kWidestPiece) ++log2_width;
  for (; 16 << log2_width >= kNarrowestPiece; --log2_width) {
    const int64_t width = int64_t{16} << log2_width, tile = batch * width;
    if (tile > kRingTile && width > kNarrowestPiece) continue;
    const int64_t stages = room / tile < kMostStages ? room / tile : kMostStages;
    const int64_t tiles = (vectors * 16 + width - 1) / width;
    const int64_t rounds = (tiles + blocks - 1) / blocks;
    if (stages < 2 || rounds < 2) continue;
    const int64_t share = 1000 * tiles / (rounds * blocks);
    if (share < best_share + 20) continue;
    best_share = share;
    best.log2_width = log2_width;
    best.stages = static_cast<int>(stages);
  }
  return best;
}

// What a block holds in shared memory beside its tiles: read from global memory once, not per tile.
template <typename T>
struct RingRows {
  using A = typename Number<T>::Acc;
  A* weights;        // [B, 2]
  int32_t* partner;  // [B]
  int32_t* box;      // [B, 2 * spatial], as BoxRange has it
  uint32_t* marks;   // [B / 32] a bit for each sample that the next tile needs

  __device__ __forceinline__ RingRows(void* memory, int64_t batch, int spatial) {
    weights = static_cast<A*>(memory);
    partner = reinterpret_cast<int32_t*>(weights + 2 * batch);
    box = partner + batch;
    marks = reinterpret_cast<uint32_t*>(box + batch * 2 * spatial);
  }

  __device__ __forceinline__ void fill(const MixParams& p, bool boxes) const {
    for (int64_t i = threadIdx.x; i < p.batch; i += blockDim.x) {
      const BlendWeights<A> w = load_weights<T>(p, i);
      weights[2 * i] = w.w0;
      weights[2 * i + 1] = w.w1;
      partner[i] = static_cast<int32_t>(partner_of(p.pairing, p.partner, i, p.batch));
      if (i % 32 == 0) marks[i / 32] = 0;
      if (!boxes) continue;
      const BoxRange range = load_box(p, i);
#pragma unroll
      for (int a = 0; a < kMaxSpatial; ++a) {
        if (a >= p.geo.spatial) continue;
        box[(2 * i) * p.geo.spatial + a] = range.lo[a];
        box[(2 * i + 1) * p.geo.spatial + a] = range.hi[a];
      }
    }
  }

  __device__ __forceinline__ BlendWeights<A> weights_of(int64_t i) const {
    if constexpr (!Number<T>::kBlends) return {A(1), A(0), true};
    const A w0 = weights[2 * i], w1 = weights[2 * i + 1];
    return {w0, w1, w0 == A(1) && w1 == A(0)};
  }

  template <int V>
  __device__ __forceinline__ Span span_of_row(const Geometry& g, const Coordinates& c,
                                              int64_t i) const {
    BoxRange range = {};
#pragma unroll
    for (int a = 0; a < kMaxSpatial; ++a) {
      if (a >= g.spatial) continue;
      range.lo[a] = box[(2 * i) * g.spatial + a];
      range.hi[a] = box[(2 * i + 1) * g.spatial + a];
    }
    return span_of<V>(g, range, c);
  }
};

template <typename T, int V, bool kBox>
struct Ring {
  using Chunk = Vec<T, V>;
  const MixParams& p;
  const RingShape shape;
  Chunk* tiles;  // [stages][B][width]
  RingRows<T> rows;
  uint64_t* full;  // [stages], a barrier for each tile: the bytes of its copies
  const int q;     // the vector of a piece that this thread mixes
  const int top;   // the first row that it mixes

  __device__ __forceinline__ Ring(const MixParams& p, const RingShape& shape, void* memory,
                                  uint64_t* full)
      : p(p),
        shape(shape),
        tiles(static_cast<Chunk*>(memory)),
        rows(tiles + (shape.stages * p.batch << shape.log2_width), p.batch, p.geo.spatial),
        full(full),
        q(threadIdx.x & ((1 << shape.log2_width) - 1)),
        top(threadIdx.x >> shape.log2_width) {}

  __device__ __forceinline__ Chunk* row_of(int stage, int64_t i) const {
    return tiles + ((stage * p.batch + i) << shape.log2_width);
  }

  __device__ __forceinline__ uint32_t first_of(uint32_t tile) const {
    return tile << shape.log2_width;
  }

  // Marks the samples that rows of this tile need: the rest of a CutMix row is never read.
  __device__ __forceinline__ void mark(uint32_t tile) const {
    const uint32_t v = first_of(tile) + q;
    const Coordinates c = coordinates<kBox, V>(p.geo, v < p.geo.count ? v : 0);
    const int lane = threadIdx.x % 32, width = 1 << shape.log2_width;
    const int leader = width < 32 ? lane & ~(width - 1) : 0;
    const uint32_t mates = width < 32 ? ((1u << width) - 1) << leader : 0xffffffffu;
    const int64_t step = blockDim.x >> shape.log2_width;
    // All lanes pass equally often, as they vote.
    for (int64_t first = 0; first < p.batch; first += step) {
      const int64_t i = first + top;
      bool changes = false, keeps_some = false;
      if (i < p.batch && v < p.geo.count) {
        const Span span = rows.template span_of_row<V>(p.geo, c, i);
        changes = !rows.weights_of(i).keep || !span.empty();
        keeps_some = changes && !span.template full<V>();
      }
      const uint32_t needs_partner = __ballot_sync(0xffffffffu, changes) & mates;
      const uint32_t needs_own = __ballot_sync(0xffffffffu, keeps_some) & mates;
      if (lane != leader || needs_partner == 0) continue;
      const int32_t partner = rows.partner[i];
      atomicOr(rows.marks + partner / 32, 1u << partner % 32);
      if (needs_own != 0) atomicOr(rows.marks + i / 32, 1u << i % 32);
    }
  }

  // Starts the copies of a tile. Every warp announces the bytes of its rows: 32 for each word.
  __device__ __forceinline__ void start(uint32_t tile, int stage) const {
    const uint32_t first = first_of(tile), left = p.geo.count - first;
    const uint32_t width = 1u << shape.log2_width, vectors = left < width ? left : width;
    const unsigned bytes = vectors * sizeof(Chunk);
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    unsigned count = 0;
    for (int64_t word = threadIdx.x / 32; word * 32 < p.batch; word += warps) {
      const int64_t i = word * 32 + lane;
      const int64_t all = p.batch - word * 32;
      uint32_t marked = all < 32 ? (1u << all) - 1 : 0xffffffffu;
      if constexpr (kBox) {
        marked = rows.marks[word];
        __syncwarp();  // all lanes have read the marks before they are cleared for the next tile
        if (lane == 0) rows.marks[word] = 0;
      }
      count += __popc(marked);
      if ((marked >> lane & 1) == 0) continue;
      bulk_load(row_of(stage, i), src_row<T>(p, i) + static_cast<int64_t>(first) * V, bytes,
                full + stage);
    }
    // The phase cannot end before this arrival, so the bytes may be announced after their copies.
    if (lane == 0) barrier_arrive(full + stage, count * bytes);
  }

  // Fills a stage that all threads may have read until now.
  __device__ __forceinline__ void refill(uint32_t tile, int stage) const {
    __syncthreads();  // rows, barriers and marks are ready; no thread reads the stage any more
    if constexpr (kBox) {
      mark(tile);
      __syncthreads();  // the marks are complete
    }
    start(tile, stage);
  }

  __device__ __forceinline__ void mix(uint32_t tile, int stage) const {
    const uint32_t v = first_of(tile) + q;
    if (v >= p.geo.count) return;
    const Coordinates c = coordinates<kBox, V>(p.geo, v);
    const int64_t step = blockDim.x >> shape.log2_width;
#pragma unroll 2
    for (int64_t i = top; i < p.batch; i += step) {
      const auto weights = rows.weights_of(i);
      Span span{0, 0};
      if constexpr (kBox) span = rows.template span_of_row<V>(p.geo, c, i);
      if (weights.keep && span.empty()) continue;
      const Chunk other = row_of(stage, rows.partner[i])[q];
      Chunk own{};
      if (!span.template full<V>()) own = row_of(stage, i)[q];
      store_once(dst_row<T>(p, i) + static_cast<int64_t>(v) * V,
                 combine(own, other, weights, span));
    }
  }
};

// Blocks that no warp leaves early: all threads meet at every barrier.
template <typename T, int V, bool kBox>
__global__ void __launch_bounds__(kRingThreads, 1)
    ring_kernel(const __grid_constant__ MixParams p, const __grid_constant__ RingShape shape) {
  if constexpr (kBulkCopies) {
    if (p.awaits) await_earlier();
    auto& full = block_shared<uint64_t[kMostStages]>();
    const Ring<T, V, kBox> ring(p, shape, dynamic_shared(), full);
    if (threadIdx.x == 0) {
#pragma unroll
      for (int s = 0; s < kMostStages; ++s) barrier_init(full + s, kRingThreads / 32);
      fence_proxy_async();
    }
    ring.rows.fill(p, kBox);
    const uint32_t tiles = ((p.geo.count - 1) >> shape.log2_width) + 1;
    uint32_t next = blockIdx.x;  // the tile to load
    for (int s = 0; s < shape.stages - 1 && next < tiles; ++s, next += gridDim.x) {
      ring.refill(next, s);
    }
    int stage = 0, refilled = shape.stages - 1;
    unsigned parity = 0;
    for (uint32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      if (next < tiles) ring.refill(next, refilled);
      next += gridDim.x;
      barrier_wait(full + stage, parity);
      ring.mix(tile, stage);
      refilled = stage;
      if (++stage == shape.stages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
}

template <typename T, int V, bool kBox>
cudaError_t launch_ring(const MixParams& p, const RingShape& shape, int blocks,
                        cudaStream_t stream) {
  const int64_t tiles = ((int64_t{p.geo.count} - 1) >> shape.log2_width) + 1;
  const int64_t staged = shape.stages * p.batch * 16 << shape.log2_width;
  const int64_t shared = staged + ring_rows_bytes(p.batch, p.geo.spatial);
  return launch_dependent(p.awaits, ring_kernel<T, V, kBox>, tiles < blocks ? tiles : blocks,
                          dim3(kRingThreads), static_cast<size_t>(shared), stream, p, shape);
}

}  // namespace fused_mixup
