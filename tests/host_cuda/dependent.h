// What csrc/cuda/dependent.cuh provides. Kernels run one after the other here; what is checked is
// that a dependent one awaits the kernel in front of it, in every thread, before any access to
// global memory (launches.cpp).
#pragma once

#include "machine.h"

namespace fused_mixup {

template <typename... Params, typename... Args>
cudaError_t launch_dependent(bool early, void (*kernel)(Params...), int64_t blocks, dim3 block,
                             size_t shared, cudaStream_t stream, const Args&... args) {
  if (early) host_cuda::next_starts_early();
  return launch(kernel, blocks, block, shared, stream, args...);
}

inline void await_earlier(Site site = Site::here()) { host_cuda::await_earlier(site); }
inline void let_next_start() {}

}  // namespace fused_mixup
