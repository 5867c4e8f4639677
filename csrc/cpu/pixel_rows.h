// Rows of pixels, brought into the order in which mix_normalize writes them: as bytes, which are a
// half or a quarter of what they become.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "mix_runs.h"

namespace fused_mixup {

// An image [C, H, W] in memory.
template <typename T>
struct Image {
  const T* p;
  int64_t c, y, x;  // strides
};

// How the rows of the result lie. Planar: a row of each channel after the other.
struct PixelOrder {
  int64_t channels, height, width;
  bool planar;

  int64_t row() const { return width * channels; }
  // Channels of the pattern of a run.
  int64_t interleaved() const { return planar ? 1 : channels; }
  int64_t planes() const { return planar ? channels : 1; }
};

// Rows of an image in the order of the result: plane c lies at p + c·plane.
template <typename S>
struct Rows {
  const S* p;
  int64_t plane;
};

// Brings parts of images into the order of the result. T: as the images are stored.
template <typename T>
struct Arranger {
  // Bytes stay bytes; other values become floats.
  using S = std::conditional_t<std::is_same_v<T, uint8_t>, uint8_t, float>;

  PixelOrder order;
  std::vector<T> line, mirrored;  // scratch

  // most: rows that are arranged at once.
  Arranger(const PixelOrder& o, int64_t most) : order(o), mirrored(o.row()) {
    if constexpr (!std::is_same_v<T, S>) line.resize(most * o.row());
  }

  // The rows as they lie, where they need no work; else p is null.
  Rows<S> in_place(const Image<T>& image, bool flip, int64_t y, int64_t rows) const {
    if constexpr (!std::is_same_v<T, S>) return {nullptr, 0};
    if (flip) return {nullptr, 0};
    const int64_t step = order.interleaved();
    const bool adjacent = (image.x == step || order.width == 1) &&
                          (order.planar || image.c == 1 || order.channels == 1) &&
                          (image.y == order.width * step || rows == 1);
    if (!adjacent) return {nullptr, 0};
    return {reinterpret_cast<const S*>(image.p + y * image.y), image.c};
  }

  // Writes whole rows in the order of the result to dst, plane c at c·rows·width.
  Rows<S> put(S* dst, const Image<T>& image, bool flip, int64_t y, int64_t rows) {
    const int64_t plane = rows * order.width;
    if (!flip && image.y == order.width * image.x) {
      put_run(dst, plane, row_of(image, y, 0), false, plane);
    } else {
      for (int64_t r = 0; r < rows; ++r) {
        put_run(dst + r * order.width * order.interleaved(), plane, row_of(image, y + r, 0), flip,
                order.width);
      }
    }
    return {dst, plane};
  }

  // Writes columns [x0, x1) of a row to the same columns of a row of dst.
  void put_columns(S* dst, int64_t plane, const Image<T>& image, bool flip, int64_t y, int64_t x0,
                   int64_t x1) {
    put_run(dst + x0 * order.interleaved(), plane, row_of(image, y, flip ? order.width - x1 : x0),
            flip, x1 - x0);
  }

 private:
  static Image<T> row_of(const Image<T>& image, int64_t y, int64_t x) {
    return {image.p + y * image.y + x * image.x, image.c, image.y, image.x};
  }

  // n pixels from image.p on; plane c goes to dst + c·plane.
  void put_run(S* dst, int64_t plane, const Image<T>& image, bool flip, int64_t n) {
    if constexpr (std::is_same_v<T, S>) {
      arrange(dst, plane, image, flip, n);
    } else {
      arrange(line.data(), n, image, flip, n);
      for (int64_t c = 0; c < order.planes(); ++c) {
        const int64_t length = n * order.interleaved();
        if constexpr (std::is_same_v<T, Half>) {
          kernels().pixels.widen_half(dst + c * plane, line.data() + c * length, length);
        } else {
          kernels().pixels.widen_bfloat16(dst + c * plane, line.data() + c * length, length);
        }
      }
    }
  }

  void arrange(T* dst, int64_t plane, const Image<T>& image, bool flip, int64_t n) {
    if (!flip) return collect(dst, plane, image, n);
    const int64_t length = n * order.interleaved();
    const bool adjacent = image.x == order.interleaved() && (order.planar || image.c == 1);
    if (adjacent) {
      for (int64_t c = 0; c < order.planes(); ++c) {
        mirror(dst + c * plane, image.p + c * image.c, n);
      }
      return;
    }
    collect(mirrored.data(), length, image, n);
    for (int64_t c = 0; c < order.planes(); ++c) {
      mirror(dst + c * plane, mirrored.data() + c * length, n);
    }
  }

  void mirror(T* dst, const T* src, int64_t n) const {
    const int64_t channels = order.interleaved();
    if constexpr (sizeof(T) == 1) {
      kernels().pixels.reverse(dst, src, n, channels);
    } else {
      for (int64_t i = 0; i < n; ++i) {
        std::copy_n(src + (n - 1 - i) * channels, channels, dst + i * channels);
      }
    }
  }

  // n pixels from image.p on, in their order.
  void collect(T* dst, int64_t plane, const Image<T>& image, int64_t n) const {
    const int64_t channels = order.channels;
    if (order.planar) {
      if (image.x == 1) {
        for (int64_t c = 0; c < channels; ++c) {
          std::memcpy(dst + c * plane, image.p + c * image.c, n * sizeof(T));
        }
      } else if (image.c == 1 && image.x == channels) {
        mix_kernels<T>().split(dst, plane, image.p, n, channels);
      } else {
        for (int64_t c = 0; c < channels; ++c) {
          gather(dst + c * plane, image.p + c * image.c, image.x, n);
        }
      }
    } else if (image.c == 1 && image.x == channels) {
      std::memcpy(dst, image.p, n * channels * sizeof(T));
    } else if (sizeof(T) == 1 && image.x == 1 && channels == 3) {
      kernels().pixels.join_three(reinterpret_cast<uint8_t*>(dst),
                                  reinterpret_cast<const uint8_t*>(image.p), image.c, n);
    } else {
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t c = 0; c < channels; ++c) {
          dst[i * channels + c] = image.p[c * image.c + i * image.x];
        }
      }
    }
  }
};

}  // namespace fused_mixup
