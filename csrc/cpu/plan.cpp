// draw_plan on the CPU: draws partners by one sort of keys, then each row from random words of its
// own.
//
// It reads the state, the settings and the labels alone. A row that draws for itself takes about a
// third of a microsecond, nearly all of it for λ (csrc/common/draw.h).
#include <algorithm>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "../common/draw_arguments.h"
#include "binding.h"
#include "drawn_partners.h"

namespace fused_mixup {
namespace {

constexpr int64_t kGrain = 64;  // rows that outweigh the cost of waking a thread

// ---------------------------------------------------------------- rows

// Memory of the plan that is drawn.
struct PlanMemory {
  const int32_t* sample;  // [B], the samples' indices in a larger batch, or null
  int32_t* partner;       // [B]
  float* weight;          // [B, 2]
  double* blend;          // [B, 2]
  int32_t* box;           // [B, 2·spatial]
  int spatial;

  int64_t index_of(int64_t i) const { return sample ? sample[i] : i; }
  void put(int64_t i, const DrawnRow& row) const {
    std::memcpy(weight + 2 * i, row.weight, sizeof(row.weight));
    std::memcpy(blend + 2 * i, row.blend, sizeof(row.blend));
    std::copy_n(row.start, spatial, box + 2 * spatial * i);
    std::copy_n(row.stop, spatial, box + 2 * spatial * i + spatial);
  }
};

void draw_rows(const Stream& stream, const DrawArgs& args, const PlanMemory& plan, int64_t batch,
               int per) {
  const int32_t* partner = plan.partner;
  const DrawnRow untouched = draw_row(stream, args, 0, false);
  if (per == kPerBatch) {
    const DrawnRow mixed = draw_row(stream, args, 0, true);
    for (int64_t i = 0; i < batch; ++i) {
      plan.put(i, partner[i] == plan.index_of(i) ? untouched : mixed);
    }
    return;
  }
  parallel_for(0, batch, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t p = partner[i], own = plan.index_of(i);
      const bool paired = per == kPerPair && !plan.sample && partner[p] == i;
      if (p == own) {
        plan.put(i, untouched);
      } else if (!paired) {  // partners that the caller gives need not form pairs
        const int64_t unit = per == kPerPair ? std::min(own, p) : own;
        plan.put(i, draw_row(stream, args, uint32_t(unit), true));
      } else if (i < p) {  // the lower sample of a pair draws and writes both rows
        const DrawnRow row = draw_row(stream, args, uint32_t(i), true);
        plan.put(i, row);
        plan.put(p, row);
      }
    }
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> draw_plan(Tensor state,           // int64 [4]
                                                     Tensor settings,        // float64 [6]
                                                     OptionalTensor labels,  // int64 [B]
                                                     OptionalTensor given,   // int32 [B]
                                                     int64_t batch,
                                                     std::vector<int64_t> sizes,  // [D]
                                                     int64_t per, int64_t pairing, bool correct_lam,
                                                     bool symmetric,
                                                     OptionalTensor samples) {  // int32 [B]
  const int spatial = int(sizes.size());
  check_draw(state, settings, labels, given, samples, batch, sizes, per, pairing);
  Tensor partner = torch::stable::empty({batch}, ScalarType::Int);
  Tensor weight = torch::stable::empty({batch, 2}, ScalarType::Float);
  Tensor blend = torch::stable::empty({batch, 2}, ScalarType::Double);
  Tensor box = torch::stable::empty({batch, 2 * spatial}, ScalarType::Int);

  DrawArgs args = {};
  std::copy_n(data<double>(settings), int(kSettings), args.setting);
  std::copy(sizes.begin(), sizes.end(), args.size);
  args.spatial = spatial;
  args.correct_lam = correct_lam;
  args.symmetric = symmetric;
  int64_t* words = data<int64_t>(state);
  const Stream stream(words);
  const OptionalTensor adjacent = as_contiguous(samples);
  const PlanMemory plan = {adjacent ? data<int32_t>(*adjacent) : nullptr,
                           data<int32_t>(partner),
                           data<float>(weight),
                           data<double>(blend),
                           data<int32_t>(box),
                           spatial};
  draw_partners(stream, labels, given, plan.sample, batch, int(per), pairing, plan.partner);
  draw_rows(stream, args, plan, batch, int(per));

  if (words[kVersionWord] == kStateVersion) {
    words[kStepWord] = int64_t(uint64_t(words[kStepWord]) + 1);
  } else {
    std::fill_n(plan.weight, 2 * batch, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(plan.blend, 2 * batch, std::numeric_limits<double>::quiet_NaN());
  }
  return {partner, weight, blend, box};
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("draw_plan", TORCH_BOX(&fused_mixup::draw_plan));
}
