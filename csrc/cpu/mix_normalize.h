// The walk of mix_normalize: a few rows of a sample, or of two samples that blend with each other,
// are normalised, mixed, erased and written while they are in the first-level cache.
//
// A box is pasted as bytes, before anything is normalised, unless its row blends.
#pragma once

#include "pixel_rows.h"

namespace fused_mixup {

// What is erased of each image.
struct Erased {
  int64_t boxes = 0;
  const int32_t* box = nullptr;  // [B, boxes, 4]: y0, x0, y1, x1
  const float* value =
      nullptr;  // of channel c of box k of image i: i·image + k·box_step + c·channel
  int64_t image = 0, box_step = 0, channel = 0;
  const int64_t* noise = nullptr;  // [B], keys
};

// The result [B, C, H, W] in memory; strides in elements.
template <typename U>
struct Result {
  U* p;
  int64_t b, c, y, x;
};

// What all threads share. T: as the images are stored. U: as the result is.
template <typename T, typename U>
struct NormalizeWork {
  std::vector<Image<T>> images;
  const uint8_t* flips = nullptr;  // [B]
  std::vector<PlanRow> rows;
  std::vector<ChannelConstants> constants;  // [planes]
  Erased erased;
  Result<U> out;
  PixelOrder order;
  bool direct;      // whether the result lies in that order
  bool first;       // mix, then normalise
  int64_t at_once;  // rows of pixels

  int64_t steps() const { return (order.height + at_once - 1) / at_once; }
};

template <typename T, typename U>
class Normalizer {
  using S = typename Arranger<T>::S;

  const NormalizeWork<T, U>& work;
  const PixelOrder& order;
  Arranger<T> arranger;
  std::vector<S> own, other;
  std::vector<U> scattered;  // results that do not lie in order
  std::vector<float> noise;  // of a row, four channels
  std::vector<U> rounded;    // a row that fills a box
  int64_t y = 0, count = 0;  // the rows of pixels of this step

 public:
  explicit Normalizer(const NormalizeWork<T, U>& w)
      : work(w),
        order(w.order),
        arranger(w.order, w.at_once),
        own(w.at_once * w.order.row()),
        other(own.size()),
        scattered(w.direct ? 0 : own.size()) {}

  void mix_row(int64_t i, int64_t step) {
    find(step);
    const PlanRow& row = work.rows[i];
    if (!row.blends()) {
      normalize(i, pasted(i));
    } else {
      const Rows<S> a = rows_of_image(i, own), b = rows_of_image(row.partner, other);
      each_plane([&](int64_t c, int64_t n) {
        const float w0 = float(row.own), w1 = float(row.other);
        const S *p = a.p + c * a.plane, *q = b.p + c * b.plane;
        if (work.first) {
          mix_kernels<S>().blend(own.data(), p, q, q, n, w0, w1);
          kernel().normalize(target(i, c), own.data(), n, work.constants[c]);
        } else {
          kernel().blend(target(i, c), p, q, n, work.constants[c], w0, w1);
        }
      });
      paste(i, b);
    }
    finish(i);
  }

  // mix_row() for i and its partner, which blend with each other.
  void mix_pair(int64_t i, int64_t step) {
    find(step);
    const int64_t j = work.rows[i].partner;
    const PlanRow &row_i = work.rows[i], &row_j = work.rows[j];
    const PairWeights w = {float(row_i.own), float(row_i.other), float(row_j.own),
                           float(row_j.other)};
    const Rows<S> a = rows_of_image(i, own), b = rows_of_image(j, other);
    each_plane([&](int64_t c, int64_t n) {
      const S *p = a.p + c * a.plane, *q = b.p + c * b.plane;
      if (work.first) {
        S *mixed = own.data() + c * n, *mixed_partner = other.data() + c * n;
        mix_kernels<S>().blend_pair(mixed, mixed_partner, p, q, n, w.own_a, w.other_a, w.own_b,
                                    w.other_b);
        kernel().normalize(target(i, c), mixed, n, work.constants[c]);
        kernel().normalize(target(j, c), mixed_partner, n, work.constants[c]);
      } else {
        kernel().blend_pair(target(i, c), target(j, c), p, q, n, work.constants[c], w);
      }
    });
    finish(i);
    finish(j);
  }

 private:
  static const NormalizeKernels<S, U>& kernel() { return normalize_kernels<S, U>(); }

  void find(int64_t step) {
    y = step * work.at_once;
    count = std::min(work.at_once, order.height - y);
  }

  bool flips(int64_t i) const { return work.flips != nullptr && work.flips[i] != 0; }

  // f(plane, elements)
  template <typename F>
  void each_plane(F f) const {
    const int64_t n = count * order.width * order.interleaved();
    for (int64_t c = 0; c < order.planes(); ++c) f(c, n);
  }

  // Where plane c of these rows of image i is written.
  U* target(int64_t i, int64_t c) {
    if (!work.direct) return scattered.data() + c * count * order.width;
    return work.out.p + i * work.out.b + c * work.out.c + y * work.out.y;
  }

  Rows<S> rows_of_image(int64_t i, std::vector<S>& scratch) {
    const Rows<S> found = arranger.in_place(work.images[i], flips(i), y, count);
    if (found.p != nullptr) return found;
    return arranger.put(scratch.data(), work.images[i], flips(i), y, count);
  }

  // f(row, x0, x1) for the rows of a box that are of this step, counted from y on.
  template <typename F>
  void each_row(const Box& box, F f) const {
    if (box.empty) return;
    const int64_t stop = std::min(box.stop[0], y + count);
    for (int64_t r = std::max(box.start[0], y); r < stop; ++r) f(r - y, box.start[1], box.stop[1]);
  }

  // The rows of image i with the box of its partner.
  Rows<S> pasted(int64_t i) {
    const Box& box = work.rows[i].box;
    if (box.empty || box.start[0] >= y + count || box.stop[0] <= y) return rows_of_image(i, own);
    const Rows<S> rows = arranger.put(own.data(), work.images[i], flips(i), y, count);
    const int64_t partner = work.rows[i].partner;
    each_row(box, [&](int64_t r, int64_t x0, int64_t x1) {
      arranger.put_columns(own.data() + r * order.width * order.interleaved(), rows.plane,
                           work.images[partner], flips(partner), y + r, x0, x1);
    });
    return rows;
  }

  void normalize(int64_t i, const Rows<S>& rows) {
    each_plane([&](int64_t c, int64_t n) {
      kernel().normalize(target(i, c), rows.p + c * rows.plane, n, work.constants[c]);
    });
  }

  // Pastes the box of a row that blends too; b: the rows of its partner.
  void paste(int64_t i, const Rows<S>& b) {
    const int64_t step = order.interleaved();
    each_row(work.rows[i].box, [&](int64_t r, int64_t x0, int64_t x1) {
      const int64_t at = (r * order.width + x0) * step;
      each_plane([&](int64_t c, int64_t) {
        kernel().normalize(target(i, c) + at, b.p + c * b.plane + at, (x1 - x0) * step,
                           work.constants[c]);
      });
    });
  }

  void finish(int64_t i) {
    for (int64_t k = 0; k < work.erased.boxes; ++k) erase(i, k);
    if (!work.direct) scatter_rows(i);
  }

  void erase(int64_t i, int64_t k) {
    const Erased& e = work.erased;
    const int32_t* box = e.box + (i * e.boxes + k) * 4;
    const int64_t x0 = std::max(box[1], 0), x1 = std::min<int64_t>(box[3], order.width);
    const int64_t y0 = std::max<int64_t>(box[0], y), y1 = std::min<int64_t>(box[2], y + count);
    if (x0 >= x1 || y0 >= y1) return;
    if (e.noise != nullptr) {
      for (int64_t r = y0; r < y1; ++r) fill_with_noise(i, r - y, x0, x1);
      return;
    }
    const float* value = e.value + i * e.image + k * e.box_step;
    const int64_t channels = order.interleaved();
    for (int64_t plane = 0; plane < order.planes(); ++plane) {
      rounded.resize((x1 - x0) * channels);  // a row of the box
      for (int64_t c = 0; c < channels; ++c) {
        const U filled = from_float<U>(value[(plane + c) * e.channel]);
        for (int64_t x = c; x < int64_t(rounded.size()); x += channels) rounded[x] = filled;
      }
      for (int64_t r = y0; r < y1; ++r) {
        std::memcpy(row_of_channel(i, plane, r - y) + x0 * channels, rounded.data(),
                    rounded.size() * sizeof(U));
      }
    }
  }

  // The elements of channel c in row r, at x = 0.
  U* row_of_channel(int64_t i, int64_t c, int64_t r) {
    U* row = target(i, order.planar ? c : 0) + r * order.width * order.interleaved();
    return order.planar ? row : row + c;
  }

  void fill_with_noise(int64_t i, int64_t r, int64_t x0, int64_t x1) {
    const int64_t stride = (order.width + kNoiseStep - 1) / kNoiseStep * kNoiseStep, n = x1 - x0;
    noise.resize(4 * stride);
    rounded.resize(n);
    for (int64_t block = 0; 4 * block < order.channels; ++block) {
      kernels().pixels.noise(noise.data(), stride, work.erased.noise[i], (y + r) * order.width + x0,
                             n, uint32_t(block));
      for (int64_t c = 4 * block; c < std::min(4 * block + 4, order.channels); ++c) {
        mix_kernels<U>().round(rounded.data(), noise.data() + (c % 4) * stride, n);
        scatter(row_of_channel(i, c, r) + x0 * order.interleaved(), order.interleaved(),
                rounded.data(), n);
      }
    }
  }

  void scatter_rows(int64_t i) {
    for (int64_t c = 0; c < order.planes(); ++c) {
      for (int64_t r = 0; r < count; ++r) {
        scatter(work.out.p + i * work.out.b + c * work.out.c + (y + r) * work.out.y, work.out.x,
                scattered.data() + (c * count + r) * order.width, order.width);
      }
    }
  }
};

}  // namespace fused_mixup
