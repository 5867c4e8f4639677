// mix_rectangles for CUDA tensors. Kernel: rectangles.cuh.
#include "../common/collage_arguments.h"
#include "binding.h"
#include "rectangles.cuh"

namespace fused_mixup {
namespace {

void rectangles_on_device(Tensor x,              // [B, …, H, W]
                          OptionalTensor other,  // [M, …, H, W]
                          Tensor source,         // int32 [B, R]
                          Tensor source_box,     // int32 [B, R, 4]
                          Tensor box,            // int32 [B, R, 4]
                          OptionalTensor scale,  // float32 [B, R, 2]
                          int64_t resample, std::optional<double> fill,
                          Tensor out) {  // [B, …, H', W']
  const Guard guard = guard_of(x);
  check_rectangles(x, other, source, source_box, box, scale, resample, fill.has_value(), out);
  ElementBits bits;
  if (fill) bits = element_bits(*fill, x.scalar_type());
  if (out.numel() == 0) return;
  const Tensor& images = other ? *other : x;
  KeptTensors kept;
  RectangleArgs a = {};
  RectangleParams& p = a.params;
  a.dtype = resample >= kResizeBilinear ? dtype_of(x.scalar_type()) : kUInt8;
  a.element_size = static_cast<int>(x.element_size());
  a.batch = x.size(0);
  a.shape = line_shape(out.sizes().data(), static_cast<int>(out.dim()),
                       {out.strides().data(), x.strides().data(), images.strides().data()},
                       {&p.dst_stride, &p.own_stride, &p.image_stride});
  p.dst = out.data_ptr();
  p.own = fill ? nullptr : x.const_data_ptr();
  p.images = images.const_data_ptr();
  p.samples = images.size(0);
  p.image_height = x.size(x.dim() - 2);
  p.image_width = x.size(x.dim() - 1);
  p.count = images.numel() == 0 ? 0 : static_cast<int>(source.size(1));
  p.resample = static_cast<int>(resample);
  p.source = kept.device_data<int32_t>(source, x);
  p.source_box = kept.device_data<int32_t>(source_box, x);
  p.box = kept.device_data<int32_t>(box, x);
  if (scale) p.scale = kept.device_data<float>(*scale, x);
  std::memcpy(&p.fill, bits.bytes, sizeof(p.fill));
  a.stream = current_stream(x);
  check(mix_rectangles(a));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("mix_rectangles", TORCH_BOX(&rectangles_on_device));
}

}  // namespace fused_mixup
