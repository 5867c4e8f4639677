// Draws the boxes of an image that are erased, and their colours, for every native backend of
// draw_erasing.
//
// docs/drawing.md holds the specification, fused_mixup/reference/draw_erasing.py the same in plain
// PyTorch. Nothing here depends on PyTorch; it runs on the host and in CUDA kernels alike.
#pragma once

#include "draw.h"

namespace fused_mixup {

// The same numbers stand in fused_mixup/codes.py.
enum EraseMode : int { kConstMode, kRandMode, kPixelMode };
enum ErasingSetting : int {
  kEraseProb,
  kAreaLow,
  kAreaHigh,
  kAspectLow,
  kAspectHigh,
  kErasingSettings
};
constexpr int64_t kMaxErased = 64;  // boxes of a sample
constexpr uint32_t kEraseAttempts = 10;

// These draws share counters with those of draw_plan (enum Draw), and so have other numbers.
enum ErasingDraw : uint32_t {
  kDrawErase = 64,
  kDrawNoise = 65,
  kDrawErasedBox = 128,  // 128 + 16·box + attempt
  kDrawColor = 4096      // 4096 + 32·box + channel div 2
};

struct ErasingArgs {
  Real setting[kErasingSettings];
  int64_t height, width;
  int64_t clean;  // samples below it have no box
  int32_t max_count, channels, mode;
};

// What all boxes of a draw share.
struct ErasingLaw {
  Real prob, area, area_range, log_aspect, log_aspect_range, height, width, pixels;

  ErasingLaw() = default;
  FUSED_MIXUP_HOST_DEVICE explicit ErasingLaw(const ErasingArgs& args) {
    prob = args.setting[kEraseProb];
    area = args.setting[kAreaLow];
    area_range = args.setting[kAreaHigh] - area;
    log_aspect = log_of(args.setting[kAspectLow]);
    log_aspect_range = log_of(args.setting[kAspectHigh]) - log_aspect;
    height = double(args.height);
    width = double(args.width);
    pixels = height * width;
  }
};

// Empty boxes are zeros.
struct ErasedBox {
  int32_t y0, x0, y1, x1;

  FUSED_MIXUP_HOST_DEVICE bool empty() const { return y1 == 0; }
};

// The first attempt at a box that is smaller than the image, one of `count` of its sample.
FUSED_MIXUP_HOST_DEVICE inline ErasedBox try_boxes(const Stream& stream, const ErasingArgs& args,
                                                   const ErasingLaw& law, uint32_t sample,
                                                   uint32_t box, int64_t count) {
  for (uint32_t attempt = 0; attempt < kEraseAttempts; ++attempt) {
    const Words r = stream.words(sample, kDrawErasedBox + 16 * box + attempt);
    const Real share = law.area + law.area_range * short_uniform(r.w[0]);
    const Real area = share * law.pixels / double(count);
    const Real aspect = exp_of(law.log_aspect + law.log_aspect_range * short_uniform(r.w[1]));
    // Half is added before they are compared: a side is below a size if its rounded value is.
    const Real side_y = square_root(area * aspect) + 0.5;
    const Real side_x = square_root(area / aspect) + 0.5;
    if (!(side_y < law.height && side_x < law.width)) continue;  // NaN neither
    const int64_t h = int64_t(side_y.value), w = int64_t(side_x.value);
    if (h == 0 || w == 0) break;  // it covers no pixel
    const int64_t top = below(r.w[2], args.height - h + 1);
    const int64_t left = below(r.w[3], args.width - w + 1);
    return {int32_t(top), int32_t(left), int32_t(top + h), int32_t(left + w)};
  }
  return {0, 0, 0, 0};
}

FUSED_MIXUP_HOST_DEVICE inline ErasedBox draw_erased_box(const Stream& stream,
                                                         const ErasingArgs& args,
                                                         const ErasingLaw& law, uint32_t sample,
                                                         uint32_t box) {
  const Words r = stream.words(sample, kDrawErase);
  const int64_t count = 1 + below(r.w[1], args.max_count);
  if (int64_t(sample) < args.clean || int64_t(box) >= count || !happens(r.w[0], law.prob)) {
    return {0, 0, 0, 0};
  }
  return try_boxes(stream, args, law, sample, box, count);
}

// The colour of a box, normal: value [channels].
FUSED_MIXUP_HOST_DEVICE inline void draw_color(const Stream& stream, uint32_t sample, uint32_t box,
                                               int32_t channels, float* value) {
  for (int32_t c = 0; c < channels; c += 2) {
    const Words r = stream.words(sample, kDrawColor + 32 * box + uint32_t(c) / 2);
    value[c] = float(normal(uniform(r.w[0], r.w[1])).value);
    if (c + 1 < channels) value[c + 1] = float(normal(uniform(r.w[2], r.w[3])).value);
  }
}

// The key of a sample's noise.
FUSED_MIXUP_HOST_DEVICE inline int64_t draw_noise_key(const Stream& stream, uint32_t sample) {
  const Words r = stream.words(sample, kDrawNoise);
  return int64_t(uint64_t(r.w[0]) | uint64_t(r.w[1]) << 32);
}

}  // namespace fused_mixup
