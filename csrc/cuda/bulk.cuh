// Bulk copies from global to shared memory, and the barriers on which they complete (Hopper).
//
// A bulk copy moves a run of memory without registers and without threads that wait. Addresses and
// sizes are multiples of 16. The functions below stand in this file alone, each with what the host
// runs in its place (tests/host_cuda/bulk.h, which moves the bytes as late as a GPU may):
//
//   barrier_init       mbarrier.init: each phase ends with `count` arrivals and the bytes announced
//   barrier_arrive     mbarrier.arrive.expect_tx: arrives, and announces the bytes of copies
//   barrier_wait       mbarrier.try_wait.parity: waits for the end of the phase of that parity
//   fence_proxy_async  fence.proxy.async: later copies see what this thread wrote to shared memory
//   bulk_load          cp.async.bulk: global to shared memory; its bytes count at a barrier
//
// Where kBulkCopies is false, on GPUs older than sm_90, kernels that use them are empty.
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

#define FUSED_MIXUP_SHARED(p) static_cast<unsigned>(__cvta_generic_to_shared(p))

__device__ __forceinline__ void barrier_init(uint64_t* barrier, unsigned count) {
  FUSED_MIXUP_BULK("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(FUSED_MIXUP_SHARED(barrier)),
                   "r"(count) : "memory");
}

__device__ __forceinline__ void barrier_arrive(uint64_t* barrier, unsigned bytes) {
  FUSED_MIXUP_BULK(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(FUSED_MIXUP_SHARED(barrier)),
      "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_wait(uint64_t* barrier, unsigned parity) {
  FUSED_MIXUP_BULK(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(FUSED_MIXUP_SHARED(barrier)),
      "r"(parity) : "memory");
}

__device__ __forceinline__ void fence_proxy_async() {
  FUSED_MIXUP_BULK("fence.proxy.async.shared::cta;\n" :: : "memory");
}

__device__ __forceinline__ void bulk_load(void* shared, const void* global, unsigned bytes,
                                          uint64_t* barrier) {
  FUSED_MIXUP_BULK(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::
          "r"(FUSED_MIXUP_SHARED(shared)),
      "l"(__cvta_generic_to_global(global)), "r"(bytes),
      "r"(FUSED_MIXUP_SHARED(barrier)) : "memory");
}

#undef FUSED_MIXUP_BULK
#undef FUSED_MIXUP_SHARED
#endif  // FUSED_MIXUP_HOST

}  // namespace fused_mixup
