// The inner loops for AVX2 with FMA and F16C (x86-64 since 2013).
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define FUSED_MIXUP_AVX2
#define FUSED_MIXUP_ISA "avx2"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace fused_mixup::avx2 {
namespace {
constexpr int kVectorBytes = 32;
#include "kernels.inl"
}  // namespace
const Kernels& kernel_table() { return table; }
}  // namespace fused_mixup::avx2

#if defined(__clang__)
#pragma clang attribute pop
#endif
// GCC: no pop_options. Templates are instantiated at the end of the file, under what holds there.
#endif
