// Draws the neighbours of samples by their labels, for every native backend of draw_neighbors.
//
// docs/tables.md holds the specification, fused_mixup/reference/draw_neighbors.py the same in plain
// PyTorch. Nothing here depends on PyTorch; it runs on the host and in CUDA kernels alike.
#pragma once

#include "draw.h"

namespace fused_mixup {

// The same numbers stand in fused_mixup/codes.py.
enum NeighborKernel : int { kGaussian, kTophat };
constexpr uint32_t kDrawNeighbor = 66;
constexpr int64_t kMaxPool = int64_t(1) << 30;  // so that a sum of weights has 63 bits

// Beyond it e^-x rounds to a weight of 0; a NaN is not below it either.
constexpr double kReach = 23.0;

// How a bandwidth weighs squared distances.
struct NeighborLaw {
  Real scale;   // 1 / (2 h²)
  Real radius;  // h²
  int kernel;

  NeighborLaw() = default;
  FUSED_MIXUP_HOST_DEVICE NeighborLaw(Real bandwidth, int kernel) : kernel(kernel) {
    radius = bandwidth * bandwidth;
    scale = Real(1.0) / (radius * 2.0);
  }

  // The weight of a label, a whole number: of e^-x in units of 2^-32, halves to even, or 1.
  FUSED_MIXUP_HOST_DEVICE uint64_t weight(Real distance, Real nearest) const {
    if (kernel == kTophat) {
      return distance < radius || distance.value == nearest.value ? 1 : 0;
    }
    const Real x = (distance - nearest) * scale;
    if (!(x <= kReach)) return 0;
    // Adding 2^52 rounds to a whole number and leaves it in the low bits.
    return bits_of(exp_negative(x) * 0x1p32 + 0x1p52) - bits_of(0x1p52);
  }
};

// The upper half of a product of 64-bit numbers; a·b has a·b's high word in no type of C++.
FUSED_MIXUP_HOST_DEVICE inline uint64_t high_product(uint64_t a, uint64_t b) {
  const uint64_t a0 = uint32_t(a), a1 = a >> 32, b0 = uint32_t(b), b1 = b >> 32;
  const uint64_t upper = a0 * b1 + (a0 * b0 >> 32);  // 64 bits: (2^32-1)² + 2^32 - 2
  const uint64_t middle = a1 * b0 + uint32_t(upper);
  return a1 * b1 + (upper >> 32) + (middle >> 32);
}

// A place in the running sum of the weights of sample i: an integer in [0, total).
FUSED_MIXUP_HOST_DEVICE inline uint64_t neighbor_place(const Stream& stream, uint32_t i,
                                                       uint64_t total) {
  const Words r = stream.words(i, kDrawNeighbor);
  return high_product(uint64_t(r.w[1]) << 32 | r.w[0], total);
}

}  // namespace fused_mixup
