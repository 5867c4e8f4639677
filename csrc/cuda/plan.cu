// draw_plan for CUDA tensors. Kernel: plan.cuh.
#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/draw_arguments.h"
#include "binding.h"
#include "plan.cuh"

namespace fused_mixup {
namespace {

template <typename T>
T* writable(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

std::tuple<Tensor, Tensor, Tensor, Tensor> draw_on_device(Tensor state,           // int64 [4]
                                                          Tensor settings,        // float64 [6]
                                                          OptionalTensor labels,  // int64 [B]
                                                          OptionalTensor given,   // int32 [B]
                                                          int64_t batch,
                                                          std::vector<int64_t> sizes,  // [D]
                                                          int64_t per, int64_t pairing,
                                                          bool correct_lam, bool symmetric) {
  const Guard guard = guard_of(state);
  const int64_t spatial = static_cast<int64_t>(sizes.size());
  check_draw(state, settings, labels, given, batch, sizes, per, pairing);
  const Tensor partner = torch::stable::new_empty(state, {batch}, ScalarType::Int);
  const Tensor weight = torch::stable::new_empty(state, {batch, 2}, ScalarType::Float);
  const Tensor blend = torch::stable::new_empty(state, {batch, 2}, ScalarType::Double);
  const Tensor box = torch::stable::new_empty(state, {batch, 2 * spatial}, ScalarType::Int);
  PlanArgs a = {};
  a.state = writable<int64_t>(state);
  if (settings.is_cpu()) {  // settings travel with the launch
    std::copy_n(data<double>(settings), static_cast<int>(kSettings), a.draw.setting);
  } else {
    a.settings = data<double>(settings);
  }
  std::copy(sizes.begin(), sizes.end(), a.draw.size);
  a.draw.spatial = static_cast<int>(spatial);
  a.draw.correct_lam = correct_lam;
  a.draw.symmetric = symmetric;
  a.batch = static_cast<int>(batch);
  a.per = static_cast<int>(per);
  a.pairing = static_cast<int>(pairing);
  KeptTensors kept;
  if (pairing == kCrossClass) a.labels = kept.device_data<int64_t>(*labels, state);
  if (pairing == kTensor) a.given = kept.device_data<int32_t>(*given, state);
  a.partner = writable<int32_t>(partner);
  a.weight = writable<float>(weight);
  a.blend = writable<double>(blend);
  a.box = writable<int32_t>(box);
  a.stream = current_stream(state);
  check(draw_plan(a));
  return {partner, weight, blend, box};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CUDA, m) { m.impl("draw_plan", TORCH_BOX(&draw_on_device)); }

}  // namespace fused_mixup
