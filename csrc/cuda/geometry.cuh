// Where the vectors of a sample lie, and which of their elements a box covers.
//
// A kernel numbers the vectors of a sample 0 .. count-1. Geometry turns such a number into memory
// offsets (which it gives at once where a sample is one run of memory) and into coordinates along
// the box's axes, by multiplications in place of divisions.
#pragma once

#include "../common/layout.h"
#include "vec.cuh"

namespace fused_mixup {

// Coordinates have 32 bits; larger samples are mixed in halves. The tests' host drivers lower the
// limit, so that small samples are halved too.
#ifndef FUSED_MIXUP_MAX_COUNT
#define FUSED_MIXUP_MAX_COUNT (int64_t{1} << 31)
#endif
inline int64_t max_count() { return FUSED_MIXUP_MAX_COUNT; }

// n / divisor by one multiplication, for n and divisor below 2^31.
struct FastDiv {
  uint32_t divisor = 1;
  uint32_t mul = 1;
  uint32_t shift = 0;

  FastDiv() = default;
  explicit FastDiv(int64_t d) : divisor(d < 1 ? 1 : static_cast<uint32_t>(d)) {
    while ((uint64_t{1} << shift) < divisor) ++shift;
    const uint64_t above = (uint64_t{1} << shift) - divisor;
    mul = static_cast<uint32_t>((above << 32) / divisor + 1);
  }

  __device__ __forceinline__ uint32_t div(uint32_t n) const {
    return (__umulhi(n, mul) + n) >> shift;
  }
};

// n / divisor for any n >= 0. Numbers of more than 31 bits, which are rare, take a division.
struct LongDiv {
  int64_t divisor = 1;
  FastDiv fast;

  LongDiv() = default;
  explicit LongDiv(int64_t d) : divisor(d < 1 ? 1 : d), fast(d >> 31 == 0 ? d : 1) {}

  __device__ __forceinline__ int64_t div(int64_t n) const {
    if (((n | divisor) >> 31) == 0) return fast.div(static_cast<uint32_t>(n));
    return n / divisor;
  }
};

struct Geometry {
  uint32_t count = 0;  // vectors in a sample, below 2^31
  int ndim = 0;        // 0: vector v lies at v * V on both sides
  FastDiv size[kMaxDims];
  int64_t dst_stride[kMaxDims] = {};  // in elements per step; V along the innermost dim
  int64_t src_stride[kMaxDims] = {};
  // For each axis of the box: coordinate = v / below % steps.
  int spatial = 0;
  int inner_axis = -1;  // the axis along which the elements of a vector lie
  FastDiv below[kMaxSpatial];
  FastDiv steps[kMaxSpatial];
  int32_t extent[kMaxSpatial] = {};  // spatial sizes, to clamp boxes
  int32_t group[kMaxSpatial] = {};   // elements per spatial step, along the dim of the axis
};

struct Offsets {
  int64_t dst, src;
};

template <int V>
__device__ __forceinline__ Offsets offsets_of(const Geometry& g, uint32_t v) {
  const int64_t flat = static_cast<int64_t>(v) * V;
  if (g.ndim == 0) return {flat, flat};
  Offsets at{0, 0};
  for (int k = g.ndim - 1; k > 0; --k) {
    const uint32_t q = g.size[k].div(v);
    const int64_t r = v - q * g.size[k].divisor;
    at.dst += r * g.dst_stride[k];
    at.src += r * g.src_stride[k];
    v = q;
  }
  at.dst += v * g.dst_stride[0];
  at.src += v * g.src_stride[0];
  return at;
}

// Half-open ranges along the dims of the box's axes, in elements of those dims.
struct BoxRange {
  int32_t lo[kMaxSpatial];
  int32_t hi[kMaxSpatial];
};

struct Coordinates {
  int32_t at[kMaxSpatial];
};

template <int V>
__device__ __forceinline__ Coordinates coordinates_of(const Geometry& g, uint32_t v) {
  Coordinates c;
#pragma unroll
  for (int a = 0; a < kMaxSpatial; ++a) {
    int32_t at = 0;
    if (a < g.spatial) {
      const uint32_t q = g.below[a].div(v);
      at = static_cast<int32_t>(q - g.steps[a].div(q) * g.steps[a].divisor);
      if (a == g.inner_axis) at *= V;
    }
    c.at[a] = at;
  }
  return c;
}

// The elements [from, to) of a vector that lie in the box; empty where to <= from.
struct Span {
  int from, to;
  __device__ __forceinline__ bool empty() const { return to <= from; }
  template <int V>
  __device__ __forceinline__ bool full() const {
    return from <= 0 && to >= V;
  }
  __device__ __forceinline__ bool has(int e) const { return e >= from && e < to; }
};

template <int V>
__device__ __forceinline__ Span span_of(const Geometry& g, const BoxRange& box,
                                        const Coordinates& c) {
  Span s{0, V};
  bool inside = g.spatial > 0;
#pragma unroll
  for (int a = 0; a < kMaxSpatial; ++a) {
    const int32_t lo = box.lo[a] - c.at[a], hi = box.hi[a] - c.at[a];
    if (a == g.inner_axis) {
      s.from = lo;
      s.to = hi;
    } else if (a < g.spatial) {
      inside = inside && lo <= 0 && hi > 0;
    }
  }
  if (s.from < 0) s.from = 0;
  if (s.to > V) s.to = V;
  return inside ? s : Span{0, 0};
}

FUSED_MIXUP_HOST_DEVICE inline int32_t clamp_to(int32_t at, int32_t extent) {
  return at < 0 ? 0 : at > extent ? extent : at;
}

// The box that serves all rows, clamped to the sample. box: int32 [2 * spatial].
inline BoxRange box_range(const Geometry& g, const int32_t* box) {
  BoxRange out = {};
  for (int a = 0; a < g.spatial; ++a) {
    out.lo[a] = clamp_to(box[a], g.extent[a]) * g.group[a];
    out.hi[a] = clamp_to(box[g.spatial + a], g.extent[a]) * g.group[a];
  }
  return out;
}

// The samples of the destination and of the source, in the caller's layout.
struct Samples {
  void* dst;
  const void* src;
  int64_t batch;
  int64_t dst_batch_stride, src_batch_stride;  // in elements
  int ndim;                                    // dims of a sample
  const int64_t* sizes;                        // [ndim]
  const int64_t* dst_strides;                  // [ndim]
  const int64_t* src_strides;                  // [ndim]
};

inline bool fits_vectors(const Samples& s, const Layout& layout, int element_size, int bytes) {
  const int v = bytes / element_size;
  const int last = layout.ndim - 1;
  if (last < 0 || layout.dst_stride[last] != 1 || layout.src_stride[last] != 1) return false;
  bool fits = aligned(s.dst, bytes) && aligned(s.src, bytes) && layout.size[last] % v == 0;
  if (s.batch > 1) fits = fits && s.dst_batch_stride % v == 0 && s.src_batch_stride % v == 0;
  for (int k = 0; k < last; ++k) {
    fits = fits && layout.dst_stride[k] % v == 0 && layout.src_stride[k] % v == 0;
  }
  return fits;
}

// The geometry of one call. `spatial` is 0 where no row has a box. With `region`, a box that all
// rows share, only the vectors that touch it are numbered: *dst_start and *src_start (in elements)
// are the offsets of the first, and *region_range is the box relative to it. Returns false for a
// sample of more than 2^31 vectors, or with a boxed dim of more than 2^31 elements: coordinates
// have 32 bits, memory offsets 64. Vectors have 16 bytes, or `widest` where that fits.
inline bool make_geometry(const Samples& s, int element_size, int spatial, const int32_t* region,
                          Geometry* g, int* vector_size, int64_t* dst_start, int64_t* src_start,
                          BoxRange* region_range, int widest = 16) {
  Layout layout = make_layout(s.sizes, s.dst_strides, s.src_strides, s.ndim, spatial);
  const int v = fits_vectors(s, layout, element_size, widest) ? widest / element_size
                : fits_vectors(s, layout, element_size, 16)   ? 16 / element_size
                                                              : 1;
  const int last = layout.ndim - 1;
  *g = Geometry();
  *vector_size = v;
  *dst_start = *src_start = 0;
  g->spatial = spatial;
  int dim_of[kMaxSpatial] = {-1, -1, -1};  // -1: a dim of size 1, which the layout dropped
  for (int a = 0; a < spatial; ++a) {
    const int64_t extent = s.sizes[s.ndim - spatial + a];
    for (int k = 0; k < layout.ndim; ++k) {
      if (layout.axis[k] == a) dim_of[a] = k;
    }
    const int64_t length = dim_of[a] < 0 ? 1 : layout.size[dim_of[a]];
    if (length >= max_count()) return false;
    g->extent[a] = static_cast<int32_t>(extent);
    g->group[a] = dim_of[a] < 0 ? 1 : static_cast<int32_t>(layout.group[dim_of[a]]);
    if (dim_of[a] == last && last >= 0) g->inner_axis = a;
  }
  if (region != nullptr) {
    *region_range = box_range(*g, region);
    for (int a = 0; a < spatial; ++a) {
      const int k = dim_of[a];
      if (k < 0) continue;
      // Whole vectors along the innermost dim, so that access stays aligned.
      const int64_t unit = k == last ? v : 1;
      const int64_t first = region_range->lo[a] / unit * unit;
      const int64_t end = (region_range->hi[a] + unit - 1) / unit * unit;
      layout.size[k] = end > first ? end - first : 0;
      *dst_start += first * layout.dst_stride[k];
      *src_start += first * layout.src_stride[k];
      region_range->lo[a] -= static_cast<int32_t>(first);
      region_range->hi[a] -= static_cast<int32_t>(first);
    }
  }
  if (last >= 0) layout.size[last] /= v;
  const int64_t count = layout.numel();
  if (count >= max_count()) return false;
  g->count = static_cast<uint32_t>(count);
  const Layout flat = make_layout(s.sizes, s.dst_strides, s.src_strides, s.ndim, 0);
  g->ndim = region == nullptr && flat.flat() ? 0 : layout.ndim;
  int64_t below = 1;
  for (int k = last; k >= 0; --k) {
    const int64_t unit = k == last ? v : 1;
    g->size[k] = FastDiv(layout.size[k]);
    g->dst_stride[k] = layout.dst_stride[k] * unit;
    g->src_stride[k] = layout.src_stride[k] * unit;
    for (int a = 0; a < spatial; ++a) {
      if (dim_of[a] != k) continue;
      g->below[a] = FastDiv(below);
      g->steps[a] = g->size[k];
    }
    below *= layout.size[k];
  }
  return true;
}

}  // namespace fused_mixup
