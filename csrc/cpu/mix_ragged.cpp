// mix_ragged on the CPU: mixes images of different sizes, each in one region, into one buffer.
#include "mix_ragged.h"

#include "dispatch.h"

namespace fused_mixup {
namespace {

// Whether the channels of each pixel are neighbours, and its columns too: lines of W·C elements.
bool has_pixels(const Tensor& image) {  // [C, H, W]
  const int64_t channels = image.size(0);
  return (channels <= 1 || image.stride(0) == 1) &&
         (image.size(2) <= 1 || image.stride(2) == channels);
}

template <typename T>
Places<const T> places_of(const Tensor& image, bool pixels) {
  const int64_t column = image.size(2) <= 1 || pixels ? 1 : image.stride(2);
  return {data<const T>(image), image.stride(0), image.stride(1), column};
}

template <typename T>
std::vector<RaggedRow<T>> rows_of(const std::vector<Tensor>& images, const int32_t* partner,
                                  const double* blend, int64_t blend_stride, const int32_t* region,
                                  int64_t region_stride, bool channels_last, const Tensor& out) {
  const int64_t count = int64_t(images.size());
  const int64_t step = out.size(0) <= 1 ? 1 : out.stride(0);
  std::vector<uint8_t> pixels(count);
  for (int64_t i = 0; i < count; ++i) {
    pixels[i] = channels_last && step == 1 && has_pixels(images[i]);
  }
  std::vector<RaggedRow<T>> rows(count);
  T* first = data<T>(out);
  for (int64_t i = 0; i < count; ++i) {
    RaggedRow<T>& row = rows[i];
    row.partner = partner_of(kTensor, partner, i, count);
    const Tensor &own = images[i], &other = images[row.partner];
    const auto size = own.sizes(), other_size = other.sizes();
    row.region = region_of(region + i * region_stride, size.data() + 1, other_size.data() + 1);
    const bool merged = pixels[i] && pixels[row.partner];
    const int64_t group = merged ? size[0] : 1;
    row.planes = merged ? 1 : size[0];
    row.rows = size[1];
    row.columns = size[2] * group;
    row.region.left *= group;
    row.region.other_left *= group;
    row.region.width *= group;
    row.own = places_of<T>(own, merged);
    row.other = places_of<T>(other, merged);
    if (channels_last) {
      row.out = {first, step, size[2] * size[0] * step, merged ? 1 : size[0] * step};
    } else {
      row.out = {first, size[1] * size[2] * step, size[2] * step, step};
    }
    row.w0 = acc_t<T>(blend[i * blend_stride]);
    row.w1 = acc_t<T>(blend[i * blend_stride + 1]);
    first += own.numel() * step;
  }
  return rows;
}

void mix_ragged(std::vector<Tensor> images,  // B of [C, H, W]
                Tensor partner,              // int32 [B]
                Tensor blend,                // float64 [B, 2]
                Tensor region,               // int32 [B, 6]
                bool channels_last,
                Tensor out) {  // [N]
  const int64_t count = int64_t(images.size());
  const Code code = code_of(out);
  int64_t elements = 0;
  for (const Tensor& image : images) {
    expect_near("images", image, out);
    expect_code("images", image, code);
    expect(image.dim() == 3 && image.size(0) == images[0].size(0), "images", "[C, H, W], of one C");
    elements += image.numel();
  }
  expect(out.dim() == 1 && out.size(0) == elements, "out", "as many elements as images, [N]");
  expect_tensor("partner", partner, aoti_torch_dtype_int32(), {count}, out);
  expect_tensor("blend", blend, aoti_torch_dtype_float64(), {count, 2}, out);
  expect_tensor("region", region, aoti_torch_dtype_int32(), {count, 6}, out);
  expect_writable("out", out);
  if (elements == 0) return;
  for (const Tensor& image : images) {
    if (image.numel() > 0) expect_apart(out, image);
  }
  const Tensor near_partner = as_contiguous(partner);
  const Tensor near_blend = as_rows(blend), near_region = as_rows(region);
  if (out.is_contiguous()) on_large_pages(out);
  dispatch_blendable(out.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto rows = rows_of<T>(images, data<int32_t>(near_partner), data<double>(near_blend),
                                 near_blend.stride(0), data<int32_t>(near_region),
                                 near_region.stride(0), channels_last, out);
    RaggedMixer<T>(rows).run(elements * int64_t(sizeof(T)));
  });
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("mix_ragged", TORCH_BOX(&fused_mixup::mix_ragged));
}
