// What the kernels that mix by masks share: their parameters, a row's mask, weights and box, the
// rule itself.
//
// A sample is seen as planes: the dims that lie outside the image in memory, times the vectors of
// the image. A thread takes one vector of the image in several planes, so that it finds the mask of
// the vector, and its part in the box, once. (Of channels_last samples there is one plane, whose
// vectors hold all channels.)
#pragma once

#include "mask_values.cuh"
#include "mix_rows.cuh"

namespace fused_mixup {

struct MaskedParams : MixParams {
  const void* other;  // the samples among which partners are: src, or a pool of its own
  int64_t others;     // how many of them there are
  int64_t other_batch_stride;
  bool other_apart;  // they lie in memory as other_geo says
  Geometry other_geo;
  void* clean;   // takes src too, or null
  int box_axes;  // D
  MaskParams mask;
  bool along_lines;  // the elements of a vector lie along the lines of the image
  FastDiv group_y, group_x;
  uint32_t inner;  // vectors of a plane
  uint32_t planes, planes_per_thread;
  FastDiv inner_blocks, plane_blocks;
};

// Planes whose vectors are in flight together. uint8 widens 32 bytes per pair of vectors, which
// leaves registers for one; three are the channels of an image.
template <int V>
constexpr int kPlanes = V == 16 ? 1
                        : V > 1 ? 3
                                : 4;
constexpr int kPlanesPerThread = 12;  // at most; a multiple of kPlanes

// Masks of all kinds take registers: with three blocks of a multiprocessor the kernels that hold
// two rows keep them all, with four the others. For sm_100 the compiler takes more of them: with
// one block less half types spill none. (uint8 does, with any number of blocks.)
constexpr int kMaskedThreads = 128;
constexpr int kTwoRowBlocks = kSinceSm100 ? 2 : 3, kOneRowBlocks = kSinceSm100 ? 3 : 4;

// The place of a thread: its row or pair, its vector of the image, its planes.
struct MaskedPlace {
  int64_t row;
  uint32_t vector, first_plane, end_plane;

  // The blocks of a row follow each other, or those of a vector, which rows have in common.
  __device__ __forceinline__ MaskedPlace(const MaskedParams& p, bool row_by_row) {
    uint32_t at = blockIdx.x, part;
    const uint32_t parts = p.inner_blocks.divisor * p.plane_blocks.divisor;
    if (row_by_row) {
      row = at / parts;
      part = at % parts;
    } else {
      const uint32_t rows = static_cast<uint32_t>(p.pairs);
      part = at / rows;
      row = at % rows;
    }
    const uint32_t block = p.plane_blocks.div(part);
    vector = block * blockDim.x + threadIdx.x;
    first_plane = (part - block * p.plane_blocks.divisor) * p.planes_per_thread;
    const uint32_t end = first_plane + p.planes_per_thread;
    end_plane = end < p.planes ? end : p.planes;
  }

  __device__ __forceinline__ uint32_t vector_of(const MaskedParams& p, uint32_t plane) const {
    return plane * p.inner + vector;
  }
  __device__ __forceinline__ bool has(const MaskedParams& p, uint32_t plane) const {
    return plane < end_plane && vector_of(p, plane) < p.geo.count;
  }
};

__device__ __forceinline__ BoxRange load_masked_box(const MaskedParams& p, int64_t i) {
  BoxRange box;
  // The box has the last of the geometry's axes; it does not bound the others.
  const int before = p.geo.spatial - p.box_axes;
#pragma unroll
  for (int a = 0; a < kMaxSpatial; ++a) {
    int32_t lo = p.box_row.lo[a], hi = p.box_row.hi[a];
    if (p.box != nullptr && a >= before && a < p.geo.spatial) {
      const int32_t* row = p.box + i * 2 * p.box_axes + (a - before);
      lo = clamp_to(row[0], p.geo.extent[a]) * p.geo.group[a];
      hi = clamp_to(row[p.box_axes], p.geo.extent[a]) * p.geo.group[a];
    }
    box.lo[a] = lo;
    box.hi[a] = hi;
  }
  return box;
}

// What a row of the plan says of the thread's vectors: their mask, or weights where the row has
// none, and the part of them that lies in the box.
template <typename T, int V>
struct MaskedRow {
  using A = typename Number<T>::Acc;
  bool masked;
  BlendWeights<A> weights;
  Span span;
  float m[V];  // once find_mask() has run

  __device__ __forceinline__ MaskedRow(const MaskedParams& p, int64_t i, const Coordinates& c)
      : masked((p.mask.args.code_of(i) & kMaskForm) != 0),
        weights(load_weights<T>(p, i)),
        span(span_of<V>(p.geo, load_masked_box(p, i), c)),
        m{} {}

  __device__ __forceinline__ void find_mask(const MaskedParams& p, int64_t i, const Pixels& at) {
    if (masked) mask_values<V>(p.mask, SampleMask(p.mask.args, i), at, m);
  }

  // Whether the row takes anything from its partner, as far as that is known before its mask ...
  __device__ __forceinline__ bool may_change() const {
    return masked || !weights.keep || !span.empty();
  }
  // ... and behind it.
  __device__ __forceinline__ bool changes() const {
    bool keeps = weights.keep;
    if (masked) {
      keeps = true;
#pragma unroll
      for (int e = 0; e < V; ++e) keeps = keeps && m[e] == 1.0f;
    }
    return !keeps || !span.empty();
  }

  // out = other inside the box, else m * own + (1 - m) * other.
  __device__ __forceinline__ Vec<T, V> mix(const Vec<T, V>& own, const Vec<T, V>& other) const {
    if (!masked) return combine(own, other, weights, span);
    if (span.template full<V>()) return other;
    using N = Number<T>;
    const Elements<T, V> ours = elements(own), theirs = elements(other);
    Elements<T, V> out;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      // Assignments choose values. A ?: would choose between places, which takes local memory.
      T value = N::down(add(rounded_product(A(m[e]), N::up(ours.e[e])),
                            rounded_product(A(1 - m[e]), N::up(theirs.e[e]))));
      if (m[e] == 1.0f) value = ours.e[e];
      if (m[e] == 0.0f || span.has(e)) value = theirs.e[e];
      out.e[e] = value;
    }
    return packed(out);
  }

  // The transpose: what the row sends to itself ...
  __device__ __forceinline__ void send_own(const Vec<T, V>& grad, A (&sum)[V]) const {
    if (!masked) return own_part(grad, weights, span, sum);
    const Elements<T, V> g = elements(grad);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      sum[e] = span.has(e) ? A(0) : term(A(m[e]), Number<T>::up(g.e[e]));
    }
  }

  // ... and to its partner.
  __device__ __forceinline__ void send_partner(const Vec<T, V>& grad, A (&sum)[V]) const {
    if (!masked) return add_partner_part(grad, weights, span, sum);
    const Elements<T, V> g = elements(grad);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const A value = Number<T>::up(g.e[e]);
      sum[e] = add(sum[e], span.has(e) ? value : term(A(1 - m[e]), value));
    }
  }
};

// The coordinates of a thread's vector in the first plane; what lies in the image is the same in
// all. (Values, not places in an array that the axis would choose: those would live in local
// memory.)
template <int V>
__device__ __forceinline__ Pixels pixels_at(const MaskedParams& p, const Coordinates& c) {
  const int32_t first = c.at[0], second = c.at[1], third = c.at[2];
  const bool has_depth = p.geo.spatial > 2;
  const uint32_t y = static_cast<uint32_t>(has_depth ? second : first);
  const uint32_t x = static_cast<uint32_t>(has_depth ? third : second);
  const uint32_t line = p.group_y.div(y), column = p.group_x.div(x);
  const bool along = V > 1 && p.along_lines;
  const int group = static_cast<int>(p.group_x.divisor);
  return {static_cast<int>(line), static_cast<int>(column), along ? group : V,
          along ? static_cast<int>(x) - static_cast<int>(column) * group : 0};
}

// Blocks have as many threads as the vectors of a plane can use; all threads have one row.
inline int64_t set_masked_grid(MaskedParams* p, int64_t rows, dim3* block) {
  unsigned threads = kMaskedThreads;
  while (threads > 32 && threads / 2 >= p->inner) threads /= 2;
  const int64_t inner_blocks = (int64_t{p->inner} + threads - 1) / threads;
  const int64_t plane_blocks =
      (int64_t{p->planes} + p->planes_per_thread - 1) / p->planes_per_thread;
  p->pairs = rows;
  p->inner_blocks = FastDiv(inner_blocks);
  p->plane_blocks = FastDiv(plane_blocks);
  *block = dim3(threads);
  return rows * inner_blocks * plane_blocks;
}

}  // namespace fused_mixup
