// mix_patches on raw arguments.
//
// A thread writes V elements of a line, which lie in one patch of each side and in one cell of the
// mask: V is 1 where patches or cells are no whole vectors. Written: each element once. Read: what
// is shown, once from memory.
#pragma once

#include "collage.cuh"

namespace fused_mixup {

// Where the patches of one side come from.
struct PatchSide {
  const int32_t* sample;  // [B], or [B, rows, columns] where `each`, or null
  const int32_t* index;   // [B, rows, columns], or null
  bool each;
  int64_t rows, columns;  // 1, 1 without a grid
};

// The same with sizes in pixels, as a kernel divides by them.
struct PatchGrid {
  PatchSide side;
  FastDiv height, width;
  LongDiv columns;
};

struct PatchParams {
  void* dst;
  const void* src;
  int64_t batch;
  Lines lines;
  LineStrides dst_stride, src_stride;
  PatchGrid own, other;
  const float* mask;  // [B, mask_rows, mask_columns], or null
  int64_t mask_rows, mask_columns;
  FastDiv mask_height, mask_width;
};

struct PatchArgs {
  DType dtype;       // where values are blended
  int element_size;  // where they are moved
  LineShape shape;
  PatchParams params;
  cudaStream_t stream;
};

// A place of the source; sample -1 for zeros.
struct PatchSource {
  int64_t sample, y, x;
};

__device__ __forceinline__ PatchSource patch_source(const PatchGrid& g, int64_t batch,
                                                    int64_t sample, int64_t y, int64_t x) {
  const PatchSide& side = g.side;
  const int64_t row = g.height.div(static_cast<uint32_t>(y)),
                column = g.width.div(static_cast<uint32_t>(x));
  const int64_t count = side.rows * side.columns, j = row * side.columns + column;
  const int64_t at = sample * count + j;
  PatchSource from = {sample, y, x};
  if (side.sample != nullptr) {
    from.sample = partner_of(kTensor, side.sample, side.each ? at : sample, batch);
  }
  if (side.index != nullptr) {
    int64_t patch = side.index[at];
    if (patch < 0) from.sample = -1;
    patch = patch < 0 ? 0 : patch >= count ? count - 1 : patch;
    const int64_t source_row = g.columns.div(patch);
    from.y += (source_row - row) * g.height.divisor;
    from.x += (patch - source_row * side.columns - column) * g.width.divisor;
  }
  return from;
}

template <typename T, int V>
__device__ __forceinline__ Vec<T, V> patch_values(const PatchParams& p, const PatchSource& from,
                                                  int64_t plane, int64_t channel) {
  if (from.sample < 0) return Vec<T, V>{};
  return load<V>(static_cast<const T*>(p.src) + from.sample * p.src_stride.sample + plane +
                 from.y * p.src_stride.y + from.x * p.src_stride.x + channel);
}

template <typename T, int V>
__global__ void __launch_bounds__(kCollageThreads)
    patches_kernel(const __grid_constant__ PatchParams p) {
  const Spot at = spot_of<V>(p.lines);
  if (!at.there) return;
  const uint32_t x = p.lines.inner.div(static_cast<uint32_t>(at.element));
  const int64_t channel = at.element - static_cast<int64_t>(x) * p.lines.inner.divisor;
  const int64_t plane = plane_offset(p.lines, p.src_stride, at.plane);
  T* dst = static_cast<T*>(p.dst) + at.sample * p.dst_stride.sample +
           plane_offset(p.lines, p.dst_stride, at.plane) + at.y * p.dst_stride.y +
           x * p.dst_stride.x + channel;
  if constexpr (!Number<T>::kBlends) {
    const PatchSource from = patch_source(p.own, p.batch, at.sample, at.y, x);
    store_once(dst, patch_values<T, V>(p, from, plane, channel));
  } else {
    using N = Number<T>;
    using A = typename N::Acc;
    const int64_t row = p.mask_height.div(static_cast<uint32_t>(at.y));
    const float m = p.mask[(at.sample * p.mask_rows + row) * p.mask_columns + p.mask_width.div(x)];
    Vec<T, V> own{}, other{};
    if (m != 0.0f) {
      const PatchSource from = patch_source(p.own, p.batch, at.sample, at.y, x);
      own = patch_values<T, V>(p, from, plane, channel);
    }
    if (m != 1.0f) {
      const PatchSource from = patch_source(p.other, p.batch, at.sample, at.y, x);
      other = patch_values<T, V>(p, from, plane, channel);
    }
    if (m == 1.0f) return store_once(dst, own);
    if (m == 0.0f) return store_once(dst, other);
    const A w0 = static_cast<A>(m), w1 = static_cast<A>(1.0f - m);
    const Elements<T, V> a = elements(own), b = elements(other);
    Elements<T, V> out;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      out.e[e] = N::down(add(term(w0, N::up(a.e[e])), term(w1, N::up(b.e[e]))));
    }
    store_once(dst, packed(out));
  }
}

template <typename T>
cudaError_t patches_typed(const PatchArgs& a) {
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  const LineShape& s = a.shape;
  PatchParams p = a.params;
  for (PatchGrid* g : {&p.own, &p.other}) {
    g->height = FastDiv(s.height / g->side.rows);
    g->width = FastDiv(s.width / g->side.columns);
    g->columns = LongDiv(g->side.columns);
  }
  p.mask_height = FastDiv(s.height / p.mask_rows);
  p.mask_width = FastDiv(s.width / p.mask_columns);
  bool wide = kWide > 1 && runs_of_vectors(p.dst, p.dst_stride, s, kWide) &&
              runs_of_vectors(p.src, p.src_stride, s, kWide);
  for (const FastDiv* width : {&p.own.width, &p.other.width, &p.mask_width}) {
    wide = wide && width->divisor * s.inner % kWide == 0;
  }
  if constexpr (kWide > 1) {
    if (wide) {
      p.lines = make_lines(s, kWide);
      return launch(patches_kernel<T, kWide>, p.batch * p.lines.chunks.divisor,
                    dim3(kCollageThreads), 0, a.stream, p);
    }
  }
  p.lines = make_lines(s, 1);
  return launch(patches_kernel<T, 1>, p.batch * p.lines.chunks.divisor, dim3(kCollageThreads), 0,
                a.stream, p);
}

inline cudaError_t mix_patches(const PatchArgs& a) {
  const LineShape& s = a.shape;
  if (a.params.batch == 0 || s.planes * s.height * s.width * s.inner == 0) return cudaSuccess;
  if (!countable(s) || s.height >= max_count()) return cudaErrorInvalidValue;
  if (a.params.mask != nullptr) {
    return with_blendable(a.dtype, [&](auto v) { return patches_typed<decltype(v)>(a); });
  }
  return with_size(a.element_size, [&](auto v) { return patches_typed<decltype(v)>(a); });
}

}  // namespace fused_mixup
