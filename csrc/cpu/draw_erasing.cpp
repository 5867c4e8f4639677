// draw_erasing on the CPU: draws the boxes that are erased, each from random words of its own.
//
// It reads the state and the settings alone. A box takes about a sixth of a microsecond, nearly all
// of it for its sides; a sample that keeps all pixels takes the ten rounds of one block of words.
#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/draw_arguments.h"
#include "binding.h"

namespace fused_mixup {
namespace {

constexpr int64_t kGrain = 128;  // boxes that outweigh the cost of waking a thread

std::tuple<Tensor, Tensor, Tensor> draw_erasing(Tensor state,     // int64 [4]
                                                Tensor settings,  // float64 [5]
                                                std::vector<double> fill, int64_t batch,
                                                int64_t height, int64_t width, int64_t max_count,
                                                int64_t channels, int64_t mode, int64_t clean) {
  check_draw_erasing(state, settings, fill, batch, height, width, max_count, channels, mode, clean);
  const std::vector<int64_t> filled = {1, 1, int64_t(fill.size())},
                             colors = {batch, max_count, channels}, none = {0};
  Tensor box = torch::stable::empty({batch, max_count, 4}, ScalarType::Int);
  Tensor value = torch::stable::empty(mode == kConstMode  ? filled
                                      : mode == kRandMode ? colors
                                                          : none,
                                      ScalarType::Float);
  Tensor noise = torch::stable::empty({mode == kPixelMode ? batch : 0}, ScalarType::Long);

  ErasingArgs args = {};
  std::copy_n(data<double>(settings), int(kErasingSettings), args.setting);
  args.height = height;
  args.width = width;
  args.clean = clean;
  args.max_count = int32_t(max_count);
  args.channels = int32_t(channels);
  args.mode = int32_t(mode);
  const ErasingLaw law(args);
  int64_t* words = data<int64_t>(state);
  const bool known = words[kVersionWord] == kStateVersion;
  if (!known) args.clean = batch;  // boxes of a state of another version are empty
  const Stream stream(words);
  ErasedBox* boxes = data<ErasedBox>(box);
  float* values = data<float>(value);
  int64_t* keys = data<int64_t>(noise);
  std::transform(fill.begin(), fill.end(), values, [](double v) { return float(v); });
  parallel_for(0, batch, std::max<int64_t>(kGrain / max_count, 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (mode == kPixelMode) keys[i] = draw_noise_key(stream, uint32_t(i));
      for (int64_t k = 0; k < max_count; ++k) {
        const int64_t at = i * max_count + k;
        boxes[at] = draw_erased_box(stream, args, law, uint32_t(i), uint32_t(k));
        if (mode != kRandMode) continue;
        float* color = values + at * channels;
        if (boxes[at].empty()) {
          std::fill_n(color, channels, 0.0f);
        } else {
          draw_color(stream, uint32_t(i), uint32_t(k), args.channels, color);
        }
      }
    }
  });
  if (known) words[kStepWord] = int64_t(uint64_t(words[kStepWord]) + 1);
  return {box, value, noise};
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("draw_erasing", TORCH_BOX(&fused_mixup::draw_erasing));
}
