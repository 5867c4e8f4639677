// The masks of samples, computed a line of pixels at a time.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "../common/masks.h"
#include "kernels.h"
#include "walk.h"

namespace fused_mixup {

// What all lines of a call share: where the pixels of a line lie in the map.
struct MaskColumns {
  std::vector<int32_t> first, second;
  std::vector<float> weight;

  explicit MaskColumns(const MaskArgs& a) {
    if (a.map == nullptr) return;
    const float ratio = map_ratio(a.map_width, a.width);
    first.resize(a.width);
    if (a.interpolation == kNearest) {
      for (int x = 0; x < a.width; ++x) first[x] = nearest_source(x, ratio, a.map_width);
      return;
    }
    second.resize(a.width);
    weight.resize(a.width);
    for (int x = 0; x < a.width; ++x) {
      const BilinearSource at = bilinear_source(x, ratio, a.map_width);
      first[x] = at.first;
      second[x] = at.second;
      weight[x] = at.weight;
    }
  }
};

// Computes lines, and keeps the last one: pieces of a line, and lines that are alike, follow one
// another. Each thread has its own.
class MaskLines {
 public:
  MaskLines(const MaskArgs& args, const MaskColumns& columns)
      : a_(args), columns_(columns), line_(args.width), top_(args.width), bottom_(args.width) {
    if (args.map != nullptr) values_.resize(args.map_width);
  }

  // The width values of m in line y of sample i, valid until the next call.
  const float* line(int64_t i, int64_t y) {
    if (nearest(i)) {
      const int row = nearest_source(int(y), map_ratio(a_.map_height, a_.height), a_.map_height);
      if (kept(i, row)) return line_.data();
      read_line(i, row, line_.data());
      finish(i, line_.data(), a_.width);
    } else if (!kept(i, y)) {
      compute(i, y, 0, a_.width, line_.data());
    }
    return line_.data();
  }

  // Writes n values of line y of sample i, from column `begin` on, to m.
  void write(int64_t i, int64_t y, int64_t begin, int64_t n, float* m) {
    if (!nearest(i)) return compute(i, y, begin, n, m);
    std::memcpy(m, line(i, y) + begin, n * sizeof(float));
  }

  // Whether the last line was the same as the one before.
  bool again() const { return again_; }

 private:
  const MaskArgs& a_;
  const MaskColumns& columns_;
  std::vector<float> line_, top_, bottom_, values_;
  int64_t sample_ = -1, y_ = -1;  // of line_
  bool again_ = false;
  int64_t map_sample_ = -1, top_row_ = -1, bottom_row_ = -1;  // of top_ and bottom_

  // Nobody has compared the codes with the tensors that are there: without them the sum is 0.
  bool stored(int64_t i) const {
    return (a_.code_of(i) & kMaskForm) == kStored && a_.map != nullptr;
  }
  bool separable(int64_t i) const {
    return (a_.code_of(i) & kMaskForm) == kSeparable && a_.rank > 0;
  }
  bool nearest(int64_t i) const { return a_.interpolation == kNearest && stored(i); }

  void compute(int64_t i, int64_t y, int64_t begin, int64_t n, float* m) {
    if (stored(i)) {
      const float ratio = map_ratio(a_.map_height, a_.height);
      const BilinearSource at = bilinear_source(int(y), ratio, a_.map_height);
      read_both(i, at);
      kernels().masks.interpolate(m, top_.data() + begin, bottom_.data() + begin, at.weight, n);
    } else if (separable(i)) {
      const float* rows = a_.rows + i * a_.rows_stride + y;
      float r[kMaskRank] = {};
      for (int k = 0; k < a_.rank; ++k) r[k] = rows[int64_t(k) * a_.height];
      const float* columns = a_.columns + i * a_.columns_stride + begin;
      kernels().masks.separable(m, r, columns, a_.width, a_.rank, n);
    } else {
      std::fill_n(m, n, 0.0f);
    }
    finish(i, m, n);
  }

  void finish(int64_t i, float* m, int64_t n) {
    const float threshold = a_.threshold[i * a_.threshold_stride];
    kernels().masks.finish(m, n, a_.code_of(i), threshold);
  }

  bool kept(int64_t i, int64_t y) {
    again_ = sample_ == i && y_ == y;
    sample_ = i;
    y_ = y;
    return again_;
  }

  template <typename T>
  const float* read_values(int64_t at) {
    const T* p = static_cast<const T*>(a_.map) + at;
    if constexpr (std::is_same_v<T, float>) return p;
    for (int x = 0; x < a_.map_width; ++x) values_[x] = to_float(p[x]);
    return values_.data();
  }

  // A row of the map at the width of the image, in float.
  void read_line(int64_t i, int row, float* out) {
    const int64_t at = i * a_.map_stride + int64_t(row) * a_.map_width;
    const float* v = a_.map_type == MapType::kByte       ? read_values<uint8_t>(at)
                     : a_.map_type == MapType::kHalf     ? read_values<Half>(at)
                     : a_.map_type == MapType::kBFloat16 ? read_values<BFloat16>(at)
                                                         : read_values<float>(at);
    const int32_t* first = columns_.first.data();
    if (a_.interpolation == kNearest) {
      if (a_.map_width == a_.width) {
        std::memcpy(out, v, a_.width * sizeof(float));
      } else {
        for (int x = 0; x < a_.width; ++x) out[x] = v[first[x]];
      }
      return;
    }
    const int32_t* second = columns_.second.data();
    const float* weight = columns_.weight.data();
    for (int x = 0; x < a_.width; ++x) out[x] = interpolate(v[first[x]], v[second[x]], weight[x]);
  }

  // The rows of the map above and below a line; what the last line read is used again.
  void read_both(int64_t i, const BilinearSource& at) {
    if (map_sample_ != i) top_row_ = bottom_row_ = -1;
    map_sample_ = i;
    if (top_row_ != at.first && bottom_row_ == at.first) {
      std::swap(top_, bottom_);
      std::swap(top_row_, bottom_row_);
    }
    if (top_row_ != at.first) read_line(i, at.first, top_.data());
    if (bottom_row_ != at.second) read_line(i, at.second, bottom_.data());
    top_row_ = at.first;
    bottom_row_ = at.second;
  }
};

// The mask of the runs of a tile, one after the other.
class MaskTile {
 public:
  static constexpr int64_t kElements = 4096;

  // dense: the one mask [height, width] of all samples, or null.
  MaskTile(const MaskArgs& args, const MaskColumns& columns, const float* dense)
      : args_(args), dense_(dense), lines_(args, columns), m_(kElements) {}

  // Fills the tile for sample i. Where its box lies, m is 0.
  const float* fill(int64_t i, const Box& box, const Layout& layout, const Tiles& tiles,
                    const Run* runs, int n) {
    const int inner = layout.ndim - 1;
    const int axis = inner < 0 ? 1 : layout.axis[inner];
    const int64_t group = inner < 0 ? 1 : layout.group[inner];
    float* m = m_.data();
    for (int r = 0; r < n; ++r) {
      const Run& run = runs[r];
      if (axis == 0) {  // the image is transposed: a run goes down a column
        for (int64_t k = 0; k < run.length; ++k) {
          m[k] = line_of(i, (run.begin + k) / group)[run.coordinate[1]];
        }
      } else if (group > 1) {
        spread(m, line_of(i, run.coordinate[0]), run.begin, run.length, group);
      } else if (dense_) {
        const float* line = dense_ + run.coordinate[0] * args_.width;
        std::memcpy(m, line + run.begin, run.length * sizeof(float));
      } else {
        lines_.write(i, run.coordinate[0], run.begin, run.length, m);
      }
      const RunSpan span = tiles.span(run, box);
      std::fill(m + span.from, m + span.to, 0.0f);
      m += run.length;
    }
    return m_.data();
  }

 private:
  const MaskArgs& args_;
  const float* dense_;
  MaskLines lines_;
  std::vector<float> m_;

  const float* line_of(int64_t i, int64_t y) {
    return dense_ ? dense_ + y * args_.width : lines_.line(i, y);
  }

  // Channels that lie next to each other share the mask of their pixel.
  static void spread(float* m, const float* line, int64_t begin, int64_t length, int64_t group) {
    int64_t x = begin / group, left = group - begin % group;
    for (int64_t k = 0; k < length; left = group, ++x) {
      const int64_t count = std::min(left, length - k);
      for (int64_t c = 0; c < count; ++c) m[k + c] = line[x];
      k += count;
    }
  }
};

// The mask of all samples [height, width], where they share one that is computed; else null.
inline std::unique_ptr<float[]> dense_mask(const MaskArgs& args, const MaskColumns& columns,
                                           int64_t batch) {
  if (batch < 2 || !args.shared() || (args.code_of(0) & kMaskForm) == 0) return nullptr;
  std::unique_ptr<float[]> dense(new float[int64_t(args.height) * args.width]);
  MaskLines lines(args, columns);
  for (int64_t y = 0; y < args.height; ++y) {
    std::memcpy(dense.get() + y * args.width, lines.line(0, y), args.width * sizeof(float));
  }
  return dense;
}

}  // namespace fused_mixup
