// Mixing one run of elements, of one row or of a pair of rows.
// A run lies along the innermost dim; see walk.h.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "walk.h"

namespace fused_mixup {

struct Bits128 {
  uint64_t bits[2];
};

// Of one row in a tile: long enough for the processor to stream, short enough that three rows
// share the first and second level of cache with what is saved.
constexpr int64_t kTileBytes = 32768;
constexpr int64_t kGrainBytes = 1 << 16;  // less work than this is not worth another thread

// T moves as bits only, or has kernels to blend it.
template <typename T>
constexpr bool kBlendable = !std::is_same_v<T, Bits128>;

template <typename T>
void gather(T* out, const T* p, int64_t stride, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = p[i * stride];
}

template <typename T>
void scatter(T* p, int64_t stride, const T* in, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i * stride] = in[i];
}

// dst = the mix of a run of one row; all contiguous, dst may be own. ahead: the run read next.
template <typename T>
void mix_run(T* dst, const T* own, const T* partner, const T* ahead, const PlanRow& row, Cut cut,
             int64_t n) {
  if constexpr (kBlendable<T>) {
    if (row.blends() || dst != own) {
      using A = acc_t<T>;
      const auto blend = mix_kernels<T>().blend;
      const A w0 = A(row.own), w1 = A(row.other);
      if (cut.lo > 0) blend(dst, own, partner, ahead, cut.lo, w0, w1);
      if (cut.hi < n) {
        const int64_t at = cut.hi;
        blend(dst + at, own + at, partner + at, ahead + at, n - at, w0, w1);
      }
    }
  }
  if (cut.hi > cut.lo && dst != partner) {
    std::memcpy(dst + cut.lo, partner + cut.lo, (cut.hi - cut.lo) * sizeof(T));
  }
}

template <typename T>
void swap_run(T* a, T* b, int64_t n) {
  std::swap_ranges(a, a + n, b);
}

// Two rows that are each other's partner, with the same part of the run in both boxes.
template <typename T>
void mix_pair(T* a, T* b, const PlanRow& row_a, const PlanRow& row_b, Cut cut, int64_t n) {
  if constexpr (kBlendable<T>) {
    if (row_a.blends() || row_b.blends()) {
      using A = acc_t<T>;
      const auto pair = mix_kernels<T>().blend_pair;
      const A w[] = {A(row_a.own), A(row_a.other), A(row_b.own), A(row_b.other)};
      const auto blend = [&](T* x, T* y, int64_t length) {
        if (length > 0) pair(x, y, x, y, length, w[0], w[1], w[2], w[3]);
      };
      blend(a, b, cut.lo);
      blend(a + cut.hi, b + cut.hi, n - cut.hi);
    }
  }
  if (cut.hi > cut.lo) swap_run(a + cut.lo, b + cut.lo, cut.hi - cut.lo);
}

// In the arithmetic type: a tiny λ is 0 there, and drops its term.
template <typename T>
bool nonzero_weights(const PlanRow& row) {
  if constexpr (kBlendable<T>) return acc_t<T>(row.own) != 0 && acc_t<T>(row.other) != 0;
  return true;
}

}  // namespace fused_mixup
