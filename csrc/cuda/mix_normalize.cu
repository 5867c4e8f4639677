// mix_normalize for CUDA tensors. Kernels: mix_normalize.cuh.
#include <algorithm>
#include <vector>

#include "../common/normalize_arguments.h"
#include "binding.h"
#include "mix_normalize.cuh"

namespace fused_mixup {
namespace {

// The images as one tensor [B, C, H, W]. Samples that lie apart are copied into one: where they
// come one by one, from a decoder on the device, that is a pass more.
Tensor one_batch(const std::vector<Tensor>& images, const Tensor& out) {
  if (is_whole_batch(images)) return images[0];
  const std::vector<int64_t> sizes(out.sizes().begin(), out.sizes().end());
  Tensor batch = torch::stable::new_empty(out, sizes, images[0].scalar_type());
  for (size_t i = 0; i < images.size(); ++i) {
    Tensor row = torch::stable::select(batch, 0, static_cast<int64_t>(i));
    torch::stable::copy_(row, images[i]);
  }
  return batch;
}

ImageStrides strides_of(const Tensor& t) {
  return {t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

void mix_normalize_out(std::vector<Tensor> images,  // [B, C, H, W], or B of [C, H, W]
                       OptionalTensor partner,      // int32 [B]
                       Tensor blend,                // float64 [B, 2]
                       Tensor box,                  // int32 [B, 2·D]
                       int64_t pairing,
                       std::vector<double> mean,    // C
                       std::vector<double> std,     // C
                       OptionalTensor flip,         // bool [B]
                       OptionalTensor erase_box,    // int32 [B, N, 4]
                       OptionalTensor erase_value,  // float32 [B or 1, N or 1, C or 1]
                       OptionalTensor erase_noise,  // int64 [B]
                       bool first,
                       Tensor out) {  // [B, C, H, W]
  const Guard guard = guard_of(out);
  check_mix_normalize(images, pairing, partner, blend, box, mean, std, flip, erase_box, erase_value,
                      erase_noise, out);
  if (out.numel() == 0) return;
  const auto sizes = out.sizes();
  expect(*std::max_element(sizes.begin(), sizes.end()) <= INT32_MAX, "images", "sizes of 31 bits");
  KeptTensors kept;
  const Tensor& batch = kept.keep(one_batch(images, out));
  NormalizeArgs a = {};
  a.in = dtype_of(batch.scalar_type());
  a.out = dtype_of(out.scalar_type());
  NormalizeParams& p = a.params;
  p.dst = out.data_ptr();
  p.src = batch.const_data_ptr();
  p.batch = out.size(0);
  p.channels = static_cast<int32_t>(out.size(1));
  p.height = static_cast<int32_t>(out.size(2));
  p.width = static_cast<int32_t>(out.size(3));
  p.dst_stride = strides_of(out);
  p.src_stride = strides_of(batch);
  p.pairing = static_cast<int>(pairing);
  if (pairing == kTensor) p.partner = kept.device_data<int32_t>(*partner, out);
  p.blend = kept.device_pairs<double>(blend, out, p.blend_row);
  p.spatial = static_cast<int>(box.size(1) / 2);
  if (p.spatial > 0 && is_host_row(box)) {
    for (int64_t k = 0; k < box.size(1); ++k) {
      p.box_row[k] = data<int32_t>(box)[k * box.stride(1)];
    }
  } else if (p.spatial > 0) {
    p.box = kept.device_data<int32_t>(box, out);
  }
  if (flip) p.flip = reinterpret_cast<const uint8_t*>(kept.device_data<bool>(*flip, out));
  p.first = first;
  if (erase_box && erase_box->size(1) > 0) {
    p.erased = erase_box->size(1);
    p.erase_box = kept.device_data<int32_t>(*erase_box, out);
    if (erase_noise) p.erase_noise = kept.device_data<int64_t>(*erase_noise, out);
  }
  if (p.erased > 0 && erase_value) {
    const Tensor& value = kept.keep(on_device(*erase_value, out));
    const auto step = [&](int64_t k) { return value.size(k) == 1 ? 0 : value.stride(k); };
    p.erase_value = data<float>(value);
    p.value_batch = step(0);
    p.value_box = step(1);
    p.value_channel = step(2);
  }
  for (size_t c = 0; c < mean.size(); ++c) {
    p.mean[c] = static_cast<float>(mean[c]);
    p.std[c] = static_cast<float>(std[c]);
  }
  a.stream = current_stream(out);
  check(mix_normalize(a));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("mix_normalize", TORCH_BOX(&mix_normalize_out));
}

}  // namespace fused_mixup
