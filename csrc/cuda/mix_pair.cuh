// Pairings in which two samples are each other's partner (flip), or a sample its own (self).
//
// Fused: widening, two products, sum, rounding, box, for both samples of a pair. Each element is
// read once and written once, the floor of 2N bytes, in place and out of place. In a CutMix row
// only the vectors that touch the box are read and written.
//
// One thread owns the same vectors of both samples and holds both originals in registers before it
// writes either. So the in-place form has no race and needs no barrier, whatever the two boxes.
//
// Where a plan was drawn on the device, weights and boxes are loads too. Without boxes no load of a
// sample waits for them: both samples are read, also those of a pair that the plan leaves as it is.
// With boxes they decide what is read, so a block brings those of its rows into shared memory once,
// for several rounds along the sample.
#pragma once

#include "mix_rows.cuh"

namespace fused_mixup {

// Vectors of each sample in flight per thread: two, which makes four 16-byte loads before the first
// use. uint8 widens 32 bytes per pair of vectors, which leaves registers for one. Of 32-byte
// vectors one is as much.
template <typename T, int V>
constexpr int kPairUnroll = V == 1                               ? 4
                            : V == 16 || sizeof(Vec<T, V>) == 32 ? 1
                                                                 : 2;

// Blocks per multiprocessor, which bound the registers per thread. With 64 registers the four loads
// stay together, and more is in flight than with the registers that the compiler would take for
// boxes. Single elements gain nothing. (A multiprocessor of 1536 threads cannot hold eight blocks;
// there the compiler disregards the number.)
template <typename T, int V, bool kBox>
constexpr int kPairBlocks = V == 1                              ? 2
                            : V < 16 || sizeof(Vec<T, V>) == 32 ? 4
                            : kBox                              ? 5
                                                                : 8;

// Rounds of a block with boxes.
constexpr int kPairRounds = 4;

// The rows of a block's pairs.
template <typename T>
struct PairRows {
  RowState<T, true> row[kThreads / 8][2];
};

// Both vectors of a pair, and what of them is pasted.
template <typename T, int V>
struct PairVectors {
  Vec<T, V> a, b;
  Span span_a, span_b;
  Offsets at;
  bool write_a, write_b;
};

// Mixes and writes. Both originals are in registers, so the order of the stores is free.
template <typename T, int V, bool kTransposed, typename A>
__device__ __forceinline__ void write_pair(const PairVectors<T, V>& v, const BlendWeights<A>& a,
                                           const BlendWeights<A>& b, T* row_a, T* row_b) {
  if constexpr (kTransposed) {
    A sum[V];
    if (v.write_a) {
      own_part(v.a, a, v.span_a, sum);
      add_partner_part(v.b, b, v.span_b, sum);
      store_once(row_a + v.at.dst, rounded<T, V>(sum));
    }
    if (v.write_b) {
      own_part(v.b, b, v.span_b, sum);
      add_partner_part(v.a, a, v.span_a, sum);
      store_once(row_b + v.at.dst, rounded<T, V>(sum));
    }
  } else {
    if (v.write_a) store_once(row_a + v.at.dst, combine(v.a, v.b, a, v.span_a));
    if (v.write_b) store_once(row_b + v.at.dst, combine(v.b, v.a, b, v.span_b));
  }
}

template <typename T, int V, bool kBox, bool kTransposed>
__global__ void __launch_bounds__(kThreads, kPairBlocks<T, V, kBox>)
    pair_kernel(const __grid_constant__ MixParams p) {
  if constexpr (sizeof(Vec<T, V>) == 32 && !kWideAccess) return;
  if (p.awaits) await_earlier();
  constexpr int U = kPairUnroll<T, V>;
  const uint32_t row_block = p.chunks.div(blockIdx.x);
  const uint32_t chunk = blockIdx.x - row_block * p.chunks.divisor;
  const int64_t top = static_cast<int64_t>(row_block) * blockDim.y, i = top + threadIdx.y;
  const int64_t j = p.pairing == kFlip ? p.batch - 1 - i : i;
  const bool alone = i == j;  // self, or the middle of an odd batch
  const uint32_t step = blockDim.x * U;
  uint32_t first = chunk * p.rounds * step + threadIdx.x;
  PairVectors<T, V> v[U];

  if constexpr (!kBox) {
    if (i >= p.pairs) return;
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const bool active = first + u * blockDim.x < p.geo.count;
      v[u].at = offsets_of<V>(p.geo, active ? first + u * blockDim.x : 0);
      v[u].span_a = v[u].span_b = Span{0, 0};
      v[u].write_a = v[u].write_b = active;
    }
#pragma unroll
    for (int u = 0; u < U; ++u) {
      // Beyond the end nothing is read: in place another thread may have written there. The second
      // load is made for a row that is alone too: a copy of registers would wait for the first.
      v[u].a = load_once<V>(src_row<T>(p, i) + v[u].at.src, v[u].write_a);
      v[u].b = load_once<V>(src_row<T>(p, j) + v[u].at.src, v[u].write_b);
    }
    const BlendWeights<typename Number<T>::Acc> a = load_weights<T>(p, i),
                                                b = load_weights<T>(p, j);
#pragma unroll
    for (int u = 0; u < U; ++u) {
      v[u].write_a = v[u].write_a && !(p.in_place && a.keep);
      v[u].write_b = v[u].write_b && !(p.in_place && b.keep) && !alone;
      write_pair<T, V, kTransposed>(v[u], a, b, dst_row<T>(p, i), dst_row<T>(p, j));
    }
  } else {
    PairRows<T>& rows = block_shared<PairRows<T>>();
    const unsigned tid = threadIdx.y * blockDim.x + threadIdx.x;
    if (tid < 2 * blockDim.y && top + tid / 2 < p.pairs) {
      const int64_t row = top + tid / 2;
      const bool other = tid % 2 != 0 && p.pairing == kFlip;
      rows.row[tid / 2][tid % 2] = RowState<T, true>(p, other ? p.batch - 1 - row : row);
    }
    __syncthreads();  // the rows are there
    if (i >= p.pairs) return;
    const RowState<T, true>&a = rows.row[threadIdx.y][0], &b = rows.row[threadIdx.y][1];
#pragma unroll 1
    for (uint32_t round = 0; round < p.rounds && first < p.geo.count; ++round, first += step) {
      bool need_a[U], need_b[U];
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const bool active = first + u * blockDim.x < p.geo.count;
        const uint32_t at = active ? first + u * blockDim.x : 0;
        const Coordinates c = coordinates_of<V>(p.geo, at);
        v[u].at = offsets_of<V>(p.geo, at);
        const Span span_a = a.template span<V>(p.geo, c), span_b = b.template span<V>(p.geo, c);
        v[u].span_a = span_a;
        v[u].span_b = span_b;
        const bool mixes_a = !a.weights.keep || !span_a.empty();
        const bool mixes_b = !b.weights.keep || !span_b.empty();
        const bool write_a = v[u].write_a = active && (!p.in_place || mixes_a);
        const bool write_b = v[u].write_b = active && !alone && (!p.in_place || mixes_b);
        const bool full_a = span_a.template full<V>(), full_b = span_b.template full<V>();
        const bool both = kTransposed || alone;
        need_a[u] = (write_a && (both || !full_a)) || (write_b && (both || mixes_b));
        need_b[u] = (write_b && (both || !full_b)) || (write_a && (both || mixes_a));
      }
#pragma unroll
      for (int u = 0; u < U; ++u) {
        v[u].a = load_once<V>(src_row<T>(p, i) + v[u].at.src, need_a[u]);
        v[u].b = load_once<V>(src_row<T>(p, j) + v[u].at.src, need_b[u]);
      }
#pragma unroll
      for (int u = 0; u < U; ++u) {
        write_pair<T, V, kTransposed>(v[u], a.weights, b.weights, dst_row<T>(p, i),
                                      dst_row<T>(p, j));
      }
    }
  }
}

template <typename T, int V, bool kBox, bool kTransposed>
cudaError_t launch_pair(MixParams p, cudaStream_t stream) {
  const int64_t rows = p.pairing == kFlip ? (p.batch + 1) / 2 : p.batch;
  dim3 block;
  const int64_t blocks = set_grid<kPairUnroll<T, V>>(&p, rows, kBox ? kPairRounds : 1, &block);
  return launch_dependent(p.awaits, pair_kernel<T, V, kBox, kTransposed>, blocks, block, 0, stream,
                          p);
}

}  // namespace fused_mixup
