// What mix_rectangles and mix_patches share: where the lines of samples [outer…, H, W] lie.
//
// As in csrc/cpu/collage.h a pixel is one element, or with channels last the `inner` adjacent ones
// of all channels; the other dims are planes. A thread takes V adjacent elements of a line.
#pragma once

#include <initializer_list>

#include "../common/resample.h"
#include "geometry.cuh"

namespace fused_mixup {

// Strides of one tensor [B, outer…, H, W], in elements.
struct LineStrides {
  int64_t sample, y, x;
  int64_t plane[kMaxDims];
};

struct LineShape {
  int64_t planes, height, width, inner;
  int ndim;  // of the planes
  int64_t size[kMaxDims];
};

// The shape of samples of sizes [B, outer…, H, W], and the strides of all tensors of a call, whose
// outer dims are alike. Dims that continue each other in all of them become one.
inline LineShape line_shape(const int64_t* sizes, int ndim,
                            std::initializer_list<const int64_t*> tensors,
                            std::initializer_list<LineStrides*> strides) {
  LineShape shape = {1, sizes[ndim - 2], sizes[ndim - 1], 1, 0, {}};
  const auto all = [&](auto holds) {
    for (const int64_t* t : tensors) {
      if (!holds(t)) return false;
    }
    return true;
  };
  int channels = -1;
  for (int d = 1; d + 2 < ndim && channels < 0; ++d) {
    if (sizes[d] > 1 && all([&](const int64_t* t) { return t[d] == 1 && t[ndim - 1] != 1; })) {
      channels = d;
      shape.inner = sizes[d];
    }
  }
  auto out = strides.begin();
  for (const int64_t* t : tensors) **out++ = {t[0], t[ndim - 2], t[ndim - 1], {}};
  int last = -1;  // the dim that was taken last
  for (int d = 1; d + 2 < ndim; ++d) {
    if (d == channels || sizes[d] == 1) continue;
    shape.planes *= sizes[d];
    const bool continues =
        last >= 0 && all([&](const int64_t* t) { return t[last] == t[d] * sizes[d]; });
    if (!continues) shape.size[shape.ndim++] = 1;
    shape.size[shape.ndim - 1] *= sizes[d];
    out = strides.begin();
    for (const int64_t* t : tensors) (*out++)->plane[shape.ndim - 1] = t[d];
    last = d;
  }
  return shape;
}

// Everything a kernel needs to find its elements.
struct Lines {
  int64_t planes;
  LongDiv height;
  int64_t line;      // elements
  LongDiv per_line;  // threads of a line
  LongDiv chunks;    // blocks of a sample
  FastDiv inner;
  int ndim;
  FastDiv size[kMaxDims];
};

// The elements of a thread: V of them from `element` on, in a line of a plane of a sample.
struct Spot {
  int64_t sample, plane, y;
  int32_t element;
  bool there;
};

constexpr int kCollageThreads = 256;

template <int V>
__device__ __forceinline__ Spot spot_of(const Lines& g) {
  const int64_t sample = g.chunks.div(blockIdx.x);
  const int64_t at = (blockIdx.x - sample * g.chunks.divisor) * kCollageThreads + threadIdx.x;
  const int64_t row = g.per_line.div(at);
  const int64_t plane = g.height.div(row);
  return {sample, plane, row - plane * g.height.divisor,
          static_cast<int32_t>((at - row * g.per_line.divisor) * V), plane < g.planes};
}

__device__ __forceinline__ int64_t plane_offset(const Lines& g, const LineStrides& s,
                                                int64_t plane) {
  int64_t offset = 0;
  uint32_t rest = static_cast<uint32_t>(plane);
#pragma unroll 1
  for (int k = g.ndim - 1; k >= 0; --k) {
    const uint32_t q = g.size[k].div(rest);
    offset += static_cast<int64_t>(rest - q * g.size[k].divisor) * s.plane[k];
    rest = q;
  }
  return offset;
}

inline Lines make_lines(const LineShape& shape, int v) {
  Lines g = {};
  g.planes = shape.planes;
  g.height = LongDiv(shape.height);
  g.line = shape.width * shape.inner;
  g.per_line = LongDiv(g.line / v);
  g.inner = FastDiv(shape.inner);
  g.ndim = shape.ndim;
  for (int k = 0; k < shape.ndim; ++k) g.size[k] = FastDiv(shape.size[k]);
  const int64_t count = shape.planes * shape.height * (g.line / v);
  g.chunks = LongDiv((count + kCollageThreads - 1) / kCollageThreads);
  return g;
}

// Kernels number planes and the elements of a line in 32 bits.
inline bool countable(const LineShape& shape) {
  return shape.planes < max_count() && shape.width * shape.inner < max_count();
}

// Whether each line is a run of whole 16-byte vectors of `v` elements.
inline bool runs_of_vectors(const void* data, const LineStrides& s, const LineShape& shape, int v) {
  bool whole = aligned16(data) && (s.x == shape.inner || shape.width == 1) &&
               shape.width * shape.inner % v == 0 && s.sample % v == 0;
  whole = whole && (s.y % v == 0 || shape.height == 1);
  for (int k = 0; k < shape.ndim; ++k) whole = whole && s.plane[k] % v == 0;
  return whole;
}

// Calls f with a value of the type of this size, for values that are moved.
template <typename F>
cudaError_t with_size(int bytes, F&& f) {
  switch (bytes) {
    case 1:
      return f(Raw<1>());
    case 2:
      return f(Raw<2>());
    case 4:
      return f(Raw<4>());
    case 8:
      return f(Raw<8>());
    case 16:
      return f(Raw<16>());
    default:
      return cudaErrorInvalidValue;
  }
}

// Calls f with a value of a type that is blended.
template <typename F>
cudaError_t with_blendable(DType dtype, F&& f) {
  return dtype == kUInt8 ? f(uint8_t()) : with_floating(dtype, f);
}

}  // namespace fused_mixup
