// mix_targets for CUDA tensors. Kernel: targets.cuh.
#include <vector>

#include "binding.h"
#include "targets.cuh"

namespace fused_mixup {
namespace {

Tensor dense_targets(Tensor labels,           // int64 [B, …]
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
  const Tensor near_labels = on_device(labels, labels);
  a.dtype = dtype_of(dtype);
  a.out = out.data_ptr();
  a.labels = data<int64_t>(near_labels);
  a.batch = batch;
  a.classes = num_classes;
  a.pairing = static_cast<int>(pairing);
  OptionalTensor near_partner, near_weight;
  if (pairing == kTensor) {
    near_partner = on_device(*partner, labels);
    a.partner = data<int32_t>(*near_partner);
  }
  if (is_host_row(weight)) {
    a.weight_row[0] = data<float>(weight)[0];
    a.weight_row[1] = data<float>(weight)[weight.stride(1)];
  } else {
    near_weight = on_device(weight, labels);
    a.weight = data<float>(*near_weight);
  }
  a.label_smoothing = label_smoothing;
  a.stream = current_stream(labels);
  check(mix_targets(a));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CUDA, m) {
  m.impl("mix_targets", TORCH_BOX(&dense_targets));
}

}  // namespace fused_mixup
