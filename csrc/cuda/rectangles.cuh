// mix_rectangles on raw arguments.
//
// A thread writes V elements of a line. Where no rectangle meets them it copies a vector of the
// sample itself (or writes the fill); else it finds the topmost rectangle of each element, and
// reads what its taps say. Written: each element once. Read: what is shown, once from memory.
#pragma once

#include "collage.cuh"

namespace fused_mixup {

struct RectangleParams {
  void* dst;
  const void* own;     // the batch, or null: the fill
  const void* images;  // what the sources index
  int64_t samples;     // of the images
  Lines lines;         // of the result
  LineStrides dst_stride, own_stride, image_stride;
  int64_t image_height, image_width;
  int count;  // R
  int resample;
  const int32_t* source;      // [B, R]
  const int32_t* source_box;  // [B, R, 4]
  const int32_t* box;         // [B, R, 4]
  const float* scale;         // [B, R, 2], or null
  uint4 fill;                 // the bits of one element come first
};

struct RectangleArgs {
  DType dtype;       // where values are interpolated
  int element_size;  // where they are moved
  int64_t batch;
  LineShape shape;  // of the result
  RectangleParams params;
  cudaStream_t stream;
};

// One rectangle as it meets a line: its source's line or lines, and its columns.
template <typename T>
struct RectangleLine {
  const T *low, *high;
  Axis x;
  float share;
};

template <typename T>
__device__ __forceinline__ RectangleLine<T> rectangle_line(const RectangleParams& p, int64_t sample,
                                                           int r, int64_t y, int64_t plane) {
  const int64_t k = sample * p.count + r;
  const float* step = p.scale != nullptr ? p.scale + 2 * k : nullptr;
  const Axis down =
      axis_of(p.box + 4 * k, p.source_box + 4 * k, step, 0, p.image_height, p.resample);
  const Tap tap = tap_of(down, y, p.resample);
  const int64_t from = partner_of(kTensor, p.source, k, p.samples);
  const T* image = static_cast<const T*>(p.images) + from * p.image_stride.sample + plane;
  return {image + tap.low * p.image_stride.y, image + tap.high * p.image_stride.y,
          axis_of(p.box + 4 * k, p.source_box + 4 * k, step, 1, p.image_width, p.resample),
          tap.share};
}

// A weight of 0 drops its term, and its value is not read.
template <typename T, typename A = typename Number<T>::Acc>
__device__ __forceinline__ A weigh(const T* at, float weight) {
  return weight == 0.0f ? A(0) : term(static_cast<A>(weight), Number<T>::up(*at));
}

template <typename T, bool kInterpolates>
__device__ __forceinline__ T value_at(const RectangleParams& p, const RectangleLine<T>& line,
                                      int64_t x, int64_t channel) {
  const Tap tap = tap_of(line.x, x, p.resample);
  const int64_t low = tap.low * p.image_stride.x + channel;
  if constexpr (!kInterpolates) {
    return line.low[low];
  } else {
    using N = Number<T>;
    const int64_t high = tap.high * p.image_stride.x + channel;
    const float own = 1.0f - tap.share;
    const auto along = [&](const T* at) {
      return add(weigh(at + low, own), weigh(at + high, tap.share));
    };
    using A = typename N::Acc;
    const A first = line.share == 1.0f ? A(0) : along(line.low);
    const A second = line.share == 0.0f ? A(0) : along(line.high);
    return N::down(add(term(static_cast<A>(1.0f - line.share), first),
                       term(static_cast<A>(line.share), second)));
  }
}

template <typename T, int V, bool kInterpolates>
__global__ void __launch_bounds__(kCollageThreads)
    rectangles_kernel(const __grid_constant__ RectangleParams p) {
  const Spot at = spot_of<V>(p.lines);
  if (!at.there) return;
  const auto pixel = [&](int e) {
    return static_cast<int32_t>(p.lines.inner.div(static_cast<uint32_t>(at.element + e)));
  };
  const auto channel_of = [&](int e, int32_t x) {
    return at.element + e - x * static_cast<int32_t>(p.lines.inner.divisor);
  };
  const int32_t first = pixel(0), last = V == 1 ? first : pixel(V - 1);
  // The columns of the rectangles that meet this line. Fixed loops keep them in registers.
  int32_t low[kMaxRectangles], high[kMaxRectangles];
  bool met = false;
#pragma unroll
  for (int r = 0; r < kMaxRectangles; ++r) {
    low[r] = high[r] = 0;
    if (r >= p.count) continue;
    const int64_t k = 4 * (at.sample * p.count + r);
    const int32_t *box = p.box + k, *from = p.source_box + k;
    if (box[0] > at.y || box[2] <= at.y || from[2] <= from[0] || from[3] <= from[1]) continue;
    low[r] = box[1];
    high[r] = box[3];
    met = met || (low[r] <= last && high[r] > first);
  }
  T* dst = static_cast<T*>(p.dst) + at.sample * p.dst_stride.sample +
           plane_offset(p.lines, p.dst_stride, at.plane) + at.y * p.dst_stride.y;
  const T* own = static_cast<const T*>(p.own);
  if (own != nullptr) {
    own += at.sample * p.own_stride.sample + plane_offset(p.lines, p.own_stride, at.plane) +
           at.y * p.own_stride.y;
  }
  Elements<T, V> out;
#pragma unroll
  for (int e = 0; e < V; ++e) memcpy(&out.e[e], &p.fill, sizeof(T));
  if constexpr (V > 1) {
    dst += at.element;
    if (own != nullptr) {
      own += at.element;
      if (!met) return store_once(dst, load<V>(own));
    } else if (!met) {
      return store_once(dst, packed<T, V>(out));
    }
  }
  const int64_t image_plane = plane_offset(p.lines, p.image_stride, at.plane);
  int held = -1;
  RectangleLine<T> line = {};
#pragma unroll
  for (int e = 0; e < V; ++e) {
    const int32_t x = pixel(e), channel = channel_of(e, x);
    int top = -1;
#pragma unroll
    for (int r = 0; r < kMaxRectangles; ++r) top = x >= low[r] && x < high[r] ? r : top;
    if (top < 0) {
      if (own != nullptr) out.e[e] = V > 1 ? own[e] : own[x * p.own_stride.x + channel];
      continue;
    }
    if (top != held) line = rectangle_line<T>(p, at.sample, top, at.y, image_plane);
    held = top;
    out.e[e] = value_at<T, kInterpolates>(p, line, x, channel);
  }
  if constexpr (V > 1) {
    store_once(dst, packed<T, V>(out));
  } else {
    dst[first * p.dst_stride.x + channel_of(0, first)] = out.e[0];
  }
}

template <typename T, bool kInterpolates>
cudaError_t rectangles_typed(RectangleParams p, const RectangleArgs& a) {
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  if constexpr (kWide > 1) {
    if (runs_of_vectors(p.dst, p.dst_stride, a.shape, kWide) &&
        (p.own == nullptr || runs_of_vectors(p.own, p.own_stride, a.shape, kWide))) {
      p.lines = make_lines(a.shape, kWide);
      return launch(rectangles_kernel<T, kWide, kInterpolates>, a.batch * p.lines.chunks.divisor,
                    dim3(kCollageThreads), 0, a.stream, p);
    }
  }
  p.lines = make_lines(a.shape, 1);
  return launch(rectangles_kernel<T, 1, kInterpolates>, a.batch * p.lines.chunks.divisor,
                dim3(kCollageThreads), 0, a.stream, p);
}

inline cudaError_t mix_rectangles(const RectangleArgs& a) {
  const LineShape& s = a.shape;
  if (a.batch == 0 || s.planes * s.height * s.width * s.inner == 0) return cudaSuccess;
  if (!countable(s)) return cudaErrorInvalidValue;
  if (a.params.resample >= kResizeBilinear) {
    return with_blendable(a.dtype,
                          [&](auto v) { return rectangles_typed<decltype(v), true>(a.params, a); });
  }
  return with_size(a.element_size,
                   [&](auto v) { return rectangles_typed<decltype(v), false>(a.params, a); });
}

}  // namespace fused_mixup
