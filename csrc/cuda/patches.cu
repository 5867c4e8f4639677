// mix_patches for CUDA tensors. Kernel: patches.cuh.
#include "../common/collage_arguments.h"
#include "binding.h"
#include "patches.cuh"

namespace fused_mixup {
namespace {

PatchSide side_of(KeptTensors& kept, const OptionalTensor& sample, const OptionalTensor& index,
                  const Tensor& x) {
  PatchSide side = {nullptr, nullptr, sample && sample->dim() == 3, 1, 1};
  if (sample) side.sample = kept.device_data<int32_t>(*sample, x);
  if (index) side.index = kept.device_data<int32_t>(*index, x);
  if (index || side.each) {
    const Tensor& grid = index ? *index : *sample;
    side.rows = grid.size(1);
    side.columns = grid.size(2);
  }
  return side;
}

void patches_on_device(Tensor x,                      // [B, …, H, W]
                       OptionalTensor sample,         // int32 [B] or [B, gh, gw]
                       OptionalTensor index,          // int32 [B, gh, gw]
                       OptionalTensor partner,        // int32 [B] or [B, gh, gw]
                       OptionalTensor partner_index,  // int32 [B, gh, gw]
                       OptionalTensor mask,           // float32 [B, mh, mw]
                       Tensor out) {                  // [B, …, H, W]
  const Guard guard = guard_of(x);
  check_patches(x, sample, index, partner, partner_index, mask, out);
  if (out.numel() == 0) return;
  KeptTensors kept;
  PatchArgs a = {};
  PatchParams& p = a.params;
  a.dtype = mask ? dtype_of(x.scalar_type()) : kUInt8;
  a.element_size = static_cast<int>(x.element_size());
  a.shape = line_shape(out.sizes().data(), static_cast<int>(out.dim()),
                       {out.strides().data(), x.strides().data()}, {&p.dst_stride, &p.src_stride});
  p.dst = out.data_ptr();
  p.src = x.const_data_ptr();
  p.batch = x.size(0);
  p.own.side = side_of(kept, sample, index, x);
  p.other.side = side_of(kept, partner, partner_index, x);
  p.mask_rows = mask ? mask->size(1) : 1;
  p.mask_columns = mask ? mask->size(2) : 1;
  if (mask) p.mask = kept.device_data<float>(*mask, x);
  a.stream = current_stream(x);
  check(mix_patches(a));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("mix_patches", TORCH_BOX(&patches_on_device));
}

}  // namespace fused_mixup
