// scale_ for CUDA tensors. Kernel: scale.cuh.
#include <vector>

#include "binding.h"
#include "scale.cuh"

namespace fused_mixup {
namespace {

void scale_(Tensor x,         // […]
            Tensor factor) {  // []
  if (x.numel() == 0) return;
  const Guard guard = guard_of(x);
  check_scale(x, factor);
  const Tensor near = near_to(factor, x);
  const std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
  const std::vector<int64_t> strides(x.strides().begin(), x.strides().end());
  const int ndim = static_cast<int>(x.dim());
  ScaleArgs a = {};
  a.dtype = dtype_of(x.scalar_type());
  a.factor = near.const_data_ptr();
  // A tensor without dims is one sample without dims.
  const int rest = ndim > 0 ? 1 : 0;
  a.samples = {x.data_ptr(),
               x.data_ptr(),
               ndim > 0 ? sizes[0] : 1,
               ndim > 0 ? strides[0] : 0,
               ndim > 0 ? strides[0] : 0,
               ndim - rest,
               sizes.data() + rest,
               strides.data() + rest,
               strides.data() + rest};
  a.stream = current_stream(x);
  check(scale(a));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) { m.impl("scale_", TORCH_BOX(&scale_)); }

}  // namespace fused_mixup
