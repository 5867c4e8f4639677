// mix_targets for CUDA tensors. Kernel: targets.cuh.
#include <vector>

#include "binding.h"
#include "targets.cuh"

namespace fused_mixup {
namespace {

Tensor targets_on_device(Tensor labels,           // int64 [B, …]
                         OptionalTensor partner,  // int32 [B]
                         Tensor weight,           // float32 [B, 2]
                         int64_t pairing, int64_t num_classes, double label_smoothing,
                         ScalarType dtype) {
  const Guard guard = guard_of(labels);
  check_label_pairs(labels, pairing, partner, weight, num_classes);
  const int64_t batch = labels.size(0);
  std::vector<int64_t> shape = {batch, num_classes};
  TargetArgs a = {};
  a.rest = 1;
  for (int64_t k = 1; k < labels.dim(); ++k) {
    shape.push_back(labels.size(k));
    a.rest *= labels.size(k);
  }
  Tensor out = torch::stable::new_empty(labels, shape, dtype);
  if (out.numel() == 0) return out;
  KeptTensors kept;
  a.dtype = dtype_of(dtype);
  a.out = out.data_ptr();
  a.labels = kept.device_data<int64_t>(labels, labels);
  a.batch = batch;
  a.classes = num_classes;
  a.pairing = static_cast<int>(pairing);
  if (pairing == kTensor) a.partner = kept.device_data<int32_t>(*partner, labels);
  a.weight = kept.device_pairs<float>(weight, labels, a.weight_row);
  a.label_smoothing = label_smoothing;
  a.stream = current_stream(labels);
  check(mix_targets(a));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("mix_targets", TORCH_BOX(&targets_on_device));
}

}  // namespace fused_mixup
