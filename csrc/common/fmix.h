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

// The rows y and height - y, for y <= height / 2, which have the same cosines and opposite sines.
// z [count]; waves [height]: the turn of each row.
FUSED_MIXUP_HOST_DEVICE inline void fmix_rows(const FmixCoefficient* z, int64_t count,
                                              const Turn* waves, int64_t height, int64_t y,
                                              FmixRow& near, FmixRow& far) {
  Real a = 0.0, b = 0.0, c = 0.0, d = 0.0, e = 0.0, f = 0.0;
  int64_t j = 0;
  for (int64_t k = 0; k < count; ++k) {
    const Real cosine = waves[j].cosine, sine = waves[j].sine;
    a = a + Real(z[k].real_0) * cosine;
    b = b + Real(z[k].imaginary_0) * sine;
    c = c + Real(z[k].real_1) * cosine;
    d = d + Real(z[k].imaginary_1) * sine;
    e = e + Real(z[k].real_1) * sine;
    f = f + Real(z[k].imaginary_1) * cosine;
    j += y;
    if (j >= height) j -= height;
  }
  near = {{float((a - b).value), float(((c - d) * 2.0).value), float(((e + f) * -2.0).value)}};
  far = {{float((a + b).value), float(((c + d) * 2.0).value), float(((f - e) * -2.0).value)}};
}

// How many of `pixels` show the sample itself, of the share λ: a whole number below or above.
FUSED_MIXUP_HOST_DEVICE inline int64_t fmix_count(Real own, int64_t pixels, uint32_t word) {
  const Real wanted = own * double(pixels);
  const int64_t count = int64_t(wanted.value);
  return count + (word < 0x80000000u && Real(double(count)) < wanted ? 1 : 0);
}

}  // namespace fused_mixup
