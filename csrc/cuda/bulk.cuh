// Bulk copies between global and shared memory, and the barriers on which they complete (Hopper).
//
// A bulk copy moves a run of memory without registers and without threads that wait. Addresses and
// sizes are multiples of 16. Each function stands here with what the host runs in its place
// (tests/host_cuda/bulk.h), which moves the bytes as late as a GPU may:
//
//   barrier_init         mbarrier.init: for the arrivals of `count` threads in each phase
//   barrier_arrive       mbarrier.arrive.expect_tx: one arrival, and the bytes that copies will
//   bring barrier_wait         mbarrier.try_wait.parity: until the phase of that parity has its
//   arrivals
//                        and bytes
//   fence_proxy_async    fence.proxy.async: what this thread wrote to shared memory (barriers,
//   values)
//                        is seen by copies that start after the next barrier
//   bulk_load            cp.async.bulk from global to shared memory, completing on a barrier
//   bulk_store           cp.async.bulk from shared to global memory, in the open group of the
//   thread bulk_commit          cp.async.bulk.commit_group: closes the group bulk_wait_read
//   cp.async.bulk.wait_group.read: the groups of this thread, all but the last
//                        kGroups, have read their shared memory, which may be overwritten
//
// Kernels of GPUs older than sm_90 are empty where kBulkCopies is false.
#pragma once

#include "launch.cuh"

#ifdef FUSED_MIXUP_HOST
#include "bulk.h"
#endif

namespace fused_mixup {

#ifndef FUSED_MIXUP_HOST
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool kBulkCopies = true;
#else
constexpr bool kBulkCopies = false;
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define FUSED_MIXUP_BULK(...) asm volatile(__VA_ARGS__)
#else
#define FUSED_MIXUP_BULK(...)
#endif

__device__ __forceinline__ unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

__device__ __forceinline__ void barrier_init(uint64_t* barrier, unsigned count) {
  FUSED_MIXUP_BULK("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)),
                   "r"(count) : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint64_t* barrier, unsigned bytes) {
  FUSED_MIXUP_BULK(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)),
      "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_wait(uint64_t* barrier, unsigned parity) {
  FUSED_MIXUP_BULK(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity) : "memory");
}

__device__ __forceinline__ void fence_proxy_async() {
  FUSED_MIXUP_BULK("fence.proxy.async.shared::cta;\n" :: : "memory");
}

__device__ __forceinline__ void bulk_load(void* shared, const void* global, unsigned bytes,
                                          uint64_t* barrier) {
  FUSED_MIXUP_BULK(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::
          "r"(shared_address(shared)),
      "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ void bulk_store(void* global, const void* shared, unsigned bytes) {
  FUSED_MIXUP_BULK("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n" ::"l"(
                       __cvta_generic_to_global(global)),
                   "r"(shared_address(shared)), "r"(bytes) : "memory");
}

__device__ __forceinline__ void bulk_commit() {
  FUSED_MIXUP_BULK("cp.async.bulk.commit_group;\n" :: : "memory");
}

template <int kGroups>
__device__ __forceinline__ void bulk_wait_read() {
  FUSED_MIXUP_BULK("cp.async.bulk.wait_group.read %0;\n" ::"n"(kGroups) : "memory");
}
#undef FUSED_MIXUP_BULK
#endif  // FUSED_MIXUP_HOST

}  // namespace fused_mixup
