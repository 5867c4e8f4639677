// Draws one row of a plan, for every native backend of draw_plan.
//
// docs/drawing.md holds the specification, fused_mixup/reference/draw.py the same in plain PyTorch.
// Nothing here depends on PyTorch; it runs on the host and in CUDA kernels alike.
#pragma once

#include <cstdint>

#include "layout.h"
#include "random.h"

namespace fused_mixup {

// The same numbers stand in fused_mixup/codes.py.
enum DrawnPairing : int { kShuffle = 4, kDerangement = 5, kCrossClass = 6 };
enum Per : int { kPerBatch = 0, kPerPair = 1, kPerSample = 2 };
enum StateWord : int { kVersionWord, kSeedWord, kStreamWord, kStepWord, kStateWords };
enum Setting : int {
  kMixupAlpha,
  kCutmixAlpha,
  kSwitchProb,
  kProb,
  kMinmaxLow,
  kMinmaxHigh,
  kSettings
};
constexpr int64_t kStateVersion = 0x464D0001;
constexpr int64_t kMaxDrawn = 1 << 16;  // samples: an index fills the low 16 bits of a sort key

// The purpose of each draw of a sample, in the low half of the counter's second word.
enum Draw : uint32_t {
  kDrawMode,
  kDrawPlace,
  kDrawSide,
  kDrawBoost,
  kDrawOrder,
  kDrawShift,
  kDrawGamma = 16  // 16 + 2·attempt + 0 or 1 for the first or the second gamma deviate
};

// An attempt fails with a probability below 0.049, all of them with one below 1e-31.
constexpr uint32_t kMaxAttempts = 24;

// The random words of one step of a state, by sample and draw.
struct Stream {
  uint32_t key[2], stream, step_low, step_high;

  FUSED_MIXUP_HOST_DEVICE explicit Stream(const int64_t* state) {
    key[0] = uint32_t(state[kSeedWord]);
    key[1] = uint32_t(uint64_t(state[kSeedWord]) >> 32);
    stream = uint32_t(state[kStreamWord]);
    step_low = uint32_t(state[kStepWord]);
    step_high = uint32_t(uint64_t(state[kStepWord]) >> 32) << 16;
  }
  FUSED_MIXUP_HOST_DEVICE Words words(uint32_t sample, uint32_t draw) const {
    return philox({{sample, step_high | draw, step_low, stream}}, key[0], key[1]);
  }
};

// ---------------------------------------------------------------- partners

// The key by which a sample is sorted in a shuffle or derangement. All keys are distinct, so that
// any sort gives the same order.
FUSED_MIXUP_HOST_DEVICE inline int64_t order_key(const Stream& stream, uint32_t i) {
  const Words r = stream.words(i, kDrawOrder);
  return (int64_t(r.w[0]) | int64_t(r.w[1] & 0x7FFF) << 32) << 16 | i;
}

// order_key() for the pairing across classes, which puts each class in one run. leader: the first
// sample of the class of i.
FUSED_MIXUP_HOST_DEVICE inline int64_t class_key(const Stream& stream, uint32_t i,
                                                 uint32_t leader) {
  const int64_t class_word = stream.words(leader, kDrawOrder).w[2] >> 17;
  const int64_t sample_word = stream.words(i, kDrawOrder).w[0] >> 16;
  return class_word << 48 | int64_t(leader) << 32 | sample_word << 16 | i;
}

// By how many places partners are shifted across classes. largest: the size of the largest class.
FUSED_MIXUP_HOST_DEVICE inline int64_t class_shift(const Stream& stream, int64_t largest,
                                                   int64_t batch) {
  if (2 * largest > batch) return largest < batch ? largest : 1;
  return largest + below(stream.words(0, kDrawShift).w[0], batch - 2 * largest + 1);
}

// The place in the sorted order whose sample is the partner of the sample at place p. (A shuffle
// that is not by pairs does not use it: there the sample at place p is the partner of sample p.)
FUSED_MIXUP_HOST_DEVICE inline int64_t matched_place(int64_t p, int64_t batch, int per,
                                                     int64_t shift) {
  if (per == kPerPair) {
    const int64_t half = batch / 2;
    return p < half ? p + half : p < 2 * half ? p - half : p;
  }
  const int64_t place = p + shift;
  return place < batch ? place : place - batch;
}

// ---------------------------------------------------------------- λ

// log w, where d·w³ is a gamma deviate of `shape` and d = shape - 1/3 (Marsaglia, Tsang, 2000).
FUSED_MIXUP_HOST_DEVICE inline Real log_root(const Stream& stream, uint32_t unit, uint32_t deviate,
                                             Real shape) {
  const Real d = shape - 1.0 / 3.0;
  const Real c = Real(1.0) / square_root(d * 9.0);
  for (uint32_t attempt = 0; attempt < kMaxAttempts; ++attempt) {
    const Words r = stream.words(unit, kDrawGamma + 2 * attempt + deviate);
    const Real x = normal(uniform(r.w[0], r.w[1]));
    const Real w = c * x + 1.0;
    if (!(w > 0.0)) continue;
    const Real log_w = log_of(w);
    const Real bound = x * x * 0.5 + d * (Real(1.0) - w * w * w + log_w * 3.0);
    if (log_of(uniform(r.w[2], r.w[3])) < bound) return log_w;
  }
  return 0.0;  // the mode
}

// λ and 1-λ, each with full relative precision.
struct Shares {
  Real own, other;
};

// λ from Beta(α, α).
FUSED_MIXUP_HOST_DEVICE inline Shares draw_beta(const Stream& stream, uint32_t unit, Real alpha) {
  const bool small = alpha < 1.0;
  const Real shape = small ? alpha + 1.0 : alpha;
  Real t = (log_root(stream, unit, 1, shape) - log_root(stream, unit, 0, shape)) * 3.0;
  if (small) {
    const Words r = stream.words(unit, kDrawBoost);
    t = t + (log_of(uniform(r.w[2], r.w[3])) - log_of(uniform(r.w[0], r.w[1]))) / alpha;
  }
  const bool own = t <= 0.0;
  const Real e = exp_negative(own ? -t : t);  // the smaller gamma deviate over the larger one
  const Real major = Real(1.0) / (e + 1.0), minor = e / (e + 1.0);
  return own ? Shares{major, minor} : Shares{minor, major};
}

// ---------------------------------------------------------------- a row

struct DrawArgs {
  Real setting[kSettings];
  int64_t size[kMaxSpatial];
  int spatial;
  bool correct_lam, symmetric;
};

struct DrawnRow {
  float weight[2];
  double blend[2];
  int32_t start[kMaxSpatial], stop[kMaxSpatial];
};

// trunc(share·n), within [0, n] also for settings that no check has seen.
FUSED_MIXUP_HOST_DEVICE inline int64_t side_of(Real share, int64_t n) {
  const Real side = share * double(n);
  if (!(side > 0.0)) return 0;
  return side < double(n) ? int64_t(side.value) : n;
}

// Draws a box that covers `share` of the sample, or has sides between bounds. Returns its area.
FUSED_MIXUP_HOST_DEVICE inline Real draw_box(const Stream& stream, uint32_t unit,
                                             const DrawArgs& args, Real share, DrawnRow& row) {
  const bool bounded = args.setting[kMinmaxHigh] > 0.0;
  const Words place = stream.words(unit, kDrawPlace);
  Words side = {};
  Real scale = share;
  if (bounded) {
    side = stream.words(unit, kDrawSide);
  } else if (args.spatial == 2) {
    scale = square_root(share);
  } else if (args.spatial == 3) {
    scale = share > 0.0 ? exp_negative(-log_of(share) / 3.0) : Real(0.0);
  }
  Real area = 1.0;
  for (int k = 0; k < kMaxSpatial; ++k) {  // a constant count, so that the row stays in registers
    if (k >= args.spatial) break;
    const int64_t n = args.size[k];
    int64_t start, stop;
    if (bounded) {
      const int64_t low = side_of(args.setting[kMinmaxLow], n);
      const int64_t free = side_of(args.setting[kMinmaxHigh], n) - low;
      const int64_t length = low + below(side.w[k], free < 1 ? 1 : free);
      start = below(place.w[k], n - length + 1);
      stop = start + length;
    } else {
      const int64_t length = side_of(scale, n), centre = below(place.w[k], n);
      start = centre - length / 2;
      stop = centre + (length + 1) / 2;
      if (start < 0) start = 0;
      if (stop > n) stop = n;
    }
    row.start[k] = int32_t(start);
    row.stop[k] = int32_t(stop);
    area = area * double(stop - start);
  }
  return area;
}

// Rounds to float32. A subnormal weight becomes 0, as some devices would flush it and others not.
FUSED_MIXUP_HOST_DEVICE inline float label_weight(Real w) {
  return w < 0x1p-126 ? 0.0f : float(w.value);
}

// Draws the row of a sample that draws as `unit`. mixes: whether its partner is another sample.
FUSED_MIXUP_HOST_DEVICE inline DrawnRow draw_row(const Stream& stream, const DrawArgs& args,
                                                 uint32_t unit, bool mixes) {
  DrawnRow row = {{1.0f, 0.0f}, {1.0, 0.0}, {}, {}};
  const Words mode = stream.words(unit, kDrawMode);
  const bool can_mix = args.setting[kMixupAlpha] > 0.0;
  const bool can_cut = args.setting[kCutmixAlpha] > 0.0 && args.spatial > 0;
  if (!mixes || !(can_mix || can_cut) || !happens(mode.w[0], args.setting[kProb])) return row;
  const bool cut = can_cut && (!can_mix || happens(mode.w[1], args.setting[kSwitchProb]));

  Shares lam = draw_beta(stream, unit, args.setting[cut ? kCutmixAlpha : kMixupAlpha]);
  if (args.symmetric && lam.own < lam.other) lam = {lam.other, lam.own};
  if (cut) {
    const Real area = draw_box(stream, unit, args, lam.other, row);
    if (args.correct_lam || args.setting[kMinmaxHigh] > 0.0) {
      Real total = 1.0;
      for (int k = 0; k < kMaxSpatial; ++k) {
        if (k < args.spatial) total = total * double(args.size[k]);
      }
      if (total < 1.0) total = 1.0;
      lam = {(total - area) / total, area / total};
    }
  } else {
    row.blend[0] = lam.own.value;
    row.blend[1] = lam.other.value;
  }
  row.weight[0] = label_weight(lam.own);
  row.weight[1] = label_weight(lam.other);
  return row;
}

}  // namespace fused_mixup
