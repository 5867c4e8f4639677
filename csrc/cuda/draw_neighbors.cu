// draw_neighbors for CUDA tensors. Kernel: draw_neighbors.cuh.
#include "../common/draw_arguments.h"
#include "binding.h"
#include "draw_neighbors.cuh"

namespace fused_mixup {
namespace {

Tensor draw_neighbors_on_device(Tensor state,         // int64 [4]
                                Tensor settings,      // float64 [1]
                                Tensor labels,        // [B, D]
                                OptionalTensor pool,  // [N, D]
                                int64_t kernel) {
  const Guard guard = guard_of(state);
  check_draw_neighbors(state, settings, labels, pool, kernel);
  const Tensor& others = pool ? *pool : labels;
  const Tensor partner = torch::stable::new_empty(state, {labels.size(0)}, ScalarType::Int);
  NeighborLaunch a = {};
  a.state = static_cast<int64_t*>(state.data_ptr());
  if (settings.is_cpu()) {  // the bandwidth travels with the launch
    a.bandwidth = *static_cast<const double*>(settings.data_ptr());
  } else {
    a.settings = static_cast<const double*>(settings.data_ptr());
  }
  a.kernel = static_cast<int>(kernel);
  a.labels = labels.data_ptr();
  a.pool = pool ? pool->data_ptr() : nullptr;
  for (int d = 0; d < 2; ++d) {
    a.label_stride[d] = labels.stride(d);
    a.pool_stride[d] = others.stride(d);
  }
  a.batch = labels.size(0);
  a.count = others.size(0);
  a.dims = labels.size(1);
  a.partner = static_cast<int32_t*>(partner.data_ptr());
  a.most_blocks = kNeighborBlocks;
  a.stream = current_stream(state);
  check(labels.scalar_type() == ScalarType::Double ? draw_neighbors<double>(a)
                                                   : draw_neighbors<float>(a));
  return partner;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CUDA, m) {
  m.impl("draw_neighbors", TORCH_BOX(&draw_neighbors_on_device));
}

}  // namespace fused_mixup
