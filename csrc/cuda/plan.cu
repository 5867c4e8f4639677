// draw_plan and draw_variants for CUDA tensors. Kernels: plan.cuh, draw_variants.cuh. One file, as
// both ops launch plan_kernel, which is no template: two files would define it twice.
#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/draw_arguments.h"
#include "binding.h"
#include "draw_variants.cuh"
#include "experimental.h"
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
                                                          bool correct_lam, bool symmetric,
                                                          OptionalTensor samples) {  // int32 [B]
  const Guard guard = guard_of(state);
  const int64_t spatial = static_cast<int64_t>(sizes.size());
  check_draw(state, settings, labels, given, samples, batch, sizes, per, pairing);
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
  if (samples) a.sample = kept.device_data<int32_t>(*samples, state);
  a.partner = writable<int32_t>(partner);
  a.weight = writable<float>(weight);
  a.blend = writable<double>(blend);
  a.box = writable<int32_t>(box);
  a.mix_starts_early = experimental() && compiled_arch(plan_kernel) >= 90;
  a.stream = current_stream(state);
  check(draw_plan(a));
  return {partner, weight, blend, box};
}

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Results draw_variants_on_device(Tensor state,           // int64 [4]
                                Tensor settings,        // float64 [1 + 10·M]
                                OptionalTensor labels,  // int64 [B]
                                OptionalTensor given,   // int32 [B]
                                std::vector<int64_t> kinds, int64_t batch, int64_t height,
                                int64_t width, int64_t rank, int64_t per, int64_t pairing,
                                bool correct_lam, bool symmetric,
                                OptionalTensor samples) {  // int32 [B]
  const Guard guard = guard_of(state);
  check_draw_variants(state, settings, labels, given, samples, kinds, batch, height, width, rank,
                      per, pairing);
  const bool resizes = std::find(kinds.begin(), kinds.end(), kResizemix) != kinds.end();
  const int64_t units = per == kPerBatch ? 1 : batch;
  const auto empty = [&](std::vector<int64_t> sizes, ScalarType dtype) {
    return torch::stable::new_empty(state, sizes, dtype);
  };
  const Tensor partner = empty({batch}, ScalarType::Int);
  const Tensor weight = empty({batch, 2}, ScalarType::Float);
  const Tensor blend = empty({batch, 2}, ScalarType::Double);
  const Tensor box = empty({batch, 4}, ScalarType::Int);
  const Tensor code = empty({batch}, ScalarType::Int);
  const Tensor threshold = empty({units}, ScalarType::Float);
  const Tensor rows = empty({units, rank, height}, ScalarType::Float);
  const Tensor columns = empty({units, rank, width}, ScalarType::Float);
  const Tensor resize_box = empty({resizes ? batch : 0, 4}, ScalarType::Int);

  VariantLaunch a = {};
  a.state = static_cast<int64_t*>(state.data_ptr());
  const std::vector<double> unread(1 + kVariantNumbers * kinds.size());
  const bool on_host = settings.is_cpu();  // settings travel with the launch
  a.draw = variant_args(on_host ? data<double>(settings) : unread.data(), kinds, height, width,
                        rank, correct_lam, symmetric);
  if (!on_host) a.settings = data<double>(settings);
  a.batch = static_cast<int>(batch);
  a.per = static_cast<int>(per);
  a.pairing = static_cast<int>(pairing);
  KeptTensors kept;
  if (pairing == kCrossClass) a.labels = kept.device_data<int64_t>(*labels, state);
  if (pairing == kTensor) a.given = kept.device_data<int32_t>(*given, state);
  if (samples) a.sample = kept.device_data<int32_t>(*samples, state);
  a.partner = static_cast<int32_t*>(partner.data_ptr());
  a.weight = static_cast<float*>(weight.data_ptr());
  a.blend = static_cast<double*>(blend.data_ptr());
  a.box = static_cast<int32_t*>(box.data_ptr());
  a.code = static_cast<int32_t*>(code.data_ptr());
  a.threshold = static_cast<float*>(threshold.data_ptr());
  a.rows = static_cast<float*>(rows.data_ptr());
  a.columns = static_cast<float*>(columns.data_ptr());
  a.resize_box = resizes ? static_cast<int32_t*>(resize_box.data_ptr()) : nullptr;
  a.stream = current_stream(state);
  check(draw_variants(a));
  return {partner, weight, blend, box, code, threshold, rows, columns, resize_box};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("draw_plan", TORCH_BOX(&draw_on_device));
  m.impl("draw_variants", TORCH_BOX(&draw_variants_on_device));
}

}  // namespace fused_mixup
