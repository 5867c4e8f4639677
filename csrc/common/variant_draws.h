// Draws one unit of draw_variants, for every native backend: its variant, λ, boxes, and the numbers
// from which the tables of its mask are made (variants.h).
#pragma once

#include "variants.h"

namespace fused_mixup {

class VariantDraws {
 public:
  FUSED_MIXUP_HOST_DEVICE VariantDraws(const Stream& stream, const VariantArgs& args, uint32_t unit)
      : stream_(stream), args_(args), unit_(unit) {}

  // Fills a row of zeros, where it lies: in a kernel a local one would need memory of its own.
  FUSED_MIXUP_HOST_DEVICE void draw(VariantRow& row) {
    row.variant = -1;
    row.weight[0] = row.blend[0] = 1.0;
    const Words mode = stream_.words(unit_, kDrawMode);
    int chosen = 0;
    while (chosen < args_.count && !happens(mode.w[1], args_.number[chosen][0])) ++chosen;
    if (chosen == args_.count || !happens(mode.w[0], args_.prob)) return;
    row.variant = args_.kind[chosen];
    alpha_ = args_.number[chosen][1];
    number_ = args_.number[chosen] + 2;
    place_ = stream_.words(unit_, kDrawPlace);
    shape_ = stream_.words(unit_, kDrawShape);
    const bool bands = row.variant == kSpecmix || row.variant == kCutmixSeg;
    if (!bands && row.variant != kSmoothmix && (row.variant != kResizemix || alpha_ > 0.0)) {
      lam_ = draw_beta(stream_, unit_, alpha_ > 0.0 ? alpha_ : Real(1.0));
      if (args_.symmetric && lam_.own < lam_.other) lam_ = {lam_.other, lam_.own};
    }
    weigh(row, lam_.own, lam_.other);
    switch (row.variant) {
      case kMixup:
        row.blend[0] = lam_.own.value;
        row.blend[1] = lam_.other.value;
        break;
      case kCutmix:
        cut(row);
        break;
      case kHmix:
        cut_and_blend(row);
        break;
      case kGridmix:
        grid(row);
        break;
      case kSmoothmix:
      case kGmix:
        bell(row);
        break;
      case kFmix:
        row.code = kSeparable | kThreshold;
        row.products = kFmixRank;
        row.decay = number_[0];
        row.kept = fmix_count(lam_.own, args_.pixels(), shape_.w[0]);
        break;
      case kSpecmix:
        band(row);
        break;
      case kCutmixSeg:
        squares(row);
        break;
      default:
        resize(row);
    }
  }

 private:
  const Stream& stream_;
  const VariantArgs& args_;
  uint32_t unit_;
  Words place_, shape_;
  Real alpha_;
  const Real* number_;
  Shares lam_ = {1.0, 0.0};

  // A number between the i-th and the next setting of the variant.
  FUSED_MIXUP_HOST_DEVICE Real between(int i, uint32_t word) const {
    return number_[i] + (number_[i + 1] - number_[i]) * short_uniform(word);
  }

  FUSED_MIXUP_HOST_DEVICE static void weigh(VariantRow& row, Real own, Real other) {
    row.weight[0] = own.value;
    row.weight[1] = other.value;
  }

  // Weights by the area that shows the partner.
  FUSED_MIXUP_HOST_DEVICE void count(VariantRow& row, int64_t partners) const {
    const Real total = double(args_.pixels()), area = double(partners);
    weigh(row, (total - area) / total, area / total);
  }

  // Draws a box whose sides are `scale` of the sizes, or within bounds; returns its area.
  FUSED_MIXUP_HOST_DEVICE int64_t place_box(VariantRow& row, Real scale, Real low,
                                            Real high) const {
    const bool bounded = high > 0.0;
    Words side = {};
    if (bounded) side = stream_.words(unit_, kDrawSide);
    int64_t area = 1;
    for (int k = 0; k < 2; ++k) {
      const int64_t n = args_.size[k];
      int64_t start, stop;
      if (bounded) {
        const int64_t least = side_of(low, n), free = side_of(high, n) - least;
        const int64_t length = least + below(side.w[k], free < 1 ? 1 : free);
        start = below(place_.w[k], n - length + 1);
        stop = start + length;
      } else {
        const int64_t length = side_of(scale, n), centre = below(place_.w[k], n);
        start = centre - length / 2;
        stop = centre + (length + 1) / 2;
        if (start < 0) start = 0;
        if (stop > n) stop = n;
      }
      row.box[k] = int32_t(start);
      row.box[2 + k] = int32_t(stop);
      area *= stop - start;
    }
    return area;
  }

  FUSED_MIXUP_HOST_DEVICE void cut(VariantRow& row) const {
    const int64_t area = place_box(row, square_root(lam_.other), number_[0], number_[1]);
    if (args_.correct_lam || number_[1] > 0.0) count(row, area);
  }

  // A box of a part of 1-λ; outside it a blend, so that the whole has the share λ.
  FUSED_MIXUP_HOST_DEVICE void cut_and_blend(VariantRow& row) const {
    const Real scale = square_root(lam_.other) * square_root(number_[0]);
    const Real area = double(place_box(row, scale, 0.0, 0.0)), total = double(args_.pixels());
    const Real outside = total - area;
    if (!(outside > 0.0)) return;
    const Real other = lam_.other * total - area;
    row.blend[0] = (lam_.own * total / outside).value;
    row.blend[1] = ((other < 0.0 ? Real(0.0) : other) / outside).value;
  }

  // The place of the whole partner, resized by τ.
  FUSED_MIXUP_HOST_DEVICE void resize(VariantRow& row) const {
    Real tau = between(0, shape_.w[0]);
    if (alpha_ > 0.0 && number_[0] <= lam_.own && lam_.own <= number_[1]) tau = lam_.own;
    int64_t area = 1;
    for (int k = 0; k < 2; ++k) {
      const int64_t n = args_.size[k], side = whole(tau * double(n), n);
      int64_t start = below(place_.w[k], n) - side / 2;
      if (start < 0) start = 0;
      if (start > n - side) start = n - side;
      row.resize_box[k] = int32_t(start);
      row.resize_box[2 + k] = int32_t(start + side);
      area *= side;
    }
    count(row, area);
  }

  // Holes in a grid, in a part of the image.
  FUSED_MIXUP_HOST_DEVICE void grid(VariantRow& row) const {
    const int64_t height = args_.size[0], width = args_.size[1];
    const Real covered = between(4, shape_.w[2]) * double(args_.pixels());
    const Real area = double(whole(covered, int64_t(1) << 40));
    const Real aspect = between(6, shape_.w[3]);
    const int64_t crop_w = whole(square_root(area / aspect), width);
    const int64_t crop[2] = {whole(Real(double(crop_w)) * aspect, height), crop_w};
    const int64_t low = whole(number_[0], width), high = whole(number_[1], width);
    int64_t holes = low + below(shape_.w[0], (high > low ? high - low : 0) + 1);
    if (holes > crop_w / 2) holes = crop_w / 2;
    if (holes < 1) holes = 1;
    int64_t period[2];
    period[1] = (crop_w + holes - 1) / holes;
    if (period[1] < 1) period[1] = 1;
    period[0] = whole(Real(double(period[1])) * between(2, shape_.w[1]), height);
    if (period[0] < 1) period[0] = 1;
    const Real scale = square_root(lam_.other);
    int64_t partners = 1;
    for (int k = 0; k < 2; ++k) {
      const int64_t n = args_.size[k];
      const int64_t start = below(place_.w[k], n - crop[k]);
      int64_t hole = whole(Real(double(period[k])) * scale, n);
      if (hole < 1) hole = 1;
      if (hole > period[k] - 1) hole = period[k] - 1;
      TableAxis& axis = row.axis[k];
      axis.start[0] = int32_t(start);
      axis.stop[0] = int32_t(start + crop[k]);
      axis.period = int32_t(period[k]);
      axis.hole = int32_t(hole);
      const int64_t rest = crop[k] % period[k];
      partners *= crop[k] / period[k] * hole + (rest < hole ? rest : hole);
    }
    row.code = kSeparable | kInvert;
    row.products = 1;
    count(row, partners);
  }

  // Bands of frequencies (rows) and times (columns) that show the partner.
  FUSED_MIXUP_HOST_DEVICE void band(VariantRow& row) const {
    const Words place = stream_.words(unit_, kDrawBands);
    int64_t own = 1;
    for (int k = 0; k < 2; ++k) {
      const int64_t n = args_.size[k], length = whole(number_[0] * double(n), n);
      const int64_t bands = below(shape_.w[k], whole(number_[1 + k], 2) + 1);
      TableAxis& axis = row.axis[k];
      for (int b = 0; b < 2; ++b) {  // a constant count, so that words stay in registers
        if (b >= bands) break;
        axis.start[b] = int32_t(below(place.w[2 * k + b], n - length + 1));
        axis.stop[b] = axis.start[b] + int32_t(length);
      }
      const int64_t apart = axis.start[0] < axis.start[1] ? axis.start[1] - axis.start[0]
                                                          : axis.start[0] - axis.start[1];
      const int64_t shared = bands == 2 && apart < length ? length - apart : 0;
      own *= n - (bands * length - shared);
    }
    row.code = kSeparable;
    row.products = 1;
    count(row, args_.pixels() - own);
  }

  // Boxes of a given area and any form; where an odd number of them lies, the partner shows.
  FUSED_MIXUP_HOST_DEVICE void squares(VariantRow& row) const {
    int64_t boxes = whole(number_[2], args_.rank);
    if (boxes < 1) boxes = 1;
    const Real part = square_root(Real(1.0) / double(boxes));
    for (int b = 0; b < args_.rank; ++b) {
      const Words r = stream_.words(unit_, kDrawSquare + uint32_t(b));
      const Real share = between(0, r.w[0]);
      const Real tall = decayed(-log_of(share) * short_uniform(r.w[1]));
      const Real side[2] = {tall * part, share / tall * part};
      for (int k = 0; k < 2; ++k) {
        const int64_t n = args_.size[k], length = whole(side[k] * double(n) + 0.5, n);
        const Real place = Real(double(n - length)) * short_uniform(r.w[2 + k]) + 0.5;
        row.axis[k].start[b] = int32_t(whole(place, n));
        row.axis[k].stop[b] = row.axis[k].start[b] + int32_t(b < boxes ? length : 0);
      }
    }
    row.code = kSeparable | kParity | kInvert;
    row.products = args_.rank;
    count(row, odd_area(row));
  }

  // How many pixels lie in an odd number of boxes: Σ over sets S of them (-2)^(|S|-1) |∩S|.
  FUSED_MIXUP_HOST_DEVICE int64_t odd_area(const VariantRow& row) const {
    int64_t total = 0;
    for (int chosen = 1; chosen < 1 << args_.rank; ++chosen) {
      int64_t area = 0;
      for (int k = 0; k < 2; ++k) {
        int32_t low = 0, high = INT32_MAX;
        int64_t sign = 1;
        bool first = true;
        for (int b = 0; b < args_.rank; ++b) {
          if (!(chosen >> b & 1)) continue;
          const TableAxis& axis = row.axis[k];
          if (axis.start[b] > low) low = axis.start[b];
          if (axis.stop[b] < high) high = axis.stop[b];
          if (!first) sign *= -2;
          first = false;
        }
        const int64_t length = high > low ? high - low : 0;
        area = k == 0 ? sign * length : area * length;
      }
      total += area;
    }
    return total;
  }

  // A bell around a place: the partner's for SmoothMix and for GMix with λ >= 1/2, else its own.
  FUSED_MIXUP_HOST_DEVICE void bell(VariantRow& row) const {
    const Real total = double(args_.pixels());
    const bool smooth = row.variant == kSmoothmix;
    const Real sigma = smooth ? between(0, shape_.w[0]) * square_root(total) : Real(0.0);
    Real spread = sigma * sigma * 2.0;
    if (!smooth) {
      spread = (lam_.own < lam_.other ? lam_.own : lam_.other) * total;
      if (spread < 1e-300) spread = 1e-300;
    }
    for (int k = 0; k < 2; ++k) {
      const int64_t n = args_.size[k], at = below(place_.w[k], n);
      const Real middle = Real(double(n)) * 0.5 - 0.5;
      const Real centre = smooth ? middle + double(at - n / 2) : Real(double(at));
      row.axis[k].centre = centre.value;
      row.axis[k].spread = spread.value;
    }
    row.bell_factor = smooth ? 1.0 : 3.14159265358979323846;
    row.code = kSeparable | (smooth || !(lam_.own < 0.5) ? kInvert : 0);
    row.products = 1;
  }
};

}  // namespace fused_mixup
