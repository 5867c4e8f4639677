// Thread-block clusters (sm_90 on): blocks that run at the same time, wait for each other at one
// barrier and read each other's shared memory.
//
// Like launch.cuh this file holds what the host replaces (tests/host_cuda/clusters.h):
//
//   launch_clusters      cudaLaunchKernelEx with cluster dims; the host runs the blocks of a
//   cluster
//                        together
//   resident_clusters    cudaOccupancyMaxActiveClusters; a small number on the host
//   cluster_rank         %cluster_ctarank: the number of a block in its cluster
//   cluster_blocks       %cluster_nctaid: how many blocks a cluster has
//   cluster_arrive       barrier.cluster.arrive.release
//   cluster_wait         barrier.cluster.wait.acquire
//   remote_load          mapa, then ld.shared::cluster
//
// Rules that the host checks: every thread of a cluster arrives and waits in turn; a block reads
// another's shared memory only after both passed a barrier, and what the other wrote only after it
// arrived; a block ends only after a barrier at which its readers arrived.
#pragma once

#include <cstring>

#include "launch.cuh"
#ifdef FUSED_MIXUP_HOST
#include "clusters.h"
#endif

namespace fused_mixup {

constexpr int kMostClusterBlocks = 8;  // every GPU that has clusters runs this many

#ifndef FUSED_MIXUP_HOST
// Kernels of clusters are empty on older GPUs, where nothing launches them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kHasClusters = false;
#else
constexpr bool kHasClusters = true;
#endif

// Sets up a launch of clusters: it refers to `attribute`.
inline cudaLaunchConfig_t cluster_config(int64_t clusters, int blocks, dim3 block, size_t shared,
                                         cudaStream_t stream, cudaLaunchAttribute* attribute) {
  attribute->id = cudaLaunchAttributeClusterDimension;
  attribute->val.clusterDim.x = static_cast<unsigned>(blocks);
  attribute->val.clusterDim.y = attribute->val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(clusters * blocks));
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = attribute;
  config.numAttrs = 1;
  return config;
}

// Starts `clusters` clusters of `blocks` blocks each.
template <typename... Params, typename... Args>
cudaError_t launch_clusters(void (*kernel)(Params...), int64_t clusters, int blocks, dim3 block,
                            size_t shared, cudaStream_t stream, const Args&... args) {
  if (clusters * blocks > kMaxBlocks) return kTooManyBlocks;
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config =
      cluster_config(clusters, blocks, block, shared, stream, &attribute);
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, Params(args)...);
  return error != cudaSuccess ? error : cudaGetLastError();
}

// How many clusters run at once, with so much shared memory per block; opts in to that much.
template <typename... Params>
cudaError_t resident_clusters(void (*kernel)(Params...), int blocks, dim3 block, size_t shared,
                              int* clusters) {
  const void* entry = reinterpret_cast<const void*>(kernel);
  const cudaError_t refused = allow_shared(entry, shared);
  if (refused != cudaSuccess) return refused;
  cudaLaunchAttribute attribute;
  const cudaLaunchConfig_t config = cluster_config(1, blocks, block, shared, nullptr, &attribute);
  return cudaOccupancyMaxActiveClusters(clusters, entry, &config);
}

__device__ __forceinline__ int cluster_rank() {
  unsigned rank = 0;
#if __CUDA_ARCH__ >= 900
  asm("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
#endif
  return static_cast<int>(rank);
}

__device__ __forceinline__ int cluster_blocks() {
  unsigned blocks = 1;
#if __CUDA_ARCH__ >= 900
  asm("mov.u32 %0, %%cluster_nctaid.x;\n" : "=r"(blocks));
#endif
  return static_cast<int>(blocks);
}

// A thread says that it is done with what others wait for; what it wrote is seen after their wait.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\n" ::: "memory");
#endif
}

// Waits until all threads of the cluster have arrived.
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire;\n" ::: "memory");
#endif
}

// What stands at the place of *shared, this block's own, in block `rank` of the cluster.
template <typename T>
__device__ __forceinline__ T remote_load(const T* shared, int rank) {
  static_assert(sizeof(T) == 4, "words of 4 bytes");
  uint32_t bits = 0;
#if __CUDA_ARCH__ >= 900
  const unsigned own = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  unsigned there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(there) : "r"(own), "r"(rank));
  asm volatile("ld.shared::cluster.u32 %0, [%1];\n" : "=r"(bits) : "r"(there) : "memory");
#else
  (void)shared;
  (void)rank;
#endif
  T value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
#endif  // FUSED_MIXUP_HOST

}  // namespace fused_mixup
