// The one switch of kernels that no GPU has run yet: FUSED_MIXUP_EXPERIMENTAL=1 turns them on.
//
// Bindings ask here and pass the answer on as a plain argument: kernels and their launches read no
// environment. A path leaves this switch for the default once a run on its hardware has passed.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace fused_mixup {

// Read from the environment once. `make gpu` flips it between calls, to compare both paths.
inline std::atomic<bool>& experimental_switch() {
  static std::atomic<bool> on = [] {
    const char* value = std::getenv("FUSED_MIXUP_EXPERIMENTAL");
    return value != nullptr && std::strcmp(value, "1") == 0;
  }();
  return on;
}

inline bool experimental() { return experimental_switch().load(std::memory_order_relaxed); }

// The architecture, such as 90, for which the code of a kernel that runs here was compiled. It may
// be older than the GPU, where the driver has made it from PTX; kernels that need more are empty
// then, and must not be launched. 0 where CUDA does not tell.
template <typename... Params>
int compiled_arch(void (*kernel)(Params...)) {
  cudaFuncAttributes attributes = {};
  if (cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel)) == cudaSuccess) {
    return attributes.ptxVersion;
  }
  cudaGetLastError();  // the next launch would report it
  return 0;
}

}  // namespace fused_mixup
