// What draw_variants draws for a unit, and the tables of its mask, for every native backend.
//
// docs/drawing.md holds the specification, fused_mixup/reference/draw_variants.py the same in plain
// PyTorch. Nothing here depends on PyTorch; it runs on the host and in CUDA kernels alike.
#pragma once

#include "draw.h"
#include "fmix.h"
#include "masks.h"

namespace fused_mixup {

// The same numbers stand in fused_mixup/codes.py.
enum Variant : int {
  kMixup,
  kCutmix,
  kHmix,
  kGridmix,
  kSmoothmix,
  kGmix,
  kFmix,
  kSpecmix,
  kCutmixSeg,
  kResizemix,
  kVariants
};
constexpr int kVariantNumbers = 10;  // of a variant: probability, α, and eight of its own
constexpr int kMaxVariants = 16;
constexpr int64_t kMaxMaskSize = 1 << 16;

enum VariantDraw : uint32_t { kDrawShape = 6, kDrawBands = 7, kDrawSquare = 8 };

struct VariantArgs {
  int kind[kMaxVariants];
  int count;
  Real prob;
  Real number[kMaxVariants][kVariantNumbers];
  int64_t size[2];  // height, width
  int rank;
  bool correct_lam, symmetric;

  FUSED_MIXUP_HOST_DEVICE int64_t pixels() const { return size[0] * size[1]; }
};

// How a table of a mask goes along one axis.
struct TableAxis {
  int32_t start[kMaskRank], stop[kMaskRank];  // intervals, as many as the variant has
  int32_t period, hole;                       // of a grid, in the first interval
  double centre, spread;                      // of a bell
};

struct VariantRow {
  int variant;  // -1: not mixed
  double weight[2], blend[2];
  int32_t box[4], resize_box[4];
  int32_t code;
  int products;  // of the mask
  TableAxis axis[2];
  Real decay;          // of FMix
  int64_t kept;        // pixels above the threshold of FMix
  double bell_factor;  // π for a bell by its area, 1 for one by σ
};

// The least number of products that a variant needs; VARIANT_RANKS in codes.py.
inline int least_rank(int kind) {
  if (kind == kFmix) return kFmixRank;
  return kind >= kGridmix && kind <= kCutmixSeg ? 1 : 0;
}

// x without its fraction, in [0, most]; 0 for NaN.
FUSED_MIXUP_HOST_DEVICE inline int64_t whole(Real x, int64_t most) {
  if (!(x > 0.0)) return 0;
  const int64_t value = x < 0x1p40 ? int64_t(x.value) : int64_t(1) << 40;
  return value < most ? value : most;
}

// e^-x, 0 for what is no number.
FUSED_MIXUP_HOST_DEVICE inline Real decayed(Real x) {
  return x <= 708.0 && !(x < 0.0) ? exp_negative(x) : Real(0.0);
}

// A whole number of 2^-32, so that sums are the same in any order.
FUSED_MIXUP_HOST_DEVICE inline int64_t quanta(float x) {
  const Real scaled = Real(double(x)) * 0x1p32;
#ifdef __CUDA_ARCH__
  return __double2ll_rn(scaled.value);
#else
  return int64_t(std::llrint(scaled.value));
#endif
}

FUSED_MIXUP_HOST_DEVICE inline bool is_bell(int variant) {
  return variant == kSmoothmix || variant == kGmix;
}

// The k-th table of a mask along an axis, at one place (but for FMix).
FUSED_MIXUP_HOST_DEVICE inline float table_value(const VariantRow& row, int a, int k, int32_t at) {
  const TableAxis& axis = row.axis[a];
  const bool inside = at >= axis.start[k] && at < axis.stop[k];
  switch (row.variant) {
    case kGridmix:
      return inside && (at - axis.start[0]) % axis.period < axis.hole ? 1.0f : 0.0f;
    case kSpecmix:
      return inside || (at >= axis.start[1] && at < axis.stop[1]) ? 0.0f : 1.0f;
    case kCutmixSeg:
      return inside ? 1.0f : 0.0f;
    default: {
      const Real distance = Real(double(at)) - axis.centre;
      return float(decayed(distance * distance * row.bell_factor / axis.spread).value);
    }
  }
}

// The weights of a bell, from the sums of the quanta of its tables.
FUSED_MIXUP_HOST_DEVICE inline void weigh_bell(VariantRow& row, int64_t rows, int64_t columns,
                                               int64_t pixels) {
  const Real mean =
      Real(double(rows)) * 0x1p-32 * (Real(double(columns)) * 0x1p-32) / double(pixels);
  const Real rest = Real(1.0) - mean;
  const bool inverted = row.code & kInvert;
  row.weight[0] = (inverted ? rest : mean).value;
  row.weight[1] = (inverted ? mean : rest).value;
}

}  // namespace fused_mixup
