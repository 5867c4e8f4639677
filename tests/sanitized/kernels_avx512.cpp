// In place of csrc/cpu/kernels_avx512.cpp: the same *.inl files, word for word, with 64-byte
// vectors and stand-ins for the AVX-512 intrinsics, for CPUs that have none.
#include "../../csrc/cpu/kernels.h"
#include "avx512_on_any_cpu.h"

#define FUSED_MIXUP_AVX512
#define FUSED_MIXUP_ISA "avx512"

namespace fused_mixup::avx512 {
namespace {
constexpr int kVectorBytes = 64;
#include "../../csrc/cpu/kernels.inl"
}  // namespace
const Kernels& kernel_table() { return table; }
}  // namespace fused_mixup::avx512
