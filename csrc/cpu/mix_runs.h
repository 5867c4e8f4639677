// Mixes a run of elements, in one row or in a pair of rows. A run lies along the innermost dim; see
// walk.h.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "walk.h"

namespace fused_mixup {

// The bytes of one row in a tile: enough for the processor to stream, few enough that three rows
// and the saved row share the first and second level of cache.
constexpr int64_t kTileBytes = 32768;
constexpr int64_t kGrainBytes = 1 << 16;  // less work than this is not worth another thread

// Whether there are kernels that blend T. Other types are only moved.
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

// dst = the mix of a run of one row. All are contiguous; dst may be own. ahead: the run that is
// read next. span: the part in the row's box.
template <typename T>
void mix_run(T* dst, const T* own, const T* partner, const T* ahead, const PlanRow& row,
             RunSpan span, int64_t n) {
  if constexpr (kBlendable<T>) {
    if (row.blends() || dst != own) {
      using A = acc_t<T>;
      const auto blend = mix_kernels<T>().blend;
      const A w0 = A(row.own), w1 = A(row.other);
      if (span.from > 0) blend(dst, own, partner, ahead, span.from, w0, w1);
      if (span.to < n) {
        const int64_t at = span.to;
        blend(dst + at, own + at, partner + at, ahead + at, n - at, w0, w1);
      }
    }
  }
  if (span.to > span.from && dst != partner) {
    std::memcpy(dst + span.from, partner + span.from, (span.to - span.from) * sizeof(T));
  }
}

template <int kBytes>
void swap_bytes(char* a, char* b) {
  char of_a[kBytes], of_b[kBytes];  // in registers
  std::memcpy(of_a, a, kBytes);
  std::memcpy(of_b, b, kBytes);
  std::memcpy(a, of_b, kBytes);
  std::memcpy(b, of_a, kBytes);
}

// Elements of any type, as bytes: of small types the lines of a box are short.
template <typename T>
void swap_run(T* first, T* second, int64_t n) {
  char *a = reinterpret_cast<char*>(first), *b = reinterpret_cast<char*>(second);
  const int64_t bytes = n * int64_t(sizeof(T));
  int64_t i = 0;
  for (; i + 64 <= bytes; i += 64) swap_bytes<64>(a + i, b + i);
  for (; i + 16 <= bytes; i += 16) swap_bytes<16>(a + i, b + i);
  if (bytes & 8) swap_bytes<8>(a + i, b + i), i += 8;
  if (bytes & 4) swap_bytes<4>(a + i, b + i), i += 4;
  for (; i < bytes; ++i) swap_bytes<1>(a + i, b + i);
}

// Mixes two rows that are each other's partner; both boxes cover the same span of the run.
template <typename T>
void mix_pair(T* a, T* b, const PlanRow& row_a, const PlanRow& row_b, RunSpan span, int64_t n) {
  if constexpr (kBlendable<T>) {
    if (row_a.blends() || row_b.blends()) {
      using A = acc_t<T>;
      const auto pair = mix_kernels<T>().blend_pair;
      const A w[] = {A(row_a.own), A(row_a.other), A(row_b.own), A(row_b.other)};
      const auto blend = [&](T* x, T* y, int64_t length) {
        if (length > 0) pair(x, y, x, y, length, w[0], w[1], w[2], w[3]);
      };
      blend(a, b, span.from);
      blend(a + span.to, b + span.to, n - span.to);
    }
  }
  if (span.to > span.from) swap_run(a + span.from, b + span.from, span.to - span.from);
}

// Whether both weights are other than 0 in the arithmetic type, where a tiny λ is 0 and drops its
// term.
template <typename T>
bool nonzero_weights(const PlanRow& row) {
  if constexpr (kBlendable<T>) return acc_t<T>(row.own) != 0 && acc_t<T>(row.other) != 0;
  return true;
}

}  // namespace fused_mixup
