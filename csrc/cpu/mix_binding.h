// A plan's tensors as rows, and the dtype of a batch as a C++ type: what every op that mixes needs.
#pragma once

#include <vector>

#include "binding.h"
#include "kernels.h"
#include "walk.h"

namespace fused_mixup {

inline std::vector<PlanRow> rows_of(int64_t batch, int pairing, const OptionalTensor& partner,
                                    const Tensor* blend, const Tensor& box, const int64_t* extent) {
  STD_TORCH_CHECK(pairing != kTensor || (partner && partner->numel() == batch));
  STD_TORCH_CHECK(box.size(0) == batch && (!blend || blend->size(0) == batch));
  const int spatial = spatial_of(box);
  const int32_t* indices = partner ? static_cast<const int32_t*>(partner->data_ptr()) : nullptr;
  const double* weights = blend ? static_cast<const double*>(blend->data_ptr()) : nullptr;
  const int32_t* boxes = static_cast<const int32_t*>(box.data_ptr());
  const int64_t weight_stride = blend ? blend->stride(0) : 0;
  const int64_t box_stride = box.stride(0);
  std::vector<PlanRow> rows(batch);
  for (int64_t i = 0; i < batch; ++i) {
    PlanRow& row = rows[i];
    if (weights) {
      row.own = weights[i * weight_stride];
      row.other = weights[i * weight_stride + 1];
    }
    row.box = box_of_row(boxes + i * box_stride, extent, spatial);
    row.partner = partner_of(pairing, indices, i, batch);
  }
  return rows;
}

// Calls f with a null pointer of the type that stores `dtype`.
template <typename F>
void dispatch_dtype(ScalarType dtype, const F& f) {
  switch (dtype) {
    case ScalarType::Float:
      return f(static_cast<float*>(nullptr));
    case ScalarType::Double:
      return f(static_cast<double*>(nullptr));
    case ScalarType::Half:
      return f(static_cast<Half*>(nullptr));
    case ScalarType::BFloat16:
      return f(static_cast<BFloat16*>(nullptr));
    case ScalarType::Byte:
      return f(static_cast<uint8_t*>(nullptr));
    default:
      STD_TORCH_CHECK(false, "fused_mixup: dtype that cannot be blended");
  }
}

inline bool any_box(const std::vector<PlanRow>& rows) {
  for (const PlanRow& row : rows) {
    if (!row.box.empty) return true;
  }
  return false;
}

}  // namespace fused_mixup
