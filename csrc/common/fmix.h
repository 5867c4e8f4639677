// Masks of FMix: a low-frequency image as three products, and how many of its pixels are kept.
//
// docs/drawing.md holds the specification, fused_mixup/reference/fmix.py the same in plain PyTorch.
#pragma once

#include "draw.h"

namespace fused_mixup {

constexpr uint32_t kDrawFrequency = 8192;  // 8192 + frequency
constexpr int kFmixRank = 3;

// How many coefficients the sums have.
FUSED_MIXUP_HOST_DEVICE inline int64_t fmix_frequencies(int64_t height, int64_t width) {
  const int64_t columns = width / 2 + 1 + width % 2;
  return columns < height ? columns : height;
}

// Z_0 and Z_1 of one frequency.
struct FmixCoefficient {
  double real_0, imaginary_0, real_1, imaginary_1;
};

FUSED_MIXUP_HOST_DEVICE inline Real fmix_decay(Real frequency, Real decay) {
  return exp_negative(log_of(frequency < 1.0 ? Real(1.0) : frequency) *
                      (decay > 0.0 ? decay : Real(0.0)));
}

FUSED_MIXUP_HOST_DEVICE inline FmixCoefficient fmix_coefficient(const Stream& stream, uint32_t unit,
                                                                int64_t k, int64_t height,
                                                                int64_t width, Real decay) {
  const Words r = stream.words(unit, kDrawFrequency + uint32_t(k));
  const Real side = double(height > width ? height : width);
  const Real column = Real(double(k < width - k ? k : width - k)) * side / double(width);
  const Real row = side / double(height);
  const Real real = fmix_decay(column, decay);
  const Real imaginary = fmix_decay(square_root(column * column + row * row), decay);
  return {(normal(short_uniform(r.w[0])) * real).value,
          (normal(short_uniform(r.w[2])) * imaginary).value,
          (normal(short_uniform(r.w[1])) * real).value,
          (normal(short_uniform(r.w[3])) * imaginary).value};
}

// Re S_0, 2 Re S_1 and -2 Im S_1 of a row.
struct FmixRow {
  float value[kFmixRank];
};

// The six sums of the rows y and height - y, for y <= height / 2, which have the same cosines and
// opposite sines. They run over the frequencies k from 0 on; wave: the turn of k·y.
struct FmixSums {
  Real a = 0.0, b = 0.0, c = 0.0, d = 0.0, e = 0.0, f = 0.0;

  FUSED_MIXUP_HOST_DEVICE void add(const FmixCoefficient& z, const Turn& wave) {
    a = a + Real(z.real_0) * wave.cosine;
    b = b + Real(z.imaginary_0) * wave.sine;
    c = c + Real(z.real_1) * wave.cosine;
    d = d + Real(z.imaginary_1) * wave.sine;
    e = e + Real(z.real_1) * wave.sine;
    f = f + Real(z.imaginary_1) * wave.cosine;
  }
  FUSED_MIXUP_HOST_DEVICE FmixRow near() const {  // row y
    return {{float((a - b).value), float(((c - d) * 2.0).value), float(((e + f) * -2.0).value)}};
  }
  FUSED_MIXUP_HOST_DEVICE FmixRow far() const {  // row height - y
    return {{float((a + b).value), float(((c + d) * 2.0).value), float(((f - e) * -2.0).value)}};
  }
  // Writes both rows to a table [3, height].
  FUSED_MIXUP_HOST_DEVICE void put(int64_t y, int64_t height, float* rows) const {
    const FmixRow own = near(), other = far();
    for (int k = 0; k < kFmixRank; ++k) {
      rows[k * height + y] = own.value[k];
      if (y > 0 && 2 * y != height) rows[k * height + height - y] = other.value[k];
    }
  }
};

// How many of `pixels` show the sample itself, of the share λ: a whole number below or above.
FUSED_MIXUP_HOST_DEVICE inline int64_t fmix_count(Real own, int64_t pixels, uint32_t word) {
  const Real wanted = own * double(pixels);
  const int64_t count = int64_t(wanted.value);
  return count + (word < 0x80000000u && Real(double(count)) < wanted ? 1 : 0);
}

}  // namespace fused_mixup
