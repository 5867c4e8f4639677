// What csrc/cuda/cluster.cuh provides: clusters of blocks, whose barrier and remote reads stand in
// cluster_barrier.cpp.
#pragma once

#include "machine.h"

namespace fused_mixup {

constexpr bool kHasClusters = true;

template <typename... Params, typename... Args>
cudaError_t launch_clusters(void (*kernel)(Params...), int64_t clusters, int blocks, dim3 block,
                            size_t shared, cudaStream_t, const Args&... args) {
  if (clusters * blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
  const auto call = [&] { kernel(args...); };
  return host_cuda::run(
      dim3(static_cast<unsigned>(clusters * blocks)), block, shared,
      reinterpret_cast<const void*>(kernel),
      [](const void* c) { (*static_cast<const decltype(call)*>(c))(); }, &call,
      static_cast<unsigned>(blocks));
}

template <typename... Params>
cudaError_t resident_clusters(void (*)(Params...), int, dim3, size_t, int* clusters) {
  *clusters = host_cuda::resident_clusters();
  return cudaSuccess;
}

inline int cluster_rank() { return host_cuda::cluster_rank(); }
inline int cluster_blocks() { return host_cuda::cluster_blocks(); }
inline void cluster_arrive(Site site = Site::here()) { host_cuda::cluster_arrive(site); }
inline void cluster_wait(Site site = Site::here()) { host_cuda::cluster_wait(site); }

template <typename T>
T remote_load(const T* shared, int rank) {
  static_assert(sizeof(T) == 4, "words of 4 bytes");
  return *static_cast<const T*>(host_cuda::remote_shared(shared, rank));
}

}  // namespace fused_mixup
