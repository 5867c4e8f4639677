// The part of CUDA that the kernels of csrc/cuda need to run with a host compiler, for tests
// without a GPU.
//
//   numbers.h   vector types, half types, intrinsics on numbers
//   warp.h      shuffles and votes, atomics
//   machine.h   blocks and threads, barriers, shared memory; fiber.h: a thread
//   clusters.h  clusters of blocks; cluster_barrier.cpp: their barrier
//   dependent.h launches that start early
//   races.cpp   the race detector
//
// The threads of a block are fibers, switched at barriers and warp operations. Faults that a GPU
// may not report fail here: a barrier that some threads never reach, a warp operation with lanes
// missing, a misaligned 16-byte access, reads of shared memory that no thread wrote (it is poisoned
// with NaN, and the race detector names it), data races. Blocks and threads run forward, in reverse
// or shuffled, which exposes a kernel that depends on an order.
//
// Words that kernels must not use are not defined here, so that such kernels do not compile:
// __shared__ variables stand behind block_shared() and dynamic_shared() of launch.cuh.
#pragma once

#include "machine.h"
#include "numbers.h"
#include "warp.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

using host_cuda::Site;

inline void __threadfence(Site site = Site::here()) { host_cuda::fence(site); }
inline void __syncthreads(Site site = Site::here()) { host_cuda::block_barrier(site); }

// ------------------------------------------------------------------ what launch.cuh provides

namespace fused_mixup {

template <typename... Params, typename... Args>
cudaError_t launch_grid(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared,
                        cudaStream_t, const Args&... args) {
  const auto call = [&] { kernel(args...); };
  return host_cuda::run(
      grid, block, shared, reinterpret_cast<const void*>(kernel),
      [](const void* c) { (*static_cast<const decltype(call)*>(c))(); }, &call);
}

inline cudaError_t fresh_ticket(cudaStream_t, unsigned* spare, unsigned** ticket) {
  *ticket = host_cuda::ticket(spare);
  return *ticket != nullptr ? cudaSuccess : cudaErrorInvalidValue;
}

template <typename T>
T& block_shared(Site site = Site::here()) {
  static const char type = 0;
  return *static_cast<T*>(host_cuda::static_shared(&type, sizeof(T), alignof(T), site));
}

inline void* dynamic_shared() { return host_cuda::dynamic_shared(); }
inline void copy16_async(void* shared, const void* global) {
  host_cuda::copy16_async(shared, global);
}
inline void copies_done(Site site = Site::here()) { host_cuda::copies_done(site); }
inline void store16(void* global, uint4 v) { host_cuda::store16(global, &v); }
inline void store16_once(void* global, uint4 v) { host_cuda::store16(global, &v); }
inline uint4 load16_once(const void* global) { return *static_cast<const uint4*>(global); }
template <bool kOnce>
uint4 load16(const void* global, bool needed) {
  return needed ? *static_cast<const uint4*>(global) : uint4{};
}
template <bool kOnce>
void load8x2(const void* global, bool needed, uint64_t& x, uint64_t& y) {
  const uint4 v = load16<kOnce>(global, needed);
  std::memcpy(&x, &v, 8);
  std::memcpy(&y, &v.z, 8);
}
inline void prefetch(const void*) {}
constexpr bool kWideAccess = true;
inline void load32_once(const void* global, bool needed, uint4& lo, uint4& hi) {
  host_cuda::need_aligned(global, 32);
  lo = load16<true>(global, needed);
  hi = load16<true>(static_cast<const uint4*>(global) + 1, needed);
}
inline void store32_once(void* global, uint4 lo, uint4 hi) {
  host_cuda::need_aligned(global, 32);
  host_cuda::store16(global, &lo);
  host_cuda::store16(static_cast<uint4*>(global) + 1, &hi);
}
inline float fast_exp(float x) { return std::exp2(x * 1.4426950408889634f); }
inline float fast_inverse(float x) { return 1.0f / x; }

}  // namespace fused_mixup
