// What mix_ragged asks of each instruction set.
#pragma once

#include <cstdint>

#include "scalar_types.h"

namespace fused_mixup {

// Lines of one image. A part of each is mixed, what lies left and right of it is copied.
template <typename T>
struct RaggedLines {
  T* dst;  // where the first line begins
  const T* src;
  int64_t dst_step, src_step;  // from line to line
  int64_t left, right;         // elements beside the part that is mixed
};

template <typename T>
struct RaggedKernels {
  using A = acc_t<T>;
  // The n elements of the part = w0·own + w1·partner, a weight of 0 dropping its term. partner:
  // its part of the first line. No element of dst lies in a source.
  void (*blend)(const RaggedLines<T>& own, const T* partner, int64_t partner_step, int64_t lines,
                int64_t n, A w0, A w1);
  // The part = partner.
  void (*paste)(const RaggedLines<T>& own, const T* partner, int64_t partner_step, int64_t lines,
                int64_t n);
  // blend() for two images that are each other's partner; no weight is 0.
  void (*blend_pair)(const RaggedLines<T>& a, const RaggedLines<T>& b, int64_t lines, int64_t n,
                     A a0, A a1, A b0, A b1);
};

}  // namespace fused_mixup
