// The walk of mix_rectangles: N bytes written, and as many read of what is shown.
//
// A task takes some rows of one sample. The edges of its rectangles part the rows into bands, and a
// line of a band into segments that show one source each; lines of all planes have the same ones.
// Where values are resampled, a table of the columns is made once for the task.
#pragma once

#include <array>

#include "../common/resample.h"
#include "collage.h"
#include "kernels.h"

namespace fused_mixup {

struct Rectangle {
  int64_t source;
  Axis y, x;
};

// Where the elements of a line of a rectangle come from; offsets are from pixel `first` of the
// source's line, as if its pixels were adjacent.
template <typename A>
struct ColumnTable {
  int64_t begin = 0, end = 0;    // columns of the result
  int64_t first = 0, count = 0;  // pixels of the source
  std::vector<int32_t> low, high;
  std::vector<A> own, other;
  bool run = false;  // adjacent pixels, as they are
};

template <typename A>
ColumnTable<A> column_table_of(const Axis& x, int64_t width, int64_t inner, int resample) {
  ColumnTable<A> c;
  c.begin = std::clamp<int64_t>(x.start, 0, width);
  c.end = std::clamp<int64_t>(x.stop, c.begin, width);
  const int64_t n = c.end - c.begin;
  if (n == 0) return c;
  std::vector<Tap> taps(n);
  int64_t last = 0;
  c.first = x.extent;
  c.run = resample <= kResizeNearest;
  for (int64_t i = 0; i < n; ++i) {
    taps[i] = tap_of(x, c.begin + i, resample);
    c.first = std::min(c.first, taps[i].low);
    last = std::max(last, taps[i].high);
    c.run = c.run && taps[i].low == taps[0].low + i;
  }
  c.count = last - c.first + 1;
  if (c.run) return c;
  c.low.resize(n * inner);
  if (resample >= kResizeBilinear) {
    c.high.resize(n * inner);
    c.own.resize(n * inner);
    c.other.resize(n * inner);
  }
  for (int64_t i = 0, e = 0; i < n; ++i) {
    for (int64_t k = 0; k < inner; ++k, ++e) {
      c.low[e] = int32_t((taps[i].low - c.first) * inner + k);
      if (resample < kResizeBilinear) continue;
      c.high[e] = int32_t((taps[i].high - c.first) * inner + k);
      c.own[e] = A(1.0f - taps[i].share);
      c.other[e] = A(taps[i].share);
    }
  }
  return c;
}

// A part of the lines of a band.
struct Segment {
  int64_t x, n;
  int rectangle;               // -1: the sample itself, or the fill
  int64_t held[2] = {-1, -1};  // the rows of the source whose interpolated lines are kept
};

template <typename T, bool kInterpolates>
class RectanglePaster {
 public:
  using A = std::conditional_t<kInterpolates, acc_t<T>, float>;

  RectanglePaster(const Images<T>& out, const Images<T>& own, const Images<T>& images,
                  const Rectangle* rectangles, int count, int64_t width, int resample,
                  const T* fill)
      : out_(out),
        own_(own),
        images_(images),
        rectangles_(rectangles),
        count_(count),
        width_(width),
        inner_(out.inner),
        resample_(resample),
        fill_(fill),
        line_(width * inner_) {}

  void paste(int64_t i, int64_t begin, int64_t end) {
    std::vector<int64_t> edges = {begin, end};
    for (int k = 0; k < count_; ++k) {
      const Rectangle& r = rectangles_[k];
      if (r.y.stop <= begin || r.y.start >= end) continue;
      for (int64_t edge : {r.y.start, r.y.stop}) {
        if (edge > begin && edge < end) edges.push_back(edge);
      }
      columns_[k] = column_table_of<A>(r.x, width_, inner_, resample_);
      prepare(k);
    }
    std::sort(edges.begin(), edges.end());
    std::vector<std::vector<Segment>> bands;
    for (size_t e = 0; e + 1 < edges.size(); ++e) bands.push_back(segments(edges[e], edges[e + 1]));
    for (size_t p = 0; p < out_.plane.size(); ++p) {
      for (size_t e = 0; e + 1 < edges.size(); ++e) {
        paste_band(i, int64_t(p), edges[e], edges[e + 1], bands[e]);
      }
    }
  }

 private:
  // Memory for a line of the source and two interpolated ones.
  void prepare(int k) {
    const ColumnTable<A>& c = columns_[k];
    const size_t elements = size_t((c.end - c.begin) * inner_);
    if (size_t(c.count * inner_) > packed_.size()) packed_.resize(c.count * inner_);
    if constexpr (kInterpolates) {
      if (size_t(c.count * inner_) > wide_.size()) wide_.resize(c.count * inner_);
      for (auto& lines : lines_[k]) {
        if (elements > lines.size()) lines.resize(elements);
      }
    }
  }

  std::vector<Segment> segments(int64_t top, int64_t bottom) const {
    std::vector<Segment> found;
    if (top == bottom) return found;
    std::vector<int64_t> edges = {0, width_};
    bool covers[kMaxRectangles] = {};
    for (int k = 0; k < count_; ++k) {
      const Rectangle& r = rectangles_[k];
      covers[k] = r.y.covers(top) && r.x.source_size > 0 && columns_[k].end > columns_[k].begin;
      if (covers[k]) edges.insert(edges.end(), {columns_[k].begin, columns_[k].end});
    }
    std::sort(edges.begin(), edges.end());
    for (size_t e = 0; e + 1 < edges.size(); ++e) {
      const int64_t x = edges[e], n = edges[e + 1] - x;
      if (n == 0) continue;
      int top_most = -1;
      for (int k = 0; k < count_; ++k) {
        if (covers[k] && x >= columns_[k].begin && x < columns_[k].end) top_most = k;
      }
      if (!found.empty() && found.back().rectangle == top_most) {
        found.back().n += n;
      } else {
        found.push_back({x, n, top_most});
      }
    }
    return found;
  }

  void paste_band(int64_t i, int64_t p, int64_t top, int64_t bottom, std::vector<Segment>& parts) {
    for (Segment& s : parts) s.held[0] = s.held[1] = -1;
    const int64_t row = width_ * inner_;
    const bool whole = parts.size() == 1 && parts[0].rectangle < 0 && out_.runs && out_.y == row;
    if (whole && fill_) {
      std::fill_n(out_.line(i, p, top), (bottom - top) * row, *fill_);
      return;
    }
    if (whole && own_.runs && own_.y == row) {
      std::memcpy(out_.line(i, p, top), own_.line(i, p, top), (bottom - top) * row * sizeof(T));
      return;
    }
    for (int64_t y = top; y < bottom; ++y) {
      T* line = out_.line(i, p, y);
      for (Segment& s : parts) paste_segment(line + s.x * out_.x, i, p, y, s);
    }
  }

  void paste_segment(T* dst, int64_t i, int64_t p, int64_t y, Segment& s) {
    if (s.rectangle < 0) {
      if (!fill_) {
        const T* own = own_.line(i, p, y) + s.x * own_.x;
        return copy_pixels(dst, out_.x, own, own_.x, inner_, s.n);
      }
      for (int64_t k = 0; k < s.n; ++k) std::fill_n(dst + k * out_.x, inner_, *fill_);
      return;
    }
    const Rectangle& r = rectangles_[s.rectangle];
    const ColumnTable<A>& c = columns_[s.rectangle];
    const Tap tap = tap_of(r.y, y, resample_);
    if (c.run) {
      const int64_t x = c.first + s.x - c.begin;
      const T* src = images_.line(r.source, p, tap.low) + x * images_.x;
      fetch_below(src, s.n * inner_);
      return copy_pixels(dst, out_.x, src, images_.x, inner_, s.n);
    }
    const int64_t at = (s.x - c.begin) * inner_, n = s.n * inner_;
    T* made = out_.x == inner_ ? dst : line_.data();
    if constexpr (kInterpolates) {
      const A* low = interpolated(s, r, c, p, tap.low, at, n, tap.high);
      const A* high = low;
      if (tap.share != 0) high = interpolated(s, r, c, p, tap.high, at, n, tap.low);
      collage_kernels<T>().blend_lines(made, low, high, n, A(1.0f - tap.share), A(tap.share));
    } else {
      const T* src = packed(r, c, p, tap.low);
      const int32_t* from = c.low.data() + at;
      for (int64_t e = 0; e < n; ++e) made[e] = src[from[e]];
    }
    if (made != dst) copy_pixels(dst, out_.x, static_cast<const T*>(made), inner_, inner_, s.n);
  }

  // Prefetches what the next lines read: the processor foresees no run that goes on after a gap.
  void fetch_below(const T* src, int64_t n) const {
    constexpr int64_t kRows = 2, kMost = 2048, kLine = 64;  // bytes
    if (!images_.runs) return;
    const char* next = reinterpret_cast<const char*>(src + kRows * images_.y);
    const int64_t bytes = std::min<int64_t>(n * int64_t(sizeof(T)), kMost);
    for (int64_t k = 0; k < bytes; k += kLine) __builtin_prefetch(next + k);
  }

  // The pixels of a line of the source that the rectangle reads, adjacent.
  const T* packed(const Rectangle& r, const ColumnTable<A>& c, int64_t p, int64_t row) {
    const T* src = images_.line(r.source, p, row) + c.first * images_.x;
    if (images_.runs) return src;
    copy_pixels(packed_.data(), inner_, src, images_.x, inner_, c.count);
    return packed_.data();
  }

  // The elements [at, at + n) of a line of the source, interpolated along the columns. The next row
  // of the result often needs the same line again. kept: the row whose line stays.
  const A* interpolated(Segment& s, const Rectangle& r, const ColumnTable<A>& c, int64_t p,
                        int64_t row, int64_t at, int64_t n, int64_t kept) {
    for (int k = 0; k < 2; ++k) {
      if (s.held[k] == row) return lines_[s.rectangle][k].data() + at;
    }
    const int k = s.held[0] == kept ? 1 : 0;
    s.held[k] = row;
    const T* src = packed(r, c, p, row);
    const A* values;
    if constexpr (std::is_same_v<T, A>) {
      values = src;
    } else {
      collage_kernels<T>().widen(wide_.data(), src, c.count * inner_);
      values = wide_.data();
    }
    A* made = lines_[s.rectangle][k].data() + at;
    collage_kernels<T>().interpolate(made, values, c.low.data() + at, c.high.data() + at,
                                     c.own.data() + at, c.other.data() + at, n);
    return made;
  }

  const Images<T>&out_, &own_, &images_;
  const Rectangle* rectangles_;
  int count_;
  int64_t width_, inner_;
  int resample_;
  const T* fill_;
  std::array<ColumnTable<A>, kMaxRectangles> columns_;
  std::array<std::array<std::vector<A>, 2>, kMaxRectangles> lines_;
  std::vector<T> line_, packed_;
  std::vector<A> wide_;
};

}  // namespace fused_mixup
