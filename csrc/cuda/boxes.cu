// mix_boxes for CUDA tensors. Kernel: boxes.cuh.
#include <tuple>
#include <vector>

#include "binding.h"
#include "boxes.cuh"

namespace fused_mixup {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> boxes_on_device(Tensor boxes,            // [B, N, 4]
                                                           OptionalTensor count,    // [B]
                                                           OptionalTensor partner,  // int32 [B]
                                                           Tensor blend,  // float64 [B, 2]
                                                           Tensor box,    // int32 [B, 0 or 4]
                                                           int64_t pairing, double min_visible) {
  const Guard guard = guard_of(boxes);
  check_boxes(boxes, 3);
  const int64_t batch = boxes.size(0), room = 2 * boxes.size(1);
  check_count(count, boxes);
  check_box_plan(boxes, batch, pairing, partner, blend, box);
  const ScalarType dtype = boxes.scalar_type();
  const auto empty = [&](std::vector<int64_t> sizes, ScalarType type) {
    return torch::stable::new_empty(boxes, sizes, type);
  };
  Tensor out = empty({batch, room, 4}, dtype);
  Tensor source = empty({batch, room}, ScalarType::Int);
  Tensor weight = empty({batch, room}, ScalarType::Float);
  Tensor left = empty({batch}, ScalarType::Int);
  KeptTensors kept;
  BoxArgs a = {};
  a.dtype = dtype_of(dtype);
  a.boxes = kept.keep(on_device(boxes, boxes)).const_data_ptr();
  a.batch = batch;
  a.most = boxes.size(1);
  if (count) {
    const Tensor& near = kept.keep(on_device(*count, boxes));
    a.given = near.const_data_ptr();
    a.given_wide = near.element_size() == 8;
  }
  a.pairing = static_cast<int>(pairing);
  if (pairing == kTensor) a.partner = kept.device_data<int32_t>(*partner, boxes);
  a.blend = kept.device_pairs<double>(blend, boxes, a.blend_row);
  a.has_boxes = box.size(1) == 4;
  if (a.has_boxes && !is_host_row(box)) {
    a.box = kept.device_data<int32_t>(box, boxes);
  } else if (a.has_boxes && batch > 0) {
    for (int k = 0; k < 4; ++k) a.box_row[k] = data<int32_t>(box)[k * box.stride(1)];
  }
  a.min_visible = min_visible;
  a.out = out.data_ptr();
  a.source = static_cast<int32_t*>(source.data_ptr());
  a.weight = static_cast<float*>(weight.data_ptr());
  a.count = static_cast<int32_t*>(left.data_ptr());
  a.stream = current_stream(boxes);
  check(mix_boxes(a));
  return {out, source, weight, left};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("mix_boxes", TORCH_BOX(&boxes_on_device));
}

}  // namespace fused_mixup
