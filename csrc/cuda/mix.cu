// mix_, mix, mix_out, mix_backward and paste_ for CUDA tensors. Kernels: mix.cuh.
#include "binding.h"
#include "experimental.h"
#include "mix.cuh"

namespace fused_mixup {
namespace {

// The arguments of one call, and what they point into.
struct MixCall : KeptTensors {
  MixArgs args = {};
  OptionalTensor scratch;
  int32_t box_row[2 * kMaxSpatial];
};

// Smaller batches end before a ring has turned.
constexpr int64_t kLeastForRing = int64_t{16} << 20;

// Blocks of mix_ring.cuh; 0 where it is not to be used.
int ring_blocks(int64_t bytes) {
  int device = 0, count = 0;
  if (bytes < kLeastForRing || cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    return 0;
  }
  return count;
}

void run(const Tensor& dst,              // [B, …]
         const Tensor& src,              // [B, …]
         const OptionalTensor& partner,  // int32 [B]
         const OptionalTensor& sources,  // int32 [B]
         const OptionalTensor& offsets,  // int32 [B+1]
         const OptionalTensor& blend,    // float64 [B, 2]; none to paste the box alone
         const Tensor& box,              // int32 [B, 2D]
         int64_t pairing, cudaError_t (*launch_mix)(const MixArgs&)) {
  const Guard guard = guard_of(dst);
  const int64_t batch = dst.size(0), dims = dst.dim() - 1;
  check_plan(dst, batch, pairing, partner, blend.has_value() ? &*blend : nullptr, box);
  if (dst.data_ptr() == src.const_data_ptr()) expect_writable("x", dst);
  if (dst.numel() == 0) return;
  MixCall call;
  MixArgs& a = call.args;
  a.dtype = blend.has_value() ? dtype_of(dst.scalar_type()) : kUInt8;
  a.element_size = static_cast<int>(dst.element_size());
  a.samples = {dst.data_ptr(),
               src.const_data_ptr(),
               batch,
               dst.stride(0),
               src.stride(0),
               static_cast<int>(dims),
               dst.sizes().data() + 1,
               dst.strides().data() + 1,
               src.strides().data() + 1};
  a.pairing = static_cast<int>(pairing);
  if (pairing == kTensor) {
    a.partner = call.device_data<int32_t>(*partner, dst);
    if (sources.has_value() && offsets.has_value()) {
      a.sources = call.device_data<int32_t>(*sources, dst);
      a.offsets = call.device_data<int32_t>(*offsets, dst);
    }
  }
  a.blend_row[0] = 1.0;
  if (blend.has_value()) a.blend = call.device_pairs<double>(*blend, dst, a.blend_row);
  const int64_t spatial = box.size(1) / 2;
  a.spatial = static_cast<int>(spatial);
  if (spatial > 0 && is_host_row(box)) {
    for (int64_t k = 0; k < 2 * spatial; ++k) {
      call.box_row[k] = data<int32_t>(box)[k * box.stride(1)];
    }
    a.box_row = call.box_row;
  } else if (spatial > 0) {
    a.box = call.device_data<int32_t>(box, dst);
  }
  a.shared_limit = shared_limit();
  const bool drawn = a.blend != nullptr || a.box != nullptr || a.partner != nullptr;
  // One answer for all kernels of this file: they are compiled together.
  const int arch = experimental() ? compiled_arch(pair_kernel<float, 4, false, false>) : 0;
  a.starts_early = drawn && arch >= 90;
  a.ring_blocks = arch >= 90 ? ring_blocks(dst.numel() * dst.element_size()) : 0;
  a.wide = arch >= 100;
  if (a.samples.dst == a.samples.src && needs_scratch(a)) {
    call.scratch = torch::stable::new_empty(dst, {2 * batch}, ScalarType::Int);
    a.scratch = static_cast<int32_t*>(call.scratch->data_ptr());
  }
  a.stream = current_stream(dst);
  check(launch_mix(a));
}

void mix_(Tensor x,                // [B, …]
          OptionalTensor partner,  // int32 [B]
          Tensor blend,            // float64 [B, 2]
          Tensor box,              // int32 [B, 2D]
          int64_t pairing) {
  run(x, x, partner, std::nullopt, std::nullopt, blend, box, pairing, mix_inplace);
}

void mix_out(Tensor x,                // [B, …]
             OptionalTensor partner,  // int32 [B]
             Tensor blend,            // float64 [B, 2]
             Tensor box,              // int32 [B, 2D]
             int64_t pairing,
             Tensor out) {  // [B, …]
  check_out(out, x);
  run(out, x, partner, std::nullopt, std::nullopt, blend, box, pairing, mix_outplace);
}

Tensor mix(Tensor x,                // [B, …]
           OptionalTensor partner,  // int32 [B]
           Tensor blend,            // float64 [B, 2]
           Tensor box,              // int32 [B, 2D]
           int64_t pairing) {
  Tensor out = torch::stable::empty_like(x);
  run(out, x, partner, std::nullopt, std::nullopt, blend, box, pairing, mix_outplace);
  return out;
}

Tensor mix_backward(Tensor grad,             // [B, …]
                    OptionalTensor partner,  // int32 [B]
                    OptionalTensor sources,  // int32 [B]
                    OptionalTensor offsets,  // int32 [B+1]
                    Tensor blend,            // float64 [B, 2]
                    Tensor box,              // int32 [B, 2D]
                    int64_t pairing) {
  check_transpose(pairing, sources, offsets, grad);
  Tensor out = torch::stable::empty_like(grad);
  run(out, grad, partner, sources, offsets, blend, box, pairing, mix_transposed);
  return out;
}

void paste_(Tensor x,                // [B, …]
            OptionalTensor partner,  // int32 [B]
            Tensor box,              // int32 [B, 2D]
            int64_t pairing) {
  run(x, x, partner, std::nullopt, std::nullopt, std::nullopt, box, pairing,
      [](const MixArgs& a) { return paste_inplace(a); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("mix_", TORCH_BOX(&mix_));
  m.impl("mix", TORCH_BOX(&mix));
  m.impl("mix_out", TORCH_BOX(&mix_out));
  m.impl("mix_backward", TORCH_BOX(&mix_backward));
  m.impl("paste_", TORCH_BOX(&paste_));
}

}  // namespace fused_mixup
