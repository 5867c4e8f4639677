// Which bounding boxes of a mixed batch are seen, and where: for every native backend of mix_boxes.
//
// fused_mixup/reference/boxes.py holds the same in plain PyTorch. Nothing here depends on PyTorch;
// it runs on the host and in CUDA kernels alike, and gives the same bits there: each product,
// difference and quotient is rounded by itself, in the dtype of the boxes.
#pragma once

#include <cstdint>

#include "layout.h"
#include "rounding.h"

namespace fused_mixup {

template <typename A>
FUSED_MIXUP_HOST_DEVICE inline A larger(A a, A b) {
  return a > b ? a : b;
}
template <typename A>
FUSED_MIXUP_HOST_DEVICE inline A smaller(A a, A b) {
  return a < b ? a : b;
}

// [x1, y1, x2, y2]
template <typename A>
struct Corners {
  A x1, y1, x2, y2;
};

// A box as the mixed image shows it.
template <typename A>
struct ShownBox {
  Corners<A> at;
  float weight;
  bool stays;
};

// How one sample is mixed, as its boxes see it.
template <typename A>
struct BoxMix {
  A own, other;    // blend
  Corners<A> cut;  // covered by the partner
  bool has_cut;
  bool with_itself;  // the partner is the sample: its boxes stay as they are, once
  A min_visible;

  // blend: [2]. box: y0, x0, y1, x1, or null.
  FUSED_MIXUP_HOST_DEVICE BoxMix(const double* blend, const int32_t* box, bool itself,
                                 double least_share)
      : own(A(blend[0])),
        other(A(blend[1])),
        cut{},
        has_cut(false),
        with_itself(itself),
        min_visible(A(least_share)) {
    if (box == nullptr) return;
    cut = {A(box[1]), A(box[0]), A(box[3]), A(box[2])};
    has_cut = box[2] > box[0] && box[3] > box[1];
  }

  // Whether the box lies inside the closed cut.
  FUSED_MIXUP_HOST_DEVICE bool covers(const Corners<A>& a) const {
    return has_cut && a.x1 >= cut.x1 && a.x2 <= cut.x2 && a.y1 >= cut.y1 && a.y2 <= cut.y2;
  }

  // The area of a box, or 0 for one that has none (or that is reversed, or not a number).
  FUSED_MIXUP_HOST_DEVICE static A area_of(const Corners<A>& a) {
    const A w = a.x2 - a.x1, h = a.y2 - a.y1;
    return w > A(0) && h > A(0) ? rounded_product(w, h) : A(0);
  }

  FUSED_MIXUP_HOST_DEVICE A area_in_cut(const Corners<A>& a) const {
    if (!has_cut) return A(0);
    return area_of(
        {larger(a.x1, cut.x1), larger(a.y1, cut.y1), smaller(a.x2, cut.x2), smaller(a.y2, cut.y2)});
  }

  FUSED_MIXUP_HOST_DEVICE bool is_seen(A share) const {
    return share >= min_visible && share > A(0);
  }

  // A box of the sample itself: seen outside the cut.
  FUSED_MIXUP_HOST_DEVICE ShownBox<A> own_box(Corners<A> a) const {
    if (with_itself) return {a, 1.0f, true};
    const A area = area_of(a);
    const bool has_area = area > A(0);
    const A outside = area - area_in_cut(a);
    const A share = has_area ? outside / area : A(!covers(a));
    const bool stays = own != A(0) && is_seen(share);
    if (stays && has_area && has_cut) {
      // Where the cut spans the box in one dim, what is left of the box is smaller in the other.
      const bool spans_x = cut.x1 <= a.x1 && cut.x2 >= a.x2;
      const bool spans_y = cut.y1 <= a.y1 && cut.y2 >= a.y2;
      if (spans_y && cut.x1 <= a.x1) {
        a.x1 = larger(a.x1, cut.x2);
      } else if (spans_y && cut.x2 >= a.x2) {
        a.x2 = smaller(a.x2, cut.x1);
      }
      if (spans_x && cut.y1 <= a.y1) {
        a.y1 = larger(a.y1, cut.y2);
      } else if (spans_x && cut.y2 >= a.y2) {
        a.y2 = smaller(a.y2, cut.y1);
      }
    }
    return {a, float(own), stays};
  }

  // A box of the partner: seen inside the cut, and outside where the partner is blended in.
  FUSED_MIXUP_HOST_DEVICE ShownBox<A> partner_box(Corners<A> a) const {
    if (with_itself) return {a, 0.0f, false};
    const A area = area_of(a);
    const A share = area > A(0) ? area_in_cut(a) / area : A(covers(a));
    if (other != A(0)) {
      return {a, float(share + rounded_product(A(1) - share, other)), true};
    }
    const Corners<A> inside = {larger(a.x1, cut.x1), larger(a.y1, cut.y1), smaller(a.x2, cut.x2),
                               smaller(a.y2, cut.y2)};
    return {inside, 1.0f, is_seen(share)};
  }
};

}  // namespace fused_mixup
