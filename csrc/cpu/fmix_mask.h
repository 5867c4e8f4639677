// The masks of FMix on the CPU: their rows, and the value above which the wanted pixels lie.
//
// A mask of 224² takes about a tenth of a millisecond, most of it to find that value among its
// pixels: bounds from a thousand of them leave a tenth to be searched.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

#include "../common/variants.h"

namespace fused_mixup {

// Memory that the masks of a thread use one after another.
struct FmixScratch {
  std::vector<FmixCoefficient> z;
  std::vector<float> values, between;  // [H · W], and one more
};

// What the masks of a call share.
class FmixTables {
 public:
  FmixTables(int64_t height, int64_t width)
      : height_(height),
        width_(width),
        count_(fmix_frequencies(height, width)),
        waves_(height),
        columns_(kFmixRank * width, 1.0f) {
    for (int64_t y = 0; y < height; ++y) waves_[y] = turn(y, height);
    for (int64_t x = 0; x < width; ++x) {
      const Turn wave = turn(x, width);
      columns_[width + x] = float(wave.cosine);
      columns_[2 * width + x] = float(wave.sine);
    }
  }

  // Fills rows [3, height] and columns [3, width]; returns the threshold.
  float fill(const Stream& stream, uint32_t unit, Real decay, int64_t kept, float* rows,
             float* columns, FmixScratch& scratch) const {
    std::vector<FmixCoefficient>& z = scratch.z;
    z.resize(count_);
    for (int64_t k = 0; k < count_; ++k) {
      z[k] = fmix_coefficient(stream, unit, k, height_, width_, decay);
    }
    for (int64_t y = 0; y <= height_ / 2; ++y) {
      FmixSums sums;
      int64_t j = 0;  // k·y mod height
      for (int64_t k = 0; k < count_; ++k) {
        sums.add(z[k], waves_[j]);
        j += y;
        if (j >= height_) j -= height_;
      }
      sums.put(y, height_, rows);
    }
    std::copy(columns_.begin(), columns_.end(), columns);
    return threshold(rows, kept, scratch);
  }

 private:
  int64_t height_, width_, count_;
  std::vector<Turn> waves_;
  std::vector<float> columns_;  // [3, width]

  // The largest value that is left out where the `kept` largest pixels stay.
  float threshold(const float* rows, int64_t kept, FmixScratch& scratch) const {
    const int64_t pixels = height_ * width_;
    if (kept >= pixels) return -std::numeric_limits<float>::infinity();
    std::vector<float>& values = scratch.values;
    values.resize(pixels);
    const float *cosine = &columns_[width_], *sine = &columns_[2 * width_];
    for (int64_t y = 0; y < height_; ++y) {
      const float a = rows[y], b = rows[height_ + y], c = rows[2 * height_ + y];
      float* row = &values[y * width_];
      for (int64_t x = 0; x < width_; ++x) row[x] = a + b * cosine[x] + c * sine[x];
    }
    return nth_largest(values, kept, scratch.between);
  }

  static float nth_largest(std::vector<float>& values, int64_t n, std::vector<float>& between) {
    constexpr int64_t kSamples = 1024, kMargin = 64;  // four deviations of a rank among the samples
    const int64_t size = int64_t(values.size());
    if (size >= 16 * kSamples) {
      std::vector<float> samples(kSamples);
      const int64_t step = (size / kSamples - 1) | 1;  // odd: it visits all columns
      for (int64_t k = 0; k < kSamples; ++k) samples[k] = values[k * step];
      std::sort(samples.begin(), samples.end(), std::greater<float>());
      const int64_t at = n * kSamples / size;
      const float infinity = std::numeric_limits<float>::infinity();
      const float high = at >= kMargin ? samples[at - kMargin] : infinity;
      const float low = at + kMargin < kSamples ? samples[at + kMargin] : -infinity;
      between.resize(size + 1);
      int64_t above = 0, found = 0;
      for (const float v : values) {
        above += v > high;
        between[found] = v;
        found += v >= low && v <= high;
      }
      if (n >= above && n < above + found) {
        const auto nth = between.begin() + (n - above);
        std::nth_element(between.begin(), nth, between.begin() + found, std::greater<float>());
        return *nth;
      }
    }
    std::nth_element(values.begin(), values.begin() + n, values.end(), std::greater<float>());
    return values[n];
  }
};

}  // namespace fused_mixup
