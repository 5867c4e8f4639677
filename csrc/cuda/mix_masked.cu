// mix_masked, mix_masked_, mix_masked_out, mix_masked_backward and mask_mean for CUDA tensors.
// Kernels: mix_masked.cuh, mask_mean.cuh.
#include "../common/mask_arguments.h"
#include "binding.h"
#include "mask_mean.cuh"
#include "mix_masked.cuh"

namespace fused_mixup {
namespace {

// The tensors of a mask, as every op takes them.
struct MaskInputs {
  const OptionalTensor& code;       // int32 [B]
  const OptionalTensor& threshold;  // float32 [B]
  const OptionalTensor& rows;       // float32 [B, R, H]
  const OptionalTensor& columns;    // float32 [B, R, W]
  const OptionalTensor& map;        // [B, h, w]
  int64_t interpolation;

  MaskTensors tensors(int64_t batch, int64_t height, int64_t width, const Tensor& like) const {
    return {code, threshold, rows, columns, map, interpolation, batch, height, width, like};
  }
};

// The tensors of a plan, as every op takes them.
struct PlanInputs {
  const OptionalTensor& partner;  // int32 [B]
  const Tensor& blend;            // float64 [B, 2]
  const Tensor& box;              // int32 [B, 2D]
  int64_t pairing;
};

// What only some ops have.
struct Extras {
  const OptionalTensor* sources = nullptr;  // int32 [B]
  const OptionalTensor* offsets = nullptr;  // int32 [B+1]
  const OptionalTensor* other = nullptr;    // [M, …]
  bool clean = false;                       // dst is [2B, …], and takes src first
};

void run(const Tensor& dst,  // [B or 2B, …]
         const Tensor& src,  // [B, …]
         const PlanInputs& plan, const MaskInputs& mask, const Extras& extras,
         cudaError_t (*launch_mix)(const MixMaskedArgs&)) {
  const Guard guard = guard_of(src);
  const int64_t batch = src.size(0), dims = src.dim() - 1;
  check_plan(src, batch, plan.pairing, plan.partner, &plan.blend, plan.box);
  const OptionalTensor none;
  const OptionalTensor& other = extras.other != nullptr ? *extras.other : none;
  check_masked(src, other, mask.code, plan.pairing);
  const bool masks = mask.code.has_value();
  const int64_t height = masks ? src.size(dims - 1) : 1, width = masks ? src.size(dims) : 1;
  const MaskTensors mask_tensors = mask.tensors(batch, height, width, src);
  if (src.numel() == 0) return;
  KeptTensors kept;
  int32_t box_row[2 * kMaxSpatial];
  MixMaskedArgs a = {};
  a.dtype = dtype_of(src.scalar_type());
  char* written = static_cast<char*>(dst.data_ptr());
  if (extras.clean) {
    a.clean = written;
    written += batch * dst.stride(0) * static_cast<int64_t>(dst.element_size());
  }
  a.samples = {written,
               src.const_data_ptr(),
               batch,
               dst.stride(0),
               src.stride(0),
               static_cast<int>(dims),
               src.sizes().data() + 1,
               dst.strides().data() + 1,
               src.strides().data() + 1};
  if (other) {
    a.other = other->const_data_ptr();
    a.others = other->size(0);
    a.other_batch_stride = other->stride(0);
    a.other_strides = other->strides().data() + 1;
  }
  a.pairing = static_cast<int>(plan.pairing);
  if (plan.pairing == kTensor) {
    a.partner = kept.device_data<int32_t>(*plan.partner, src);
    if (extras.sources != nullptr) {
      a.sources = kept.device_data<int32_t>(**extras.sources, src);
      a.offsets = kept.device_data<int32_t>(**extras.offsets, src);
    }
  }
  a.blend = kept.device_pairs<double>(plan.blend, src, a.blend_row);
  const int64_t spatial = plan.box.size(1) / 2;
  a.spatial = static_cast<int>(spatial);
  if (spatial > 0 && is_host_row(plan.box)) {
    for (int64_t k = 0; k < 2 * spatial; ++k) {
      box_row[k] = data<int32_t>(plan.box)[k * plan.box.stride(1)];
    }
    a.box_row = box_row;
  } else if (spatial > 0) {
    a.box = kept.device_data<int32_t>(plan.box, src);
  }
  a.mask = mask_tensors.args;
  a.stream = current_stream(src);
  check(launch_mix(a));
}

Tensor mix_masked(Tensor x,                // [B, …, H, W]
                  OptionalTensor partner,  // int32 [B]
                  Tensor blend,            // float64 [B, 2]
                  Tensor box,              // int32 [B, 2D]
                  int64_t pairing,
                  OptionalTensor code,       // int32 [B]
                  OptionalTensor threshold,  // float32 [B]
                  OptionalTensor rows,       // float32 [B, R, H]
                  OptionalTensor columns,    // float32 [B, R, W]
                  OptionalTensor map,        // [B, h, w]
                  int64_t interpolation) {
  Tensor out = torch::stable::empty_like(x);
  run(out, x, {partner, blend, box, pairing}, {code, threshold, rows, columns, map, interpolation},
      {}, mix_masked_outplace);
  return out;
}

void mix_masked_(Tensor x,                // [B, …, H, W]
                 OptionalTensor partner,  // none
                 Tensor blend,            // float64 [B, 2]
                 Tensor box,              // int32 [B, 2D]
                 int64_t pairing,
                 OptionalTensor code,       // int32 [B]
                 OptionalTensor threshold,  // float32 [B]
                 OptionalTensor rows,       // float32 [B, R, H]
                 OptionalTensor columns,    // float32 [B, R, W]
                 OptionalTensor map,        // [B, h, w]
                 int64_t interpolation) {
  expect(pairing == kFlip || pairing == kSelf, "pairing", "1 or 3, flip or self, in place");
  expect_writable("x", x);
  run(x, x, {partner, blend, box, pairing}, {code, threshold, rows, columns, map, interpolation},
      {}, mix_masked_inplace);
}

void mix_masked_out(Tensor x,                // [B, …, H, W]
                    OptionalTensor other,    // [M, …, H, W]
                    OptionalTensor partner,  // int32 [B]
                    Tensor blend,            // float64 [B, 2]
                    Tensor box,              // int32 [B, 2D]
                    int64_t pairing,
                    OptionalTensor code,       // int32 [B]
                    OptionalTensor threshold,  // float32 [B]
                    OptionalTensor rows,       // float32 [B, R, H]
                    OptionalTensor columns,    // float32 [B, R, W]
                    OptionalTensor map,        // [B, h, w]
                    int64_t interpolation, bool clean,
                    Tensor out) {  // [B or 2B, …, H, W]
  check_masked_out(out, x, other, clean);
  if (other) expect_apart(out, *other);
  Extras extras;
  extras.other = &other;
  extras.clean = clean;
  run(out, x, {partner, blend, box, pairing}, {code, threshold, rows, columns, map, interpolation},
      extras, mix_masked_outplace);
}

Tensor mix_masked_backward(Tensor grad,             // [B, …, H, W]
                           OptionalTensor partner,  // int32 [B]
                           OptionalTensor sources,  // int32 [B]
                           OptionalTensor offsets,  // int32 [B+1]
                           Tensor blend,            // float64 [B, 2]
                           Tensor box,              // int32 [B, 2D]
                           int64_t pairing,
                           OptionalTensor code,       // int32 [B]
                           OptionalTensor threshold,  // float32 [B]
                           OptionalTensor rows,       // float32 [B, R, H]
                           OptionalTensor columns,    // float32 [B, R, W]
                           OptionalTensor map,        // [B, h, w]
                           int64_t interpolation) {
  check_transpose(pairing, sources, offsets, grad);
  Tensor out = torch::stable::empty_like(grad);
  Extras extras;
  extras.sources = &sources;
  extras.offsets = &offsets;
  run(out, grad, {partner, blend, box, pairing},
      {code, threshold, rows, columns, map, interpolation}, extras, mix_masked_transposed);
  return out;
}

Tensor mean_of_masks(Tensor code,             // int32 [B]
                     Tensor threshold,        // float32 [B]
                     OptionalTensor rows,     // float32 [B, R, H]
                     OptionalTensor columns,  // float32 [B, R, W]
                     OptionalTensor map,      // [B, h, w]
                     int64_t interpolation, int64_t height, int64_t width) {
  const Guard guard = guard_of(code);
  expect(code.dim() == 1, "code", "shape [B]");
  const OptionalTensor codes = code, thresholds = threshold;
  const int64_t batch = code.size(0);
  const MaskTensors masks(codes, thresholds, rows, columns, map, interpolation, batch, height,
                          width, code);
  Tensor out = torch::stable::new_empty(code, {batch}, ScalarType::Float);
  MaskMeanArgs a = {};
  a.mask = masks.args;
  a.batch = batch;
  a.out = static_cast<float*>(out.data_ptr());
  a.stream = current_stream(code);
  check(mask_mean(a));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("mix_masked", TORCH_BOX(&mix_masked));
  m.impl("mix_masked_", TORCH_BOX(&mix_masked_));
  m.impl("mix_masked_out", TORCH_BOX(&mix_masked_out));
  m.impl("mix_masked_backward", TORCH_BOX(&mix_masked_backward));
  m.impl("mask_mean", TORCH_BOX(&mean_of_masks));
}

}  // namespace fused_mixup
