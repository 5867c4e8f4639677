// What the mix kernels share: their parameters, the weights and the box of a row, the rule itself.
#pragma once

#include "dependent.cuh"
#include "geometry.cuh"

namespace fused_mixup {

struct MixParams {
  void* dst;
  const void* src;
  int64_t batch;
  int64_t dst_batch_stride, src_batch_stride;  // in elements
  Geometry geo;
  int pairing;
  const int32_t* partner;  // [B], for kTensor
  const int32_t* sources;  // [B] and
  const int32_t* offsets;  // [B+1], for the transpose of kTensor
  const double* blend;     // [B, 2] on the device, or null: blend_row
  const int32_t* box;      // [B, 2D] on the device, or null: box_row
  double blend_row[2];
  BoxRange box_row;
  bool in_place;         // dst is src: rows that do not change are not written
  int64_t pairs;         // rows, or pairs of rows
  FastDiv row_blocks;    // blocks along the batch
  FastDiv chunks;        // blocks along the sample
  uint32_t rounds;       // of a block, along the sample
  const int32_t* order;  // [B], for walk_kernel
  bool awaits;           // a dependent launch: rows are not there before await_earlier()
};

template <typename T>
__device__ __forceinline__ T* dst_row(const MixParams& p, int64_t i) {
  return static_cast<T*>(p.dst) + i * p.dst_batch_stride;
}

template <typename T>
__device__ __forceinline__ const T* src_row(const MixParams& p, int64_t i) {
  return static_cast<const T*>(p.src) + i * p.src_batch_stride;
}

template <typename A>
struct BlendWeights {
  A w0, w1;
  bool keep;  // weights (1, 0) keep all bits, also the sign of a zero and the payload of a NaN
};

template <typename T, typename A = typename Number<T>::Acc>
__device__ __forceinline__ BlendWeights<A> load_weights(const MixParams& p, int64_t i) {
  if constexpr (!Number<T>::kBlends) return {A(1), A(0), true};
  const A w0 = static_cast<A>(p.blend != nullptr ? p.blend[2 * i] : p.blend_row[0]);
  const A w1 = static_cast<A>(p.blend != nullptr ? p.blend[2 * i + 1] : p.blend_row[1]);
  return {w0, w1, w0 == A(1) && w1 == A(0)};
}

__device__ __forceinline__ BoxRange load_box(const MixParams& p, int64_t i) {
  BoxRange box;
  // The loop is unrolled, so that the six numbers stay in registers.
#pragma unroll
  for (int a = 0; a < kMaxSpatial; ++a) {
    int32_t lo = p.box_row.lo[a], hi = p.box_row.hi[a];
    if (p.box != nullptr && a < p.geo.spatial) {
      const int32_t* row = p.box + i * 2 * p.geo.spatial + a;
      lo = clamp_to(row[0], p.geo.extent[a]) * p.geo.group[a];
      hi = clamp_to(row[p.geo.spatial], p.geo.extent[a]) * p.geo.group[a];
    }
    box.lo[a] = lo;
    box.hi[a] = hi;
  }
  return box;
}

// The weights of a row, and its box if any row has one.
template <typename T, bool kBox>
struct RowState {
  BlendWeights<typename Number<T>::Acc> weights;
  BoxRange box;

  RowState() = default;
  __device__ __forceinline__ RowState(const MixParams& p, int64_t i)
      : weights(load_weights<T>(p, i)) {
    if constexpr (kBox) box = load_box(p, i);
  }

  // The part of a vector that is pasted from the partner.
  template <int V>
  __device__ __forceinline__ Span span(const Geometry& g, const Coordinates& c) const {
    if constexpr (kBox) return span_of<V>(g, box, c);
    return {0, 0};
  }
};

// A row as a block keeps it in shared memory: read once, for all its vectors.
template <typename T, bool kBox>
struct StagedRow {
  RowState<T, kBox> state;
  int32_t partner;
};

template <typename T, bool kBox>
__device__ __forceinline__ StagedRow<T, kBox> staged_row(const MixParams& p, int64_t i) {
  const int64_t partner = partner_of(p.pairing, p.partner, i, p.batch);
  return {RowState<T, kBox>(p, i), static_cast<int32_t>(partner)};
}

template <bool kBox, int V>
__device__ __forceinline__ Coordinates coordinates(const Geometry& g, uint32_t v) {
  if constexpr (kBox) return coordinates_of<V>(g, v);
  return Coordinates{};
}

// out = other inside the box, else w0 * own + w1 * other.
template <typename T, int V, typename A>
__device__ __forceinline__ Vec<T, V> combine(const Vec<T, V>& own, const Vec<T, V>& other,
                                             const BlendWeights<A>& weights, const Span& span) {
  if (span.template full<V>()) return other;
  const Elements<T, V> theirs = elements(other);
  Elements<T, V> out = elements(own);
  if constexpr (Number<T>::kBlends) {
    using N = Number<T>;
    if (!weights.keep) {
#pragma unroll
      for (int e = 0; e < V; ++e) {
        out.e[e] =
            N::down(add(term(weights.w0, N::up(out.e[e])), term(weights.w1, N::up(theirs.e[e]))));
      }
    }
  }
  if (!span.empty()) {
#pragma unroll
    for (int e = 0; e < V; ++e) {
      if (span.has(e)) out.e[e] = theirs.e[e];
    }
  }
  return packed(out);
}

// The transpose: what a row sends to itself ...
template <typename T, int V, typename A>
__device__ __forceinline__ void own_part(const Vec<T, V>& grad, const BlendWeights<A>& weights,
                                         const Span& span, A (&sum)[V]) {
  const Elements<T, V> g = elements(grad);
#pragma unroll
  for (int e = 0; e < V; ++e) {
    sum[e] = span.has(e) ? A(0) : term(weights.w0, Number<T>::up(g.e[e]));
  }
}

// ... and what a row sends to its partner, with the sender's weights and box.
template <typename T, int V, typename A>
__device__ __forceinline__ void add_partner_part(const Vec<T, V>& grad,
                                                 const BlendWeights<A>& weights, const Span& span,
                                                 A (&sum)[V]) {
  const Elements<T, V> g = elements(grad);
#pragma unroll
  for (int e = 0; e < V; ++e) {
    const A value = Number<T>::up(g.e[e]);
    sum[e] = add(sum[e], span.has(e) ? value : term(weights.w1, value));
  }
}

template <typename T, int V, typename A>
__device__ __forceinline__ Vec<T, V> rounded(const A (&sum)[V]) {
  Elements<T, V> out;
#pragma unroll
  for (int e = 0; e < V; ++e) out.e[e] = Number<T>::down(sum[e]);
  return packed(out);
}

// A block has 256 threads: as many along the sample as it can use, the rest along the batch.
// Returns the number of blocks. A block does up to `most_rounds` rounds along the sample, where
// enough blocks are left: what it reads of its rows serves all of them.
constexpr int kThreads = 256;

// Some eight for each place on a large GPU. The tests' host drivers lower the number.
#ifndef FUSED_MIXUP_ENOUGH_BLOCKS
#define FUSED_MIXUP_ENOUGH_BLOCKS int64_t{4096}
#endif

template <int kUnroll>
inline int64_t set_grid(MixParams* p, int64_t rows, int64_t most_rounds, dim3* block) {
  unsigned tx = kThreads;
  while (tx > 8 && static_cast<int64_t>(tx / 2) >= p->geo.count) tx /= 2;
  const unsigned ty = kThreads / tx;
  const int64_t chunk = static_cast<int64_t>(tx) * kUnroll;
  const int64_t row_blocks = (rows + ty - 1) / ty;
  const int64_t parts = (p->geo.count + chunk - 1) / chunk;
  int64_t rounds = row_blocks * parts / FUSED_MIXUP_ENOUGH_BLOCKS;
  rounds = rounds < 1 ? 1 : rounds > most_rounds ? most_rounds : rounds;
  const int64_t chunks = (parts + rounds - 1) / rounds;
  p->pairs = rows;
  p->row_blocks = FastDiv(row_blocks);
  p->chunks = FastDiv(chunks);
  p->rounds = static_cast<uint32_t>(rounds);
  *block = dim3(tx, ty, 1);
  return row_blocks * chunks;
}

}  // namespace fused_mixup
