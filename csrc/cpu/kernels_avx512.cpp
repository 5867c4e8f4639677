// The inner loops for AVX-512 (F, BW, VL, DQ: servers since 2017).
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

// GCC's own intrinsics read a variable they leave undefined on purpose (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#define FUSED_MIXUP_AVX512
#define FUSED_MIXUP_ISA "avx512"
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")
#endif

namespace fused_mixup::avx512 {
namespace {
constexpr int kVectorBytes = 64;
#include "kernels.inl"
}  // namespace
const Kernels& kernel_table() { return table; }
}  // namespace fused_mixup::avx512

#if defined(__clang__)
#pragma clang attribute pop
#endif
// GCC: no pop_options. Templates are instantiated at the end of the file, under what holds there.
#endif
