// Samples [outer…, H, W] as lines of pixels, for mix_rectangles and mix_patches.
//
// A pixel is one element, or with channels last the `inner` elements of all channels, adjacent in
// every tensor of the call. The other dims are counted as planes.
#pragma once

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "binding.h"

namespace fused_mixup {

struct ImageShape {
  int64_t inner = 1, planes = 1;
  std::vector<int64_t> sizes;  // of the planes' dims
  std::vector<int64_t> dims;   // which of the tensor's dims they are
};

// The dim of channels that lie last in all tensors, or -1.
inline int64_t channels_last_dim(std::initializer_list<const Tensor*> tensors) {
  const Tensor& first = **tensors.begin();
  const int64_t ndim = first.dim();
  for (int64_t d = 1; d + 2 < ndim; ++d) {
    const auto adjacent = [&](const Tensor* t) {
      return t->stride(d) == 1 && t->stride(ndim - 1) != 1;
    };
    if (first.size(d) > 1 && std::all_of(tensors.begin(), tensors.end(), adjacent)) return d;
  }
  return -1;
}

inline ImageShape image_shape(std::initializer_list<const Tensor*> tensors) {
  const Tensor& first = **tensors.begin();
  const int64_t last = channels_last_dim(tensors);
  ImageShape shape;
  for (int64_t d = 1; d + 2 < first.dim(); ++d) {
    if (d == last) {
      shape.inner = first.size(d);
    } else if (first.size(d) != 1) {
      shape.sizes.push_back(first.size(d));
      shape.dims.push_back(d);
      shape.planes *= first.size(d);
    }
  }
  return shape;
}

// The samples of one tensor.
template <typename T>
struct Images {
  T* data;
  int64_t sample, y, x;  // strides in elements
  int64_t inner;
  bool runs;                   // the pixels of a line are one run of memory
  std::vector<int64_t> plane;  // offset of each plane

  Images(const Tensor& t, const ImageShape& shape)
      : data(fused_mixup::data<T>(t)),
        sample(t.stride(0)),
        y(t.stride(t.dim() - 2)),
        x(t.stride(t.dim() - 1)),
        inner(shape.inner),
        runs(x == shape.inner || t.size(t.dim() - 1) == 1),
        plane(shape.planes) {
    for (int64_t p = 0; p < shape.planes; ++p) {
      int64_t rest = p;
      for (size_t k = shape.sizes.size(); k-- > 0;) {
        plane[p] += rest % shape.sizes[k] * t.stride(shape.dims[k]);
        rest /= shape.sizes[k];
      }
    }
  }
  T* line(int64_t i, int64_t p, int64_t row) const {
    return data + i * sample + plane[p] + row * y;
  }
};

// n pixels of `inner` elements; dst_x, src_x: elements from one to the next.
template <typename T>
void copy_pixels(T* dst, int64_t dst_x, const T* src, int64_t src_x, int64_t inner, int64_t n) {
  if (dst_x == inner && src_x == inner) {
    std::memcpy(dst, src, size_t(n * inner) * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < inner; ++k) dst[i * dst_x + k] = src[i * src_x + k];
  }
}

// Rows of a task: enough that its tables and its start are small beside it.
inline int64_t rows_at_once(int64_t row_bytes, int64_t height) {
  constexpr int64_t kTaskBytes = 1 << 18;
  return std::clamp<int64_t>(kTaskBytes / std::max<int64_t>(row_bytes, 1), 1,
                             std::max<int64_t>(height, 1));
}

// f(sample, first row, row behind the last) in parallel.
template <typename F>
void for_image_rows(int64_t batch, int64_t height, int64_t row_bytes, const F& f) {
  constexpr int64_t kGrainBytes = 1 << 16;  // less work than this is not worth another thread
  const int64_t rows = rows_at_once(row_bytes, height), steps = (height + rows - 1) / rows;
  const int64_t grain = 1 + kGrainBytes / std::max<int64_t>(rows * row_bytes, 1);
  parallel_for(0, batch * steps, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = t % steps * rows;
      f(t / steps, first, std::min(first + rows, height));
    }
  });
}

}  // namespace fused_mixup
