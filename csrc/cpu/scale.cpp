// scale_ on the CPU: x *= factor in one pass, or in none where the factor is one.
#include "binding.h"
#include "dispatch.h"
#include "kernels.h"

namespace fused_mixup {
namespace {

void scale_(Tensor x,         // […]
            Tensor factor) {  // []
  const int64_t numel = x.numel();
  check_scale(x, factor);
  if (numel == 0) return;
  const Layout layout =
      make_layout(x.sizes().data(), x.strides().data(), x.strides().data(), int(x.dim()), 0);
  const int inner = layout.ndim - 1;
  const int64_t length = inner < 0 ? 1 : layout.size[inner];
  const int64_t step = inner < 0 ? 1 : layout.dst_stride[inner];
  // Runs of the innermost dim, divided into pieces so that threads share a long run.
  const int64_t piece = std::min<int64_t>(length, 32768), pieces = (length + piece - 1) / piece;
  dispatch_floating(x.scalar_type(), [&](auto tag) {
    using L = typename decltype(tag)::type;
    const acc_t<L> by = *data<acc_t<L>>(factor);
    if (by == 1) return;
    L* const values = data<L>(x);
    const auto work = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t skipped = i % pieces * piece, n = std::min(piece, length - skipped);
        L* at = values + skipped * step;
        int64_t rest = i / pieces;
        for (int k = inner - 1; k >= 0; --k) {
          at += rest % layout.size[k] * layout.dst_stride[k];
          rest /= layout.size[k];
        }
        if (step == 1) {
          logit_kernels<L>().scale(at, n, by);
          continue;
        }
        for (int64_t j = 0; j < n; ++j) at[j * step] = from_float<L>(to_float(at[j * step]) * by);
      }
    };
    parallel_for(0, numel / length * pieces, 1 + 32768 / piece, work);
  });
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("scale_", TORCH_BOX(&fused_mixup::scale_));
}
