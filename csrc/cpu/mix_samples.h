// The walk of mix_samples: samples that lie apart in memory are mixed straight into a batch, which
// is written once.
//
// Two samples that blend with each other are walked together, and each is read once for both rows.
// The others are walked a tile of columns at a time, sample by sample along the pairing, so that a
// sample is still in the second-level cache when it serves as its neighbour's partner. Inside a
// tile, runs that follow each other in memory are blended or copied as one stretch; the lines of a
// box follow, from the partner.
#pragma once

#include "binding.h"
#include "mix_runs.h"

namespace fused_mixup {

// The layout of the samples, which all lie alike, and of the batch. Where channels come last in the
// samples and not in the batch (images as a decoder gives them), the layout has the other dims, and
// each of its elements stands for `channels` neighbours.
struct SampleLayout {
  Layout layout;
  int64_t channels = 1;
  int64_t channel_stride = 0;  // in the batch
};

inline SampleLayout sample_layout(const Tensor& out,     // [n, …]
                                  const Tensor& sample,  // […]
                                  int spatial) {
  const int ndim = int(sample.dim());
  const int64_t* size = sample.sizes().data();
  const int64_t* src = sample.strides().data();
  const int64_t* dst = out.strides().data() + 1;
  SampleLayout found;
  found.layout = make_layout(size, dst, src, ndim, spatial);
  for (int k = 0; k < ndim - spatial; ++k) {
    if (size[k] == 1 || size[k] > kMaxChannels || src[k] != 1 || dst[k] == 1) continue;
    int64_t rest[3][kMaxDims];
    int n = 0;
    for (int j = 0; j < ndim; ++j) {
      if (j == k) continue;
      rest[0][n] = size[j];
      rest[1][n] = dst[j];
      rest[2][n++] = src[j];
    }
    const Layout pixels = make_layout(rest[0], rest[1], rest[2], n, spatial);
    const int inner = pixels.ndim - 1;
    if (inner >= 0 && pixels.src_stride[inner] == size[k] && pixels.dst_stride[inner] == 1) {
      return {pixels, size[k], dst[k]};
    }
  }
  return found;
}

// The order in which the first n rows are walked.
struct SampleOrder {
  std::vector<int64_t> pairs;  // rows i whose partner is another row, and blends with i
  std::vector<int64_t> rest;   // each followed by its partner, unless that has its place already
};

template <typename T>
SampleOrder order_of(const std::vector<PlanRow>& rows, int64_t n) {
  SampleOrder order;
  order.rest.reserve(n);
  std::vector<uint8_t> done(n, 0);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t j = rows[i].partner;
    if (i < j && j < n && rows[j].partner == i && nonzero_weights<T>(rows[i]) &&
        nonzero_weights<T>(rows[j])) {
      done[i] = done[j] = 1;
      order.pairs.push_back(i);
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n && !done[j]; j = rows[j].partner) {
      done[j] = 1;
      order.rest.push_back(j);
    }
  }
  return order;
}

// Rounds down so that the vectors of the next piece stay aligned.
inline int64_t whole_lines(int64_t elements) {
  return elements < 64 ? elements : elements / 64 * 64;
}

// A line of a box, by its offsets in the stretch.
struct BoxLine {
  int64_t dst, src, length;
};

template <typename T>
struct SampleMixer {
  using A = acc_t<T>;
  static constexpr int64_t kTile = kTileBytes / sizeof(T);
  // Elements of a part: what needs a copy is copied in parts that stay in the first-level cache.
  static constexpr int64_t kPart = 2048 / sizeof(T);

  T* out;
  int64_t out_stride;
  const std::vector<const T*>& samples;
  const std::vector<PlanRow>& rows;
  const Tiles& tiles;
  int64_t channels, channel_stride;
  // The lines of the box that find_lines() saw last, and where its runs start.
  const Run* seen;
  Box seen_box;
  int line_count;
  BoxLine lines[Tiles::kMaxRuns];
  alignas(64) T own_part[kPart];
  alignas(64) T partner_part[kPart];

  bool adjacent() const { return tiles.dst_stride() == 1 && tiles.src_stride() == channels; }

  // dst = src for n elements of the layout, with the strides of the batch and of a sample.
  void put(T* dst, const T* src, int64_t n) const {
    if (!adjacent()) {
      const int64_t to = tiles.dst_stride(), from = tiles.src_stride();
      for (int64_t i = 0; i < n; ++i) dst[i * to] = src[i * from];
    } else if (channels > 1) {
      mix_kernels<T>().split(dst, channel_stride, src, n, channels);
    } else {
      std::memcpy(dst, src, n * sizeof(T));
    }
  }

  // Whether kernels write straight into the batch, and not into a part first.
  bool direct() const { return adjacent() && channels == 1; }

  // f(begin, n) for the parts of a stretch of `length` elements.
  template <typename F>
  void each_part(int64_t length, F f) const {
    const int64_t most = direct() ? length : whole_lines(kPart / channels);
    for (int64_t i = 0; i < length; i += most) f(i, std::min(most, length - i));
  }

  // n elements of a sample as a kernel reads them.
  const T* from(const T* sample, int64_t n, T* part) const {
    if (adjacent()) return sample;
    gather(part, sample, tiles.src_stride(), n);
    return part;
  }

  void put_part(T* dst, const T* part, int64_t n) const {
    if (!adjacent()) {
      scatter(dst, tiles.dst_stride(), part, n);
    } else if (channels > 1) {
      put(dst, part, n);
    }
  }

  const T* sample_of(int64_t i, const Run& run) const { return samples[i] + run.src; }
  T* out_of(int64_t i, const Run& run) const { return out + i * out_stride + run.dst; }

  // Mixes the runs [first, last) of one row, a stretch of `length` elements. next: the row that is
  // walked after it.
  void mix_stretch(int64_t i, int64_t next, const Run* first, const Run* last, int64_t length) {
    const PlanRow& row = rows[i];
    const T* sample = sample_of(i, *first);
    T* dst = out_of(i, *first);
    if (row.blends()) {
      const T* partner = sample_of(row.partner, *first);
      const T* ahead = sample_of(next, *first);
      const A w0 = A(row.own), w1 = A(row.other);
      each_part(length, [&](int64_t begin, int64_t n) {
        const int64_t at = begin * tiles.src_stride();
        const T* own = from(sample + at, n, own_part);
        const T* other = from(partner + at, n, partner_part);
        T* mixed = direct() ? dst + begin : own_part;
        const T* soon = adjacent() ? ahead + at : other;
        mix_kernels<T>().blend(mixed, own, other, soon, n * channels, w0, w1);
        put_part(dst + begin * tiles.dst_stride(), mixed, n);
      });
    } else {
      put(dst, sample, length);
    }
    paste(i, first, last);
  }

  // mix_stretch() for row i and its partner, which blend with each other.
  void mix_stretch_of_pair(int64_t i, const Run* first, const Run* last, int64_t length) {
    const int64_t j = rows[i].partner;
    const T *sample_i = sample_of(i, *first), *sample_j = sample_of(j, *first);
    T *dst_i = out_of(i, *first), *dst_j = out_of(j, *first);
    const A w[] = {A(rows[i].own), A(rows[i].other), A(rows[j].own), A(rows[j].other)};
    each_part(length, [&](int64_t begin, int64_t n) {
      const int64_t at = begin * tiles.src_stride(), to = begin * tiles.dst_stride();
      const T* a = from(sample_i + at, n, own_part);
      const T* b = from(sample_j + at, n, partner_part);
      T* mixed_i = direct() ? dst_i + begin : own_part;
      T* mixed_j = direct() ? dst_j + begin : partner_part;
      mix_kernels<T>().blend_pair(mixed_i, mixed_j, a, b, n * channels, w[0], w[1], w[2], w[3]);
      put_part(dst_i + to, mixed_i, n);
      put_part(dst_j + to, mixed_j, n);
    });
    paste(i, first, last);
    paste(j, first, last);
  }

  // Pastes the box of row i in these runs.
  void paste(int64_t i, const Run* first, const Run* last) {
    if (rows[i].box.empty) return;
    find_lines(rows[i].box, first, last);
    const T* partner = sample_of(rows[i].partner, *first);
    T* dst = out_of(i, *first);
    for (int k = 0; k < line_count; ++k) {
      const BoxLine& line = lines[k];
      put(dst + line.dst, partner + line.src, line.length);
    }
  }

  // Finds the lines of a box in these runs; most often it is the box of the row before.
  void find_lines(const Box& box, const Run* first, const Run* last) {
    if (seen == first && box == seen_box) return;
    seen = first;
    seen_box = box;
    line_count = 0;
    for (const Run* run = first; run < last; ++run) {
      const RunSpan span = tiles.span(*run, box);
      if (span.to <= span.from) continue;
      lines[line_count++] = {run->dst - first->dst + span.from * tiles.dst_stride(),
                             run->src - first->src + span.from * tiles.src_stride(),
                             span.to - span.from};
    }
  }

  // f(first run, last run, length in elements) of each stretch of tile t.
  template <typename F>
  void each_stretch(int64_t t, F f) {
    Run runs[Tiles::kMaxRuns];
    const int n = tiles.runs_of(t, runs);
    seen = nullptr;
    for (int first = 0, last; first < n; first = last) {
      int64_t length = runs[first].length;
      for (last = first + 1; last < n && continues(runs[last - 1], runs[last]); ++last) {
        length += runs[last].length;
      }
      f(runs + first, runs + last, length);
    }
  }

  void mix_pair_in_tile(int64_t i, int64_t t) {
    each_stretch(t, [&](const Run* first, const Run* last, int64_t length) {
      mix_stretch_of_pair(i, first, last, length);
    });
  }

  void mix_rows_in_tile(int64_t t, const std::vector<int64_t>& order) {
    const int64_t count = int64_t(order.size());
    each_stretch(t, [&](const Run* first, const Run* last, int64_t length) {
      for (int64_t k = 0; k < count; ++k) {
        // The next row's own sample has been read as this one's partner: fetch the one after.
        const int64_t next = order[std::min(k + 2, count - 1)];
        mix_stretch(order[k], next, first, last, length);
      }
    });
  }

  bool continues(const Run& a, const Run& b) const {
    return adjacent() && b.dst == a.dst + a.length && b.src == a.src + a.length * channels;
  }
};

}  // namespace fused_mixup
