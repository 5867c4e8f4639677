// The checks of the arguments of draw_plan, draw_variants and draw_erasing, the same for both
// modules (see arguments.h).
#pragma once

#include <vector>

#include "arguments.h"
#include "draw.h"
#include "draw_erasing.h"
#include "neighbors.h"
#include "variants.h"

namespace fused_mixup {

inline void check_drawn(const Tensor& state, const Tensor& settings, int64_t numbers,
                        int64_t batch) {
  expect_tensor("state", state, aoti_torch_dtype_int64(), {kStateWords}, state);
  expect(state.is_contiguous(), "state", "adjacent words");
  expect_tensor("settings", settings, aoti_torch_dtype_float64(), {numbers}, state);
  expect(settings.is_contiguous(), "settings", "adjacent numbers");
  expect(batch >= 0 && batch <= kMaxDrawn, "batch_size", "0 to 65,536");
}

inline void check_pairing(const Tensor& state, const OptionalTensor& labels,
                          const OptionalTensor& given, const OptionalTensor& samples, int64_t batch,
                          int64_t per, int64_t pairing) {
  expect(per >= kPerBatch && per <= kPerSample, "per", "a number from 0 to 2");
  expect(pairing >= kTensor && pairing <= kCrossClass, "pairing", "a number from 0 to 6");
  expect(pairing != kTensor || given, "partner", "a tensor, as pairing is 0");
  if (pairing == kTensor)
    expect_tensor("partner", *given, aoti_torch_dtype_int32(), {batch}, state);
  expect(pairing == kTensor || !samples, "samples", "None, as pairing is not 0");
  if (samples) expect_tensor("samples", *samples, aoti_torch_dtype_int32(), {batch}, state);
  expect(pairing != kCrossClass || labels, "labels", "a tensor, as pairing is 6");
  if (pairing == kCrossClass)
    expect_tensor("labels", *labels, aoti_torch_dtype_int64(), {batch}, state);
}

inline void check_draw(const Tensor& state, const Tensor& settings, const OptionalTensor& labels,
                       const OptionalTensor& given, const OptionalTensor& samples, int64_t batch,
                       const std::vector<int64_t>& sizes, int64_t per, int64_t pairing) {
  check_drawn(state, settings, kSettings, batch);
  expect(sizes.size() <= size_t(kMaxSpatial), "spatial", "at most 3 sizes");
  for (const int64_t n : sizes) {
    expect(n >= 0 && n <= INT32_MAX, "spatial", "sizes of 31 bits");
  }
  check_pairing(state, labels, given, samples, batch, per, pairing);
}

inline void check_draw_variants(const Tensor& state, const Tensor& settings,
                                const OptionalTensor& labels, const OptionalTensor& given,
                                const OptionalTensor& samples, const std::vector<int64_t>& kinds,
                                int64_t batch, int64_t height, int64_t width, int64_t rank,
                                int64_t per, int64_t pairing) {
  expect(kinds.size() >= 1 && kinds.size() <= size_t(kMaxVariants), "kinds", "1 to 16 of them");
  check_drawn(state, settings, 1 + kVariantNumbers * int64_t(kinds.size()), batch);
  for (const int64_t n : {height, width}) {
    expect(n >= 1 && n <= kMaxMaskSize, "height, width", "1 to 65,536");
  }
  expect(rank <= kMaskRank, "rank", "at most 4");
  for (const int64_t kind : kinds) {
    expect(kind >= 0 && kind < kVariants, "kinds", "numbers from 0 to 9");
    expect(rank >= least_rank(int(kind)), "rank", "as many products as the variants have");
  }
  check_pairing(state, labels, given, samples, batch, per, pairing);
}

inline VariantArgs variant_args(const double* settings, const std::vector<int64_t>& kinds,
                                int64_t height, int64_t width, int64_t rank, bool correct_lam,
                                bool symmetric) {
  VariantArgs args = {};
  args.count = int(kinds.size());
  args.prob = *settings;
  for (int k = 0; k < args.count; ++k) {
    args.kind[k] = int(kinds[k]);
    for (int n = 0; n < kVariantNumbers; ++n) {
      args.number[k][n] = settings[1 + kVariantNumbers * k + n];
    }
  }
  args.size[0] = height;
  args.size[1] = width;
  args.rank = int(rank);
  args.correct_lam = correct_lam;
  args.symmetric = symmetric;
  return args;
}

inline void check_draw_neighbors(const Tensor& state, const Tensor& settings, const Tensor& labels,
                                 const OptionalTensor& pool, int64_t kernel) {
  check_drawn(state, settings, 1, 0);
  const auto check_labels = [&](const char* name, const Tensor& t) {
    const bool known =
        t.scalar_type() == ScalarType::Float || t.scalar_type() == ScalarType::Double;
    expect(known, name, "float32 or float64");
    expect(t.dim() == 2 && t.size(1) >= 1, name, "shape [samples, D], D >= 1");
    expect(t.device() == state.device(), name, "the device of state");
    expect(t.size(0) <= kMaxPool, name, "up to 2^30 samples");
  };
  check_labels("labels", labels);
  if (pool) {
    check_labels("pool", *pool);
    expect(pool->scalar_type() == labels.scalar_type(), "pool", "the dtype of labels");
    expect(pool->size(1) == labels.size(1), "pool", "shape [N, D] as labels");
    expect(pool->size(0) >= 1 || labels.size(0) == 0, "pool", "a sample");
  }
  expect(kernel >= kGaussian && kernel <= kTophat, "kernel", "0 or 1");
}

inline void check_draw_erasing(const Tensor& state, const Tensor& settings,
                               const std::vector<double>& fill, int64_t batch, int64_t height,
                               int64_t width, int64_t max_count, int64_t channels, int64_t mode,
                               int64_t clean) {
  check_drawn(state, settings, kErasingSettings, batch);
  for (const int64_t n : {height, width}) {
    expect(n >= 0 && n <= INT32_MAX, "height, width", "sizes of 31 bits");
  }
  expect(max_count >= 1 && max_count <= kMaxErased, "max_count", "1 to 64");
  expect(channels >= 1 && channels <= kMaxChannels, "channels", "1 to 64");
  expect(mode >= kConstMode && mode <= kPixelMode, "erase_mode", "a number from 0 to 2");
  const int64_t filled = int64_t(fill.size());
  expect(mode == kConstMode ? filled >= 1 && filled <= kMaxChannels : filled == 0, "fill",
         "1 to 64 numbers for erase_mode 0, else none");
  expect(clean >= 0 && clean <= batch, "clean", "0 to B");
}

}  // namespace fused_mixup
