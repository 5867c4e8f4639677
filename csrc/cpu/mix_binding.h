// The tensors of a plan as rows, which every op that mixes needs.
#pragma once

#include <algorithm>
#include <vector>

#include "binding.h"
#include "kernels.h"
#include "mix_out_of_place.h"
#include "walk.h"

namespace fused_mixup {

// Checks a plan of `batch` samples and returns its rows. Boxes refer to the last dims of x.
inline std::vector<PlanRow> rows_of(const Tensor& x,  // [B, …]
                                    int64_t batch, int64_t pairing,
                                    const OptionalTensor& partner,  // int32 [B]
                                    const Tensor* blend,            // float64 [B, 2] or null
                                    const Tensor& box) {            // int32 [B, 2·D]
  check_plan(x, batch, pairing, partner, blend, box);
  const int spatial = spatial_of(box);
  const int64_t* extent = x.sizes().data() + x.dim() - spatial;
  const Tensor near_box = as_rows(box), near_blend = blend ? as_rows(*blend) : box;
  const Partners partners(pairing, partner, batch);
  const double* weights = blend ? data<double>(near_blend) : nullptr;
  const int32_t* boxes = data<int32_t>(near_box);
  const int64_t weight_stride = near_blend.stride(0);
  const int64_t box_stride = near_box.stride(0);
  const auto partner_at = partners.lookup();
  std::vector<PlanRow> rows(batch);
  for (int64_t i = 0; i < batch; ++i) {
    PlanRow& row = rows[i];
    if (weights) {
      row.own = weights[i * weight_stride];
      row.other = weights[i * weight_stride + 1];
    }
    // A box without columns may have any stride, and no memory.
    row.box = box_of_row(spatial > 0 ? boxes + i * box_stride : boxes, extent, spatial);
    row.partner = partner_at(i);
  }
  return rows;
}

// The rows that each row of a backward is made of.
inline Sources sources_of(const std::vector<PlanRow>& rows, int64_t pairing,
                          const OptionalTensor& sources,    // int32 [B]
                          const OptionalTensor& offsets) {  // int32 [B+1]
  const int64_t batch = int64_t(rows.size());
  const bool listed = pairing == kTensor;
  const Partners listed_sources(pairing, sources, batch);
  const auto source_at = listed_sources.lookup();
  const OptionalTensor near_offsets = listed ? as_contiguous(offsets) : OptionalTensor();
  const int32_t* offset = listed ? data<int32_t>(*near_offsets) : nullptr;
  Sources from;
  from.transposed = true;
  from.offsets.resize(batch + 1);
  from.sources.resize(batch);
  for (int64_t j = 0; j < batch; ++j) {
    if (listed) {  // the caller's values are clamped, as partners are
      from.offsets[j + 1] = std::clamp<int64_t>(offset[j + 1], 0, batch);
      from.sources[j] = source_at(j);
    } else {
      from.offsets[j + 1] = j + 1;
      from.sources[rows[j].partner] = j;
    }
  }
  return from;
}

inline bool any_box(const std::vector<PlanRow>& rows) {
  for (const PlanRow& row : rows) {
    if (!row.box.empty) return true;
  }
  return false;
}

}  // namespace fused_mixup
