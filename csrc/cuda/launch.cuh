// How every kernel is launched, and everything that a host compiler does not understand.
//
// With FUSED_MIXUP_HOST defined the same kernels compile with a host compiler and run block by
// block (tests/host_cuda). All kernels are launched through launch(). The functions below stand in
// this file alone (tests/test_cuda_host_proof.py checks that), each with what the host runs in its
// place (tests/host_cuda/cuda_host.h):
//
//   launch_grid      <<<>>> and the opt-in to large shared memory; the host runs the blocks
//   fresh_ticket     a counter at zero, in device memory; the host has one
//   block_shared     static __shared__ memory; the host poisons it before each block
//   dynamic_shared   extern __shared__ memory; likewise
//   copy16_async     cp.async; the host copies when copies_done() waits for it, no earlier
//   copies_done      cp.async.wait_all
//   store16          st.global.v4; the host stores 16 bytes and asks for their alignment
//   store16_once     st.global.cs.v4; likewise
//   load16_once      ld.global.cs.v4; the host reads 16 bytes
//   load16           ld.global.v4 under a predicate, .cs if once; the host reads 16 bytes, or none
//   load8x2          ld.global.v2 likewise
//   prefetch         prefetch.global.L2; the host does nothing
//   load32_once      ld.global.v8 under a predicate, from sm_100 on; the host reads 32 bytes
//   store32_once     st.global.v8; the host stores 32 bytes and asks for their alignment
//   fast_exp         ex2.approx.ftz; the host's exp2, which rounds better
//   fast_inverse     rcp.approx.ftz; the host divides
//
// So the host proves nothing about these instructions themselves, the accuracy of the .approx ones,
// whether a GPU has the shared memory and registers for a launch, and what asynchronous copies do
// to memory that others write too.
#pragma once

#ifdef FUSED_MIXUP_HOST
#include "cuda_host.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

namespace fused_mixup {

#ifndef FUSED_MIXUP_HOST
constexpr size_t kDefaultShared = 48 * 1024;  // above this a kernel must opt in

// Lets blocks of a kernel have `shared` bytes. CUDA is told only where it was not told of as many
// before: that takes longer than a launch.
inline cudaError_t allow_shared(const void* kernel, size_t shared) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, size_t> allowed;
  if (shared <= kDefaultShared) return cudaSuccess;
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  const std::lock_guard<std::mutex> lock(mutex);
  size_t& known = allowed[{kernel, device}];
  if (shared <= known) return cudaSuccess;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared));
  if (error == cudaSuccess) known = shared;
  return error;
}

template <typename... Params, typename... Args>
cudaError_t launch_grid(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared,
                        cudaStream_t stream, const Args&... args) {
  const cudaError_t refused = allow_shared(reinterpret_cast<const void*>(kernel), shared);
  if (refused != cudaSuccess) return refused;
  kernel<<<grid, block, shared, stream>>>(args...);
  return cudaGetLastError();
}

constexpr int kTickets = 4096;
[[maybe_unused]] static __device__ unsigned tickets[kTickets];  // all zero when no kernel runs

// A counter in device memory that is zero when the next kernel of the stream starts, and that its
// kernels leave at zero. No two launches that may run at once have the same: each stream has its
// own, and each call that a CUDA graph captures, as the graph may run on any stream. Where all are
// taken, `spare` is one, which a memset makes zero.
[[maybe_unused]] static cudaError_t fresh_ticket(cudaStream_t stream, unsigned* spare,
                                                 unsigned** ticket) {
  static std::mutex mutex;
  static std::map<std::pair<int, unsigned long long>, int> streams;
  static int taken = 0;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  cudaError_t error = cudaStreamIsCapturing(stream, &capture);
  unsigned long long id = 0;
  int device = 0, slot = kTickets;
  if (error == cudaSuccess) error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaStreamGetId(stream, &id);  // no later stream has it
  if (error != cudaSuccess) return error;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (capture != cudaStreamCaptureStatusNone) {
      if (taken < kTickets) slot = taken++;
    } else {
      const auto found = streams.find({device, id});
      if (found != streams.end()) {
        slot = found->second;
      } else if (taken < kTickets) {
        slot = streams[{device, id}] = taken++;
      }
    }
  }
  if (slot == kTickets) {
    *ticket = spare;
    return cudaMemsetAsync(spare, 0, sizeof(*spare), stream);
  }
  void* all = nullptr;
  error = cudaGetSymbolAddress(&all, tickets);
  *ticket = static_cast<unsigned*>(all) + slot;
  return error;
}

// A T in the static shared memory of the block. A kernel has one per type: a second call with the
// same type would name the same memory (the host harness refuses it).
template <typename T>
__device__ __forceinline__ T& block_shared() {
  __shared__ T storage;
  return storage;
}

// The dynamic shared memory of the block.
__device__ __forceinline__ void* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[];
  return dynamic_shared_bytes;
}

// Starts a 16-byte copy from global to shared memory that needs no register while in flight. The
// thread that started it may read it after copies_done(); other threads need a barrier too.
__device__ __forceinline__ void copy16_async(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to), "l"(global) : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}

__device__ __forceinline__ void copies_done() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;\n" ::: "memory");
#endif
}

// One 16-byte store to global memory, in assembly, as the compiler may split a plain store into
// words.
__device__ __forceinline__ void store16(void* global, uint4 v) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(__cvta_generic_to_global(global)),
               "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

// Streaming accesses, for what the kernel does not touch again: their lines leave the caches first,
// so that those of partners and weights stay. Volatile, as a load that the compiler moved below the
// store of its partner would read what that has written.
__device__ __forceinline__ void store16_once(void* global, uint4 v) {
  asm volatile(
      "st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(__cvta_generic_to_global(global)),
      "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
      : "memory");
}

// 16 bytes, or zeros where they are not needed. By a predicate, as loads behind a branch would be
// waited for where it ends.
template <bool kOnce>
__device__ __forceinline__ uint4 load16(const void* global, bool needed) {
  uint4 v = {0, 0, 0, 0};
  const size_t at = __cvta_generic_to_global(global);
  if constexpr (kOnce) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %5, 0;\n"
        "@p ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];\n}\n"
        : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
        : "l"(at), "r"(static_cast<unsigned>(needed))
        : "memory");
  } else {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %5, 0;\n"
        "@p ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n}\n"
        : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
        : "l"(at), "r"(static_cast<unsigned>(needed))
        : "memory");
  }
  return v;
}

// The same in registers of 64 bits: doubles put together from halves would be waited for.
template <bool kOnce>
__device__ __forceinline__ void load8x2(const void* global, bool needed, uint64_t& x, uint64_t& y) {
  x = y = 0;
  const size_t at = __cvta_generic_to_global(global);
  if constexpr (kOnce) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %3, 0;\n@p ld.global.cs.v2.u64 {%0, %1}, [%2];\n}\n"
        : "+l"(x), "+l"(y)
        : "l"(at), "r"(static_cast<unsigned>(needed))
        : "memory");
  } else {
    asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %3, 0;\n@p ld.global.v2.u64 {%0, %1}, [%2];\n}\n"
                 : "+l"(x), "+l"(y)
                 : "l"(at), "r"(static_cast<unsigned>(needed))
                 : "memory");
  }
}

// The only read of these 16 bytes: caches evict them first.
__device__ __forceinline__ uint4 load16_once(const void* global) {
  uint4 v;
  asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(global)));
  return v;
}

// Brings what lies there to L2, in a thread that does not wait for it.
__device__ __forceinline__ void prefetch(const void* global) {
  asm volatile("prefetch.global.L2 [%0];\n" ::"l"(__cvta_generic_to_global(global)));
}

// Accesses of 32 bytes. Kernels that use them are empty where kWideAccess is false.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr bool kWideAccess = true;
#else
constexpr bool kWideAccess = false;
#endif

__device__ __forceinline__ void load32_once(const void* global, bool needed, uint4& lo, uint4& hi) {
  lo = hi = {0, 0, 0, 0};
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.u32 p, %9, 0;\n"
      "@p ld.global.v8.b32 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8];\n}\n"
      : "+r"(lo.x), "+r"(lo.y), "+r"(lo.z), "+r"(lo.w), "+r"(hi.x), "+r"(hi.y), "+r"(hi.z),
        "+r"(hi.w)
      : "l"(__cvta_generic_to_global(global)), "r"(static_cast<unsigned>(needed))
      : "memory");
#endif
}

__device__ __forceinline__ void store32_once(void* global, uint4 lo, uint4 hi) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  asm volatile("st.global.v8.b32 [%0], {%1, %2, %3, %4, %5, %6, %7, %8};\n" ::"l"(
                   __cvta_generic_to_global(global)),
               "r"(lo.x), "r"(lo.y), "r"(lo.z), "r"(lo.w), "r"(hi.x), "r"(hi.y), "r"(hi.z),
               "r"(hi.w)
               : "memory");
#endif
}

// exp(x) for x <= 0 in four instructions. Results below 2^-126 become zero, which changes neither a
// sum whose largest term is 1 nor a half-precision gradient.
__device__ __forceinline__ float fast_exp(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
  return y;
}

// 1 / x, to within two units in the last place.
__device__ __forceinline__ float fast_inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif  // FUSED_MIXUP_HOST

// Whether this is compiled for sm_100 or newer: the compiler may take other registers there.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr bool kSinceSm100 = true;
#else
constexpr bool kSinceSm100 = false;
#endif

constexpr int64_t kMaxBlocks = 0x7fffffff;  // in the first dim of a grid, the only one in use
constexpr cudaError_t kTooManyBlocks = cudaErrorInvalidConfiguration;

// Starts `blocks` blocks of `block` threads. The count has 64 bits, and a count that no grid takes
// is refused here: truncated to 32 bits it would silently leave part of the work undone.
template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), int64_t blocks, dim3 block, size_t shared,
                   cudaStream_t stream, const Args&... args) {
  if (blocks > kMaxBlocks) return kTooManyBlocks;
  return launch_grid(kernel, dim3(static_cast<unsigned>(blocks)), block, shared, stream, args...);
}

}  // namespace fused_mixup
