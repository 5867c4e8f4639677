// mix_, mix, mix_out, mix_backward, paste_ on the CPU: turns arguments of PyTorch's stable ABI into
// rows of the plan and calls the walks.
#include <algorithm>

#include "dispatch.h"
#include "mix_binding.h"
#include "mix_in_place.h"
#include "mix_out_of_place.h"

namespace fused_mixup {
namespace {

// move: values are moved and never blended, so that only their size matters.
void run_in_place(const Tensor& x,                                      // [B, …]
                  const std::vector<PlanRow>& rows, const Tensor& box,  // int32 [B, 2·D]
                  bool move) {
  expect_writable("x", x);
  if (x.numel() == 0) return;
  const int spatial = any_box(rows) ? spatial_of(box) : 0;
  const Layout layout = layout_of(x, x, spatial);
  const auto run = [&](auto tag) {
    using T = typename decltype(tag)::type;
    mix_in_place(data<T>(x), x.stride(0), layout, spatial, rows);
  };
  move ? dispatch_size(x.element_size(), run) : dispatch_blendable(x.scalar_type(), run);
}

void run_out_of_place(const Tensor& out,                                    // [B, …]
                      const Tensor& x,                                      // [B, …]
                      const std::vector<PlanRow>& rows, const Tensor& box,  // int32 [B, 2·D]
                      const Sources& from) {
  if (x.numel() == 0) return;
  if (from.transposed) {
    const auto plain = transposed_rows(rows, from);
    if (!plain.empty()) return run_out_of_place(out, x, plain, box, {});
  }
  const Layout layout = layout_of(out, x, any_box(rows) ? spatial_of(box) : 0);
  dispatch_blendable(x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* values = data<T>(x);
    mix_out_of_place(data<T>(out), out.stride(0), values, x.stride(0), layout, rows, from);
  });
}

void mix_(Tensor x,                // [B, …]
          OptionalTensor partner,  // int32 [B]
          Tensor blend,            // float64 [B, 2]
          Tensor box,              // int32 [B, 2·D]
          int64_t pairing) {
  const auto rows = rows_of(x, x.size(0), pairing, partner, &blend, box);
  run_in_place(x, rows, box, false);
}

void paste_(Tensor x,                // [B, …]
            OptionalTensor partner,  // int32 [B]
            Tensor box,              // int32 [B, 2·D]
            int64_t pairing) {
  const auto rows = rows_of(x, x.size(0), pairing, partner, nullptr, box);
  run_in_place(x, rows, box, true);
}

void mix_into(const Tensor& out, const Tensor& x, const OptionalTensor& partner,
              const Tensor& blend, const Tensor& box, int64_t pairing) {
  run_out_of_place(out, x, rows_of(x, x.size(0), pairing, partner, &blend, box), box, {});
}

void mix_out(Tensor x,                // [B, …]
             OptionalTensor partner,  // int32 [B]
             Tensor blend,            // float64 [B, 2]
             Tensor box,              // int32 [B, 2·D]
             int64_t pairing,
             Tensor out) {  // [B, …]
  check_out(out, x);
  if (out.is_contiguous()) on_large_pages(out);
  mix_into(out, x, partner, blend, box, pairing);
}

Tensor mix(Tensor x,                // [B, …]
           OptionalTensor partner,  // int32 [B]
           Tensor blend,            // float64 [B, 2]
           Tensor box,              // int32 [B, 2·D]
           int64_t pairing) {
  Tensor out = new_result_like(x);
  mix_into(out, x, partner, blend, box, pairing);
  return out;
}

Tensor mix_backward(Tensor grad,             // [B, …]
                    OptionalTensor partner,  // int32 [B]
                    OptionalTensor sources,  // int32 [B]
                    OptionalTensor offsets,  // int32 [B+1]
                    Tensor blend,            // float64 [B, 2]
                    Tensor box,              // int32 [B, 2·D]
                    int64_t pairing) {
  Tensor out = new_result_like(grad);
  const int64_t batch = grad.size(0);
  const auto rows = rows_of(grad, batch, pairing, partner, &blend, box);
  check_transpose(pairing, sources, offsets, grad);
  const Sources from = sources_of(rows, pairing, sources, offsets);
  run_out_of_place(out, grad, rows, box, from);
  return out;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("mix_", TORCH_BOX(&fused_mixup::mix_));
  m.impl("mix", TORCH_BOX(&fused_mixup::mix));
  m.impl("mix_out", TORCH_BOX(&fused_mixup::mix_out));
  m.impl("mix_backward", TORCH_BOX(&fused_mixup::mix_backward));
  m.impl("paste_", TORCH_BOX(&fused_mixup::paste_));
}
