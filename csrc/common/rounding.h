// Products that are rounded before anything is added to them.
#pragma once

#include "layout.h"

namespace fused_mixup {

// A product that a GPU must not contract with the difference or sum that takes it.
FUSED_MIXUP_HOST_DEVICE inline float rounded_product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
FUSED_MIXUP_HOST_DEVICE inline double rounded_product(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

}  // namespace fused_mixup
