// draw_erasing for CUDA tensors. Kernel: draw_erasing.cuh.
#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/draw_arguments.h"
#include "binding.h"
#include "draw_erasing.cuh"

namespace fused_mixup {
namespace {

std::tuple<Tensor, Tensor, Tensor> draw_erasing_on_device(Tensor state,     // int64 [4]
                                                          Tensor settings,  // float64 [5]
                                                          std::vector<double> fill, int64_t batch,
                                                          int64_t height, int64_t width,
                                                          int64_t max_count, int64_t channels,
                                                          int64_t mode, int64_t clean) {
  const Guard guard = guard_of(state);
  check_draw_erasing(state, settings, fill, batch, height, width, max_count, channels, mode, clean);
  const std::vector<int64_t> filled = {1, 1, static_cast<int64_t>(fill.size())},
                             colors = {batch, max_count, channels}, none = {0};
  const Tensor box = torch::stable::new_empty(state, {batch, max_count, 4}, ScalarType::Int);
  const Tensor value = torch::stable::new_empty(state,
                                                mode == kConstMode  ? filled
                                                : mode == kRandMode ? colors
                                                                    : none,
                                                ScalarType::Float);
  const Tensor noise =
      torch::stable::new_empty(state, {mode == kPixelMode ? batch : 0}, ScalarType::Long);
  ErasingLaunch a = {};
  a.state = static_cast<int64_t*>(state.data_ptr());
  if (settings.is_cpu()) {  // settings travel with the launch
    std::copy_n(data<double>(settings), static_cast<int>(kErasingSettings), a.draw.setting);
  } else {
    a.settings = data<double>(settings);
  }
  a.draw.height = height;
  a.draw.width = width;
  a.draw.clean = clean;
  a.draw.max_count = static_cast<int32_t>(max_count);
  a.draw.channels = static_cast<int32_t>(channels);
  a.draw.mode = static_cast<int32_t>(mode);
  a.batch = static_cast<int>(batch);
  a.filled = static_cast<int>(fill.size());
  std::transform(fill.begin(), fill.end(), a.fill, [](double v) { return static_cast<float>(v); });
  a.box = static_cast<int32_t*>(box.data_ptr());
  a.value = static_cast<float*>(value.data_ptr());
  a.noise = static_cast<int64_t*>(noise.data_ptr());
  a.stream = current_stream(state);
  check(draw_erasing(a));
  return {box, value, noise};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("draw_erasing", TORCH_BOX(&draw_erasing_on_device));
}

}  // namespace fused_mixup
