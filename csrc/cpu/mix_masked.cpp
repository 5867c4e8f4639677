// mix_masked, mix_masked_out, mix_masked_, mix_masked_backward and mask_mean on the CPU.
#include "mix_masked.h"

#include "../common/mask_arguments.h"
#include "dispatch.h"
#include "mix_binding.h"

namespace fused_mixup {
namespace {

// The mask of a batch x [B, …, H, W], in the order of the ops' arguments.
MaskTensors masks_of(const Tensor& x, const OptionalTensor& code, const OptionalTensor& threshold,
                     const OptionalTensor& rows, const OptionalTensor& columns,
                     const OptionalTensor& map, int64_t interpolation) {
  const int64_t dims = x.dim();
  const int64_t height = code ? x.size(dims - 2) : 1, width = code ? x.size(dims - 1) : 1;
  return MaskTensors(code, threshold, rows, columns, map, interpolation, x.size(0), height, width,
                     x);
}

// Boxes and masks live in the last dims; those of images where there are masks.
int spatial_dims(const MaskArgs& mask, const Tensor& box) {
  return std::max(mask.code ? 2 : 0, spatial_of(box));
}

// Boxes of one dim lie in the width, as those of three in the last of them: the axes of a layout
// are those of the plan's boxes, or of the image.
void expect_image_boxes(const MaskArgs& mask, const Tensor& box) {
  const int d = spatial_of(box);
  expect(mask.code == nullptr || d == 0 || d == 2, "box", "boxes of images, as there are masks");
}

template <typename F>
void with_mix(const Tensor& out, const Tensor& x, const MaskArgs& mask,
              const std::vector<PlanRow>& rows, const Tensor& box, const F& call) {
  if (x.numel() == 0) return;
  const Layout layout = layout_of(out, x, spatial_dims(mask, box));
  dispatch_blendable(x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    MaskedMix<T> mix(mask, layout, rows);
    call(mix, tag);
  });
}

void mix_masked_(Tensor x,                  // [B, …, H, W]
                 OptionalTensor partner,    // int32 [B]
                 Tensor blend,              // float64 [B, 2]
                 Tensor box,                // int32 [B, 2·D]
                 int64_t pairing,           //
                 OptionalTensor code,       // int32 [B]
                 OptionalTensor threshold,  // float32 [B]
                 OptionalTensor rows,       // float32 [B, R, H]
                 OptionalTensor columns,    // float32 [B, R, W]
                 OptionalTensor map,        // [B, h, w]
                 int64_t interpolation) {
  check_masked(x, {}, code, pairing);
  expect(pairing == kFlip || pairing == kSelf, "pairing", "flip or self, in place");
  const auto plan = rows_of(x, x.size(0), pairing, partner, &blend, box);
  const MaskTensors mask = masks_of(x, code, threshold, rows, columns, map, interpolation);
  expect_image_boxes(mask.args, box);
  expect_writable("x", x);
  with_mix(x, x, mask.args, plan, box, [&](auto& mix, auto tag) {
    using T = typename decltype(tag)::type;
    mix.in_place(data<T>(x), x.stride(0));
  });
}

void mix_masked_out(Tensor x,                  // [B, …, H, W]
                    OptionalTensor other,      // [M, …, H, W]
                    OptionalTensor partner,    // int32 [B]
                    Tensor blend,              // float64 [B, 2]
                    Tensor box,                // int32 [B, 2·D]
                    int64_t pairing,           //
                    OptionalTensor code,       // int32 [B]
                    OptionalTensor threshold,  // float32 [B]
                    OptionalTensor rows,       // float32 [B, R, H]
                    OptionalTensor columns,    // float32 [B, R, W]
                    OptionalTensor map,        // [B, h, w]
                    int64_t interpolation,     //
                    bool clean,                //
                    Tensor out) {              // [B or 2B, …, H, W]
  check_masked(x, other, code, pairing);
  check_masked_out(out, x, other, clean);
  auto plan = rows_of(x, x.size(0), pairing, partner, &blend, box);
  const MaskTensors mask = masks_of(x, code, threshold, rows, columns, map, interpolation);
  expect_image_boxes(mask.args, box);
  // The samples of other have to lie in memory as those of x.
  Tensor pool = other ? *other : x;
  Tensor own = x;
  if (other) {
    expect_apart(out, pool);
    const int64_t pool_size = pool.size(0);
    if (pairing == kTensor) {
      const Tensor near = as_contiguous(*partner);
      const int32_t* index = data<int32_t>(near);
      for (size_t i = 0; i < plan.size(); ++i) {
        plan[i].partner = std::clamp<int64_t>(index[i], 0, pool_size - 1);
      }
    }
    bool alike = true;
    for (int64_t d = 1; d < x.dim(); ++d) {
      alike = alike && (x.size(d) == 1 || x.stride(d) == pool.stride(d));
    }
    if (!alike) {
      own = torch::stable::contiguous(x);
      pool = torch::stable::contiguous(pool);
    }
  }
  if (out.is_contiguous() && !same_tensor(out, x)) on_large_pages(out);
  with_mix(out, own, mask.args, plan, box, [&](auto& mix, auto tag) {
    using T = typename decltype(tag)::type;
    T* first = data<T>(out);
    T* mixed = clean ? first + x.size(0) * out.stride(0) : first;
    mix.out_of_place(mixed, clean ? first : nullptr, out.stride(0), data<T>(own), own.stride(0),
                     data<T>(pool), pool.stride(0));
  });
}

Tensor mix_masked(Tensor x,                  // [B, …, H, W]
                  OptionalTensor partner,    // int32 [B]
                  Tensor blend,              // float64 [B, 2]
                  Tensor box,                // int32 [B, 2·D]
                  int64_t pairing,           //
                  OptionalTensor code,       // int32 [B]
                  OptionalTensor threshold,  // float32 [B]
                  OptionalTensor rows,       // float32 [B, R, H]
                  OptionalTensor columns,    // float32 [B, R, W]
                  OptionalTensor map,        // [B, h, w]
                  int64_t interpolation) {
  check_masked(x, {}, code, pairing);
  const auto plan = rows_of(x, x.size(0), pairing, partner, &blend, box);
  const MaskTensors mask = masks_of(x, code, threshold, rows, columns, map, interpolation);
  expect_image_boxes(mask.args, box);
  Tensor out = new_result_like(x);
  with_mix(out, x, mask.args, plan, box, [&](auto& mix, auto tag) {
    using T = typename decltype(tag)::type;
    const T* values = data<T>(x);
    mix.out_of_place(data<T>(out), nullptr, out.stride(0), values, x.stride(0), values,
                     x.stride(0));
  });
  return out;
}

Tensor mix_masked_backward(Tensor grad,               // [B, …, H, W]
                           OptionalTensor partner,    // int32 [B]
                           OptionalTensor sources,    // int32 [B]
                           OptionalTensor offsets,    // int32 [B+1]
                           Tensor blend,              // float64 [B, 2]
                           Tensor box,                // int32 [B, 2·D]
                           int64_t pairing,           //
                           OptionalTensor code,       // int32 [B]
                           OptionalTensor threshold,  // float32 [B]
                           OptionalTensor rows,       // float32 [B, R, H]
                           OptionalTensor columns,    // float32 [B, R, W]
                           OptionalTensor map,        // [B, h, w]
                           int64_t interpolation) {
  check_masked(grad, {}, code, pairing);
  const auto plan = rows_of(grad, grad.size(0), pairing, partner, &blend, box);
  check_transpose(pairing, sources, offsets, grad);
  const MaskTensors mask = masks_of(grad, code, threshold, rows, columns, map, interpolation);
  expect_image_boxes(mask.args, box);
  const Sources from = sources_of(plan, pairing, sources, offsets);
  Tensor out = new_result_like(grad);
  with_mix(out, grad, mask.args, plan, box, [&](auto& mix, auto tag) {
    using T = typename decltype(tag)::type;
    mix.transposed(data<T>(out), out.stride(0), data<T>(grad), grad.stride(0), from);
  });
  return out;
}

Tensor mask_mean(Tensor code,             // int32 [B]
                 Tensor threshold,        // float32 [B]
                 OptionalTensor rows,     // float32 [B, R, H]
                 OptionalTensor columns,  // float32 [B, R, W]
                 OptionalTensor map,      // [B, h, w]
                 int64_t interpolation, int64_t height, int64_t width) {
  expect(code.dim() == 1, "code", "shape [B]");
  expect(height >= 0 && width >= 0, "height, width", "sizes");
  const int64_t batch = code.size(0);
  const MaskTensors mask(code, threshold, rows, columns, map, interpolation, batch, height, width,
                         code);
  const MaskArgs& args = mask.args;
  const Tensor out = new_tensor(code.sizes(), ScalarType::Float);
  float* mean = data<float>(out);
  const MaskColumns places(args);
  const int64_t masks = args.shared() ? std::min<int64_t>(batch, 1) : batch;
  const int64_t grain = 1 + kGrainBytes / (4 * height * width + 1);
  parallel_for(0, masks, grain, [&](int64_t begin, int64_t end) {
    MaskLines lines(args, places);
    for (int64_t i = begin; i < end; ++i) {
      int64_t total = 0;
      if ((args.code_of(i) & kMaskForm) == 0) {
        mean[i] = 1;
        continue;
      }
      for (int64_t y = 0, sum = 0; y < height; ++y) {
        const float* line = lines.line(i, y);
        if (!lines.again()) sum = kernels().masks.sum(line, width);
        total += sum;
      }
      mean[i] = mean_of_mask(total, int(height), int(width));
    }
  });
  for (int64_t i = masks; i < batch; ++i) mean[i] = mean[0];
  return out;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("mix_masked", TORCH_BOX(&fused_mixup::mix_masked));
  m.impl("mix_masked_out", TORCH_BOX(&fused_mixup::mix_masked_out));
  m.impl("mix_masked_", TORCH_BOX(&fused_mixup::mix_masked_));
  m.impl("mix_masked_backward", TORCH_BOX(&fused_mixup::mix_masked_backward));
  m.impl("mask_mean", TORCH_BOX(&fused_mixup::mask_mean));
}
