// mix_rectangles on the CPU.
#include "rectangles.h"

#include "../common/collage_arguments.h"
#include "dispatch.h"

namespace fused_mixup {
namespace {

// Rectangles [B, R] as the walk takes them; sources are clamped.
std::vector<Rectangle> rectangles_of(const Tensor& source, const Tensor& source_box,
                                     const Tensor& box, const OptionalTensor& scale,
                                     const Tensor& images, int resample) {
  const int64_t n = source.numel(), most = images.size(0) - 1;
  const Tensor near_source = as_contiguous(source), near_sources = as_contiguous(source_box),
               near_box = as_contiguous(box);
  const OptionalTensor near_scale = as_contiguous(scale);
  std::vector<Rectangle> found(n);
  for (int64_t k = 0; k < n; ++k) {
    const int32_t* from = data<int32_t>(near_sources) + 4 * k;
    const int32_t* to = data<int32_t>(near_box) + 4 * k;
    const float* step = near_scale ? data<float>(*near_scale) + 2 * k : nullptr;
    const auto axis = [&](int a) {
      return axis_of(to, from, step, a, images.size(images.dim() - 2 + a), resample);
    };
    found[k] = {std::clamp<int64_t>(data<int32_t>(near_source)[k], 0, most), axis(0), axis(1)};
  }
  return found;
}

void mix_rectangles(Tensor x,              // [B, …, H, W]
                    OptionalTensor other,  // [M, …, H, W]
                    Tensor source,         // int32 [B, R]
                    Tensor source_box,     // int32 [B, R, 4]
                    Tensor box,            // int32 [B, R, 4]
                    OptionalTensor scale,  // float32 [B, R, 2]
                    int64_t resample, std::optional<double> fill,
                    Tensor out) {  // [B, …, H', W']
  check_rectangles(x, other, source, source_box, box, scale, resample, fill.has_value(), out);
  ElementBits bits;
  if (fill) bits = element_bits(*fill, x.scalar_type());
  if (out.numel() == 0) return;
  const Tensor& images = other ? *other : x;
  if (out.is_contiguous() || out.stride(1) == 1) on_large_pages(out);
  const int rule = int(resample);
  const int count = images.numel() == 0 ? 0 : int(source.size(1));
  std::vector<Rectangle> rectangles;
  if (count > 0) rectangles = rectangles_of(source, source_box, box, scale, images, rule);
  const int64_t batch = x.size(0), height = out.size(out.dim() - 2),
                width = out.size(out.dim() - 1);
  const auto run = [&](auto tag, auto interpolates) {
    using T = typename decltype(tag)::type;
    const ImageShape shape = image_shape({&out, &x, &images});
    const Images<T> to(out, shape), own(x, shape), from(images, shape);
    T value;
    std::memcpy(&value, bits.bytes, sizeof(T));
    const int64_t row_bytes = width * shape.inner * shape.planes * int64_t(sizeof(T));
    for_image_rows(batch, height, row_bytes, [&](int64_t i, int64_t begin, int64_t end) {
      RectanglePaster<T, decltype(interpolates)::value> paster(
          to, own, from, rectangles.data() + i * count, count, width, rule,
          fill ? &value : nullptr);
      paster.paste(i, begin, end);
    });
  };
  if (rule >= kResizeBilinear) {
    dispatch_blendable(x.scalar_type(), [&](auto tag) { run(tag, std::true_type()); });
  } else {
    dispatch_size(x.element_size(), [&](auto tag) { run(tag, std::false_type()); });
  }
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("mix_rectangles", TORCH_BOX(&fused_mixup::mix_rectangles));
}
