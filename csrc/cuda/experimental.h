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

// Ten times the compute capability of the current device, such as 90; 0 where CUDA does not tell.
inline int compute_capability() {
  int device = 0, major = 0, minor = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
    return 0;
  }
  return 10 * major + minor;
}

}  // namespace fused_mixup
