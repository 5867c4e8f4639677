// mix_, mix, mix_out, mix_backward, paste_ on the CPU: arguments of PyTorch's stable ABI to rows of
// the plan, and on to the walks.
#include <algorithm>

#include "mix_binding.h"
#include "mix_in_place.h"
#include "mix_out_of_place.h"

namespace fused_mixup {
namespace {

// As dispatch_dtype, by size alone, where values only move.
template <typename F>
void dispatch_size(size_t bytes, const F& f) {
  switch (bytes) {
    case 1:
      return f(static_cast<uint8_t*>(nullptr));
    case 2:
      return f(static_cast<Half*>(nullptr));
    case 4:
      return f(static_cast<float*>(nullptr));
    case 8:
      return f(static_cast<double*>(nullptr));
    case 16:
      return f(static_cast<Bits128*>(nullptr));
    default:
      STD_TORCH_CHECK(false, "fused_mixup: element size that cannot be moved");
  }
}

void run_in_place(const Tensor& x, const std::vector<PlanRow>& rows, const Tensor& box, bool bits) {
  expect_writable("x", x);
  if (x.numel() == 0) return;
  const int spatial = any_box(rows) ? spatial_of(box) : 0;
  const Layout layout = layout_of(x, x, spatial);
  const auto run = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    mix_in_place(static_cast<T*>(x.data_ptr()), x.stride(0), layout, spatial, rows);
  };
  bits ? dispatch_size(x.element_size(), run) : dispatch_dtype(x.scalar_type(), run);
}

void run_out_of_place(const Tensor& out, const Tensor& x, const std::vector<PlanRow>& rows,
                      const Tensor& box, const Sources& from) {
  if (x.numel() == 0) return;
  const Layout layout = layout_of(out, x, any_box(rows) ? spatial_of(box) : 0);
  dispatch_dtype(x.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    mix_out_of_place(static_cast<T*>(out.data_ptr()), out.stride(0),
                     static_cast<const T*>(x.data_ptr()), x.stride(0), layout, rows, from);
  });
}

void mix_(Tensor x, OptionalTensor partner, Tensor blend, Tensor box, int64_t pairing) {
  const auto rows = rows_of(x, x.size(0), pairing, partner, &blend, box);
  run_in_place(x, rows, box, false);
}

void paste_(Tensor x, OptionalTensor partner, Tensor box, int64_t pairing) {
  const auto rows = rows_of(x, x.size(0), pairing, partner, nullptr, box);
  run_in_place(x, rows, box, true);
}

void mix_into(const Tensor& out, const Tensor& x, const OptionalTensor& partner,
              const Tensor& blend, const Tensor& box, int64_t pairing) {
  run_out_of_place(out, x, rows_of(x, x.size(0), pairing, partner, &blend, box), box, {});
}

void mix_out(Tensor x, OptionalTensor partner, Tensor blend, Tensor box, int64_t pairing,
             Tensor out) {
  check_out(out, x);
  if (out.is_contiguous()) on_large_pages(out);
  mix_into(out, x, partner, blend, box, pairing);
}

Tensor mix(Tensor x, OptionalTensor partner, Tensor blend, Tensor box, int64_t pairing) {
  Tensor out = new_result_like(x);
  mix_into(out, x, partner, blend, box, pairing);
  return out;
}

Tensor mix_backward(Tensor grad, OptionalTensor partner, OptionalTensor sources,
                    OptionalTensor offsets, Tensor blend, Tensor box, int64_t pairing) {
  Tensor out = new_result_like(grad);
  const int64_t batch = grad.size(0);
  const auto rows = rows_of(grad, batch, pairing, partner, &blend, box);
  check_transpose(pairing, sources, offsets, grad);
  const bool listed = pairing == kTensor;
  const Tensor near_sources = listed ? as_contiguous(*sources) : box;
  const Tensor near_offsets = listed ? as_contiguous(*offsets) : box;
  const int32_t* source = static_cast<const int32_t*>(near_sources.data_ptr());
  const int32_t* offset = static_cast<const int32_t*>(near_offsets.data_ptr());
  Sources from;
  from.transposed = true;
  from.offsets.resize(batch + 1);
  from.sources.resize(batch);
  for (int64_t j = 0; j < batch; ++j) {
    if (listed) {  // values from the caller are clamped, as partners are
      from.offsets[j + 1] = std::clamp<int64_t>(offset[j + 1], 0, batch);
      from.sources[j] = partner_of(kTensor, source, j, batch);
    } else {
      from.offsets[j + 1] = j + 1;
      from.sources[rows[j].partner] = j;
    }
  }
  run_out_of_place(out, grad, rows, box, from);
  return out;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CPU, m) {
  m.impl("mix_", TORCH_BOX(&fused_mixup::mix_));
  m.impl("mix", TORCH_BOX(&fused_mixup::mix));
  m.impl("mix_out", TORCH_BOX(&fused_mixup::mix_out));
  m.impl("mix_backward", TORCH_BOX(&fused_mixup::mix_backward));
  m.impl("paste_", TORCH_BOX(&fused_mixup::paste_));
}
