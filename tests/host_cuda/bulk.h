// What the host runs for csrc/cuda/bulk.cuh; the model stands in bulk.cpp.
#pragma once

#include "machine.h"

namespace host_cuda {

void barrier_init(const void* barrier, unsigned count);
void barrier_arrive(const void* barrier, unsigned bytes);
void barrier_wait(const void* barrier, unsigned parity, Site site);
void fence_proxy_async(Site site);
void bulk_load(void* shared, const void* global, size_t bytes, const void* barrier);

namespace bulk {

// Whether the running thread knows that the copy of this number has ended.
bool is_done_for_me(uint32_t copy);
uint32_t fences_of(uint32_t thread);  // how often a thread of this block has fenced them

void begin_cluster(unsigned blocks, size_t threads_per_block);
std::string end_cluster();  // what its blocks have left undone, or ""

}  // namespace bulk
}  // namespace host_cuda

namespace fused_mixup {

constexpr bool kBulkCopies = true;

inline void barrier_init(uint64_t* barrier, unsigned count) {
  host_cuda::barrier_init(barrier, count);
}
inline void barrier_arrive(uint64_t* barrier, unsigned bytes) {
  host_cuda::barrier_arrive(barrier, bytes);
}
inline void barrier_wait(uint64_t* barrier, unsigned parity,
                         host_cuda::Site site = host_cuda::Site::here()) {
  host_cuda::barrier_wait(barrier, parity, site);
}
inline void fence_proxy_async(host_cuda::Site site = host_cuda::Site::here()) {
  host_cuda::fence_proxy_async(site);
}
inline void bulk_load(void* shared, const void* global, unsigned bytes, uint64_t* barrier) {
  host_cuda::bulk_load(shared, global, bytes, barrier);
}

}  // namespace fused_mixup
