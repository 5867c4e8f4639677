// The checks of draw_plan's arguments, the same for both modules (see arguments.h).
#pragma once

#include <vector>

#include "arguments.h"
#include "draw.h"

namespace fused_mixup {

inline void check_draw(const Tensor& state, const Tensor& settings, const OptionalTensor& labels,
                       const OptionalTensor& given, int64_t batch,
                       const std::vector<int64_t>& sizes, int64_t per, int64_t pairing) {
  expect_tensor("state", state, aoti_torch_dtype_int64(), {kStateWords}, state);
  expect(state.is_contiguous(), "state", "adjacent words");
  expect_tensor("settings", settings, aoti_torch_dtype_float64(), {kSettings}, state);
  expect(settings.is_contiguous(), "settings", "adjacent numbers");
  expect(batch >= 0 && batch <= kMaxDrawn, "batch_size", "0 to 65,536");
  expect(sizes.size() <= size_t(kMaxSpatial), "spatial", "at most 3 sizes");
  for (const int64_t n : sizes) {
    expect(n >= 0 && n <= INT32_MAX, "spatial", "sizes of 31 bits");
  }
  expect(per >= kPerBatch && per <= kPerSample, "per", "a number from 0 to 2");
  expect(pairing >= kTensor && pairing <= kCrossClass, "pairing", "a number from 0 to 6");
  expect(pairing != kTensor || given, "partner", "a tensor, as pairing is 0");
  if (pairing == kTensor)
    expect_tensor("partner", *given, aoti_torch_dtype_int32(), {batch}, state);
  expect(pairing != kCrossClass || labels, "labels", "a tensor, as pairing is 6");
  if (pairing == kCrossClass)
    expect_tensor("labels", *labels, aoti_torch_dtype_int64(), {batch}, state);
}

}  // namespace fused_mixup
