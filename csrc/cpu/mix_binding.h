// A plan's tensors as rows, and the dtype of a batch as a C++ type: what every op that mixes needs.
#pragma once

#include <vector>

#include "binding.h"
#include "kernels.h"
#include "walk.h"

namespace fused_mixup {

// The rows of a plan of `batch` samples, whose boxes are along the last dims of x [B, …]; checked.
inline std::vector<PlanRow> rows_of(const Tensor& x, int64_t batch, int64_t pairing,
                                    const OptionalTensor& partner, const Tensor* blend,
                                    const Tensor& box) {
  check_plan(x, batch, pairing, partner, blend, box);
  const int spatial = spatial_of(box);
  const int64_t* extent = x.sizes().data() + x.dim() - spatial;
  const Tensor near_box = as_rows(box), near_blend = blend ? as_rows(*blend) : box;
  const Tensor near_partner = pairing == kTensor ? as_contiguous(*partner) : box;
  const int32_t* indices = static_cast<const int32_t*>(near_partner.data_ptr());
  const double* weights = blend ? static_cast<const double*>(near_blend.data_ptr()) : nullptr;
  const int32_t* boxes = static_cast<const int32_t*>(near_box.data_ptr());
  const int64_t weight_stride = near_blend.stride(0);
  const int64_t box_stride = near_box.stride(0);
  std::vector<PlanRow> rows(batch);
  for (int64_t i = 0; i < batch; ++i) {
    PlanRow& row = rows[i];
    if (weights) {
      row.own = weights[i * weight_stride];
      row.other = weights[i * weight_stride + 1];
    }
    row.box = box_of_row(boxes + i * box_stride, extent, spatial);
    row.partner = partner_of(int(pairing), indices, i, batch);
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
