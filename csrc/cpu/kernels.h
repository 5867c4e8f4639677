// The inner loops, which exist once per instruction set, as tables of function pointers.
//
// kernels_baseline.cpp, kernels_avx2.cpp and kernels_avx512.cpp each compile the same *.inl files.
// kernels() picks, once, the best table that this CPU can run. Everything else in csrc/cpu is
// compiled for the baseline and calls the table, a run of elements at a time.
#pragma once

#include "../common/binary.h"
#include "../common/noise.h"
#include "bce_tables.h"
#include "collage_tables.h"
#include "loss_tables.h"
#include "mask_tables.h"
#include "mix_normalize_tables.h"
#include "neighbor_tables.h"
#include "ragged_tables.h"
#include "scalar_types.h"

namespace fused_mixup {

// How many rows, each of which blends with the next, are written in one pass: as many streams of
// memory are in flight together.
constexpr int kChainRows = 4;

template <typename T>
struct MixKernels {
  using A = acc_t<T>;
  // dst = w0·own + w1·partner, a weight of 0 dropping its term. dst may be own or partner.
  // ahead: n elements that are read next; they are prefetched.
  void (*blend)(T* dst, const T* own, const T* partner, const T* ahead, int64_t n, A w0, A w1);
  // dst_a, dst_b = a0·a + a1·b, b0·b + b1·a; no weight is 0. dst_a may be a, and dst_b may be b.
  void (*blend_pair)(T* dst_a, T* dst_b, const T* a, const T* b, int64_t n, A a0, A a1, A b0, A b1);
  // dst[k] = own[k]·rows[k] + other[k]·rows[k+1] for k < kChainRows, on the original values; no
  // weight is 0. dst[k] may be rows[k].
  void (*blend_chain)(T* const* dst, const T* const* rows, int64_t n, const A* own, const A* other);
  // sum += w·src
  void (*accumulate)(A* sum, const T* src, int64_t n, A w);
  // dst = sum, rounded once
  void (*round)(T* dst, const A* sum, int64_t n);
  // Takes n groups of `channels` neighbours apart: dst[c·stride + i] = src[i·channels + c]
  void (*split)(T* dst, int64_t stride, const T* src, int64_t n, int64_t channels);
};

struct Kernels {
  const char* name;
  // dst = src, past the caches; null where no instruction does that.
  void (*stream)(void* dst, const void* src, int64_t bytes);
  MixKernels<float> mix_float;
  MixKernels<double> mix_double;
  MixKernels<Half> mix_half;
  MixKernels<BFloat16> mix_bfloat16;
  MixKernels<uint8_t> mix_uint8;
  RaggedKernels<float> ragged_float;
  RaggedKernels<double> ragged_double;
  RaggedKernels<Half> ragged_half;
  RaggedKernels<BFloat16> ragged_bfloat16;
  RaggedKernels<uint8_t> ragged_uint8;
  CollageKernels<float> collage_float;
  CollageKernels<double> collage_double;
  CollageKernels<Half> collage_half;
  CollageKernels<BFloat16> collage_bfloat16;
  CollageKernels<uint8_t> collage_uint8;
  MaskKernels masks;
  MaskedKernels<float> masked_float;
  MaskedKernels<double> masked_double;
  MaskedKernels<Half> masked_half;
  MaskedKernels<BFloat16> masked_bfloat16;
  MaskedKernels<uint8_t> masked_uint8;
  LossKernels<float, float> loss_float;
  LossKernels<double, double> loss_double;
  LossKernels<Half, Half> loss_half;
  LossKernels<Half, float> loss_half_float;
  LossKernels<BFloat16, BFloat16> loss_bfloat16;
  LossKernels<BFloat16, float> loss_bfloat16_float;
  BinaryKernels<float, float> binary_float;
  BinaryKernels<double, double> binary_double;
  BinaryKernels<Half, Half> binary_half;
  BinaryKernels<Half, float> binary_half_float;
  BinaryKernels<BFloat16, BFloat16> binary_bfloat16;
  BinaryKernels<BFloat16, float> binary_bfloat16_float;
  LogitKernels<float> logits_float;
  LogitKernels<double> logits_double;
  LogitKernels<Half> logits_half;
  LogitKernels<BFloat16> logits_bfloat16;
  NeighborKernels neighbors;
  PixelKernels pixels;
  NormalizeKernels<uint8_t, float> normalize_bytes_float;
  NormalizeKernels<uint8_t, Half> normalize_bytes_half;
  NormalizeKernels<uint8_t, BFloat16> normalize_bytes_bfloat16;
  NormalizeKernels<float, float> normalize_float;
  NormalizeKernels<float, Half> normalize_float_half;
  NormalizeKernels<float, BFloat16> normalize_float_bfloat16;
};

// The table in use: the best that the CPU can run, or the one that FUSED_MIXUP_CPU names
// (baseline, avx2, avx512) if the CPU can run it.
const Kernels& kernels();

template <typename T>
const MixKernels<T>& mix_kernels() {
  const Kernels& k = kernels();
  if constexpr (std::is_same_v<T, float>) return k.mix_float;
  if constexpr (std::is_same_v<T, double>) return k.mix_double;
  if constexpr (std::is_same_v<T, Half>) return k.mix_half;
  if constexpr (std::is_same_v<T, BFloat16>) return k.mix_bfloat16;
  if constexpr (std::is_same_v<T, uint8_t>) return k.mix_uint8;
}

template <typename T>
const RaggedKernels<T>& ragged_kernels() {
  const Kernels& k = kernels();
  if constexpr (std::is_same_v<T, float>) return k.ragged_float;
  if constexpr (std::is_same_v<T, double>) return k.ragged_double;
  if constexpr (std::is_same_v<T, Half>) return k.ragged_half;
  if constexpr (std::is_same_v<T, BFloat16>) return k.ragged_bfloat16;
  if constexpr (std::is_same_v<T, uint8_t>) return k.ragged_uint8;
}

template <typename T>
const CollageKernels<T>& collage_kernels() {
  const Kernels& k = kernels();
  if constexpr (std::is_same_v<T, float>) return k.collage_float;
  if constexpr (std::is_same_v<T, double>) return k.collage_double;
  if constexpr (std::is_same_v<T, Half>) return k.collage_half;
  if constexpr (std::is_same_v<T, BFloat16>) return k.collage_bfloat16;
  if constexpr (std::is_same_v<T, uint8_t>) return k.collage_uint8;
}

template <typename T>
const MaskedKernels<T>& masked_kernels() {
  const Kernels& k = kernels();
  if constexpr (std::is_same_v<T, float>) return k.masked_float;
  if constexpr (std::is_same_v<T, double>) return k.masked_double;
  if constexpr (std::is_same_v<T, Half>) return k.masked_half;
  if constexpr (std::is_same_v<T, BFloat16>) return k.masked_bfloat16;
  if constexpr (std::is_same_v<T, uint8_t>) return k.masked_uint8;
}

template <typename S, typename U>
const NormalizeKernels<S, U>& normalize_kernels() {
  const Kernels& k = kernels();
  constexpr bool bytes = std::is_same_v<S, uint8_t>;
  if constexpr (std::is_same_v<U, float> && bytes) return k.normalize_bytes_float;
  if constexpr (std::is_same_v<U, float> && !bytes) return k.normalize_float;
  if constexpr (std::is_same_v<U, Half> && bytes) return k.normalize_bytes_half;
  if constexpr (std::is_same_v<U, Half> && !bytes) return k.normalize_float_half;
  if constexpr (std::is_same_v<U, BFloat16> && bytes) return k.normalize_bytes_bfloat16;
  if constexpr (std::is_same_v<U, BFloat16> && !bytes) return k.normalize_float_bfloat16;
}

template <typename L, typename T>
const LossKernels<L, T>& loss_kernels() {
  const Kernels& k = kernels();
  constexpr bool same = std::is_same_v<L, T>;
  if constexpr (std::is_same_v<L, float>) return k.loss_float;
  if constexpr (std::is_same_v<L, double>) return k.loss_double;
  if constexpr (std::is_same_v<L, Half> && same) return k.loss_half;
  if constexpr (std::is_same_v<L, Half> && !same) return k.loss_half_float;
  if constexpr (std::is_same_v<L, BFloat16> && same) return k.loss_bfloat16;
  if constexpr (std::is_same_v<L, BFloat16> && !same) return k.loss_bfloat16_float;
}

template <typename L, typename T>
const BinaryKernels<L, T>& binary_kernels() {
  const Kernels& k = kernels();
  constexpr bool same = std::is_same_v<L, T>;
  if constexpr (std::is_same_v<L, float>) return k.binary_float;
  if constexpr (std::is_same_v<L, double>) return k.binary_double;
  if constexpr (std::is_same_v<L, Half> && same) return k.binary_half;
  if constexpr (std::is_same_v<L, Half> && !same) return k.binary_half_float;
  if constexpr (std::is_same_v<L, BFloat16> && same) return k.binary_bfloat16;
  if constexpr (std::is_same_v<L, BFloat16> && !same) return k.binary_bfloat16_float;
}

template <typename L>
const LogitKernels<L>& logit_kernels() {
  const Kernels& k = kernels();
  if constexpr (std::is_same_v<L, float>) return k.logits_float;
  if constexpr (std::is_same_v<L, double>) return k.logits_double;
  if constexpr (std::is_same_v<L, Half>) return k.logits_half;
  if constexpr (std::is_same_v<L, BFloat16>) return k.logits_bfloat16;
}

}  // namespace fused_mixup
