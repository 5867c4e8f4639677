// draw_variants on the CPU: draws partners, then each unit from random words of its own, and makes
// the tables of its mask.
//
// It reads the state, the settings and the labels alone. A batch that shares its draw takes a few
// microseconds, with FMix about a fifth of a millisecond (fmix_mask.h).
#include <algorithm>
#include <limits>
#include <memory>
#include <tuple>
#include <vector>

#include "../common/draw_arguments.h"
#include "../common/variant_draws.h"
#include "binding.h"
#include "drawn_partners.h"
#include "fmix_mask.h"

namespace fused_mixup {
namespace {

constexpr int64_t kGrain = 8;  // units that outweigh the cost of waking a thread

// The mask of one unit, where the plan holds it.
struct UnitMask {
  float* threshold;  // [1]
  float* rows;       // [rank, height]
  float* columns;    // [rank, width]
};

// Memory of the plan that is drawn.
struct VariantMemory {
  const int32_t* sample;  // [B], the samples' indices in a larger batch, or null
  float* weight;          // [B, 2]
  double* blend;          // [B, 2]
  int32_t* box;           // [B, 4]
  int32_t* code;          // [B]
  float* threshold;       // [U]
  float* rows;            // [U, rank, height]
  float* columns;         // [U, rank, width]
  int32_t* resize_box;    // [B, 4], or none

  int64_t index_of(int64_t i) const { return sample ? sample[i] : i; }
  UnitMask mask(int64_t unit, const VariantArgs& args) const {
    return {threshold + unit, rows + unit * args.rank * args.size[0],
            columns + unit * args.rank * args.size[1]};
  }
  // Writes the row of sample i, which stays as it is where it is its own partner.
  void put(int64_t i, const VariantRow& row, bool mixes) const {
    for (int k = 0; k < 2; ++k) {
      weight[2 * i + k] = mixes ? label_weight(row.weight[k]) : 1.0f - k;
      blend[2 * i + k] = mixes ? row.blend[k] : 1.0 - k;
    }
    code[i] = mixes ? row.code : 0;
    for (int k = 0; k < 4; ++k) {
      box[4 * i + k] = mixes ? row.box[k] : 0;
      if (resize_box) resize_box[4 * i + k] = mixes ? row.resize_box[k] : 0;
    }
  }
};

class Drawing {
 public:
  Drawing(const Stream& stream, const VariantArgs& args) : stream_(stream), args_(args) {
    const int* end = args.kind + args.count;
    if (std::find(args.kind, end, int(kFmix)) != end) {
      fmix_ = std::make_unique<FmixTables>(args.size[0], args.size[1]);
    }
  }

  // Draws a unit, and writes the tables of its mask.
  VariantRow unit(int64_t u, const UnitMask& mask, FmixScratch& scratch) const {
    VariantRow row = {};
    VariantDraws(stream_, args_, uint32_t(u)).draw(row);
    const int64_t height = args_.size[0], width = args_.size[1];
    *mask.threshold = 0.0f;
    std::fill(mask.rows + row.products * height, mask.rows + args_.rank * height, 0.0f);
    std::fill(mask.columns + row.products * width, mask.columns + args_.rank * width, 0.0f);
    if (row.variant == kFmix) {
      *mask.threshold =
          fmix_->fill(stream_, uint32_t(u), row.decay, row.kept, mask.rows, mask.columns, scratch);
      return row;
    }
    int64_t sums[2] = {};
    for (int k = 0; k < row.products; ++k) {
      for (int a = 0; a < 2; ++a) {
        const int64_t n = args_.size[a];
        float* table = (a == 0 ? mask.rows : mask.columns) + k * n;
        for (int64_t at = 0; at < n; ++at) table[at] = table_value(row, a, k, int32_t(at));
        if (!is_bell(row.variant)) continue;
        for (int64_t at = 0; at < n; ++at) sums[a] += quanta(table[at]);
      }
    }
    if (is_bell(row.variant)) weigh_bell(row, sums[0], sums[1], args_.pixels());
    return row;
  }

 private:
  const Stream& stream_;
  const VariantArgs& args_;
  std::unique_ptr<FmixTables> fmix_;
};

void draw_all(const Stream& stream, const VariantArgs& args, const VariantMemory& plan,
              const int32_t* partner, int64_t batch, int per) {
  const Drawing drawing(stream, args);
  if (per == kPerBatch) {
    FmixScratch scratch;
    const VariantRow row = drawing.unit(0, plan.mask(0, args), scratch);
    for (int64_t i = 0; i < batch; ++i) plan.put(i, row, partner[i] != plan.index_of(i));
    return;
  }
  parallel_for(0, batch, kGrain, [&](int64_t begin, int64_t end) {
    FmixScratch scratch;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t p = partner[i], own = plan.index_of(i);
      const int64_t unit = per == kPerPair ? std::min(own, p) : own;
      const bool paired = per == kPerPair && !plan.sample && p != i && partner[p] == i;
      if (paired && p < i) continue;  // the lower sample of a pair draws and writes both
      const UnitMask mask = plan.mask(i, args);
      const VariantRow row = drawing.unit(unit, mask, scratch);
      plan.put(i, row, p != own);
      if (!paired) continue;
      const UnitMask other = plan.mask(p, args);
      *other.threshold = *mask.threshold;
      std::copy_n(mask.rows, args.rank * args.size[0], other.rows);
      std::copy_n(mask.columns, args.rank * args.size[1], other.columns);
      plan.put(p, row, true);
    }
  });
}

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Results draw_variants(Tensor state,           // int64 [4]
                      Tensor settings,        // float64 [1 + 10·M]
                      OptionalTensor labels,  // int64 [B]
                      OptionalTensor given,   // int32 [B]
                      std::vector<int64_t> kinds, int64_t batch, int64_t height, int64_t width,
                      int64_t rank, int64_t per, int64_t pairing, bool correct_lam, bool symmetric,
                      OptionalTensor samples) {  // int32 [B]
  check_draw_variants(state, settings, labels, given, samples, kinds, batch, height, width, rank,
                      per, pairing);
  const bool resizes = std::find(kinds.begin(), kinds.end(), kResizemix) != kinds.end();
  const int64_t units = per == kPerBatch ? 1 : batch;
  const auto empty = [](std::vector<int64_t> sizes, ScalarType dtype) {
    return torch::stable::empty(sizes, dtype);
  };
  Tensor partner = empty({batch}, ScalarType::Int);
  Tensor weight = empty({batch, 2}, ScalarType::Float);
  Tensor blend = empty({batch, 2}, ScalarType::Double);
  Tensor box = empty({batch, 4}, ScalarType::Int);
  Tensor code = empty({batch}, ScalarType::Int);
  Tensor threshold = empty({units}, ScalarType::Float);
  Tensor rows = empty({units, rank, height}, ScalarType::Float);
  Tensor columns = empty({units, rank, width}, ScalarType::Float);
  Tensor resize_box = empty({resizes ? batch : 0, 4}, ScalarType::Int);

  const VariantArgs args =
      variant_args(data<double>(settings), kinds, height, width, rank, correct_lam, symmetric);
  int64_t* words = data<int64_t>(state);
  const Stream stream(words);
  const OptionalTensor adjacent = as_contiguous(samples);
  const VariantMemory plan = {adjacent ? data<int32_t>(*adjacent) : nullptr,
                              data<float>(weight),
                              data<double>(blend),
                              data<int32_t>(box),
                              data<int32_t>(code),
                              data<float>(threshold),
                              data<float>(rows),
                              data<float>(columns),
                              resizes ? data<int32_t>(resize_box) : nullptr};
  draw_partners(stream, labels, given, plan.sample, batch, int(per), pairing,
                data<int32_t>(partner));
  draw_all(stream, args, plan, data<int32_t>(partner), batch, int(per));

  if (words[kVersionWord] == kStateVersion) {
    words[kStepWord] = int64_t(uint64_t(words[kStepWord]) + 1);
  } else {
    std::fill_n(plan.weight, 2 * batch, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(plan.blend, 2 * batch, std::numeric_limits<double>::quiet_NaN());
    std::fill_n(plan.box, 4 * batch, 0);
    std::fill_n(plan.code, batch, 0);
    if (resizes) std::fill_n(plan.resize_box, 4 * batch, 0);
  }
  return {partner, weight, blend, box, code, threshold, rows, columns, resize_box};
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("draw_variants", TORCH_BOX(&fused_mixup::draw_variants));
}
