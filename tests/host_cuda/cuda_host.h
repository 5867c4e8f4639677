// Enough of CUDA to run the kernels of csrc/cuda with a host compiler, for tests without a GPU.
//
// The threads of a block are fibers, switched at barriers and warp operations. What goes wrong on
// a GPU without notice fails here: a barrier that some threads never reach, a warp operation with
// lanes missing, reads of shared memory that nobody wrote (poisoned). Blocks and threads run
// forward, in reverse or shuffled, so that a kernel that leans on an order is found out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fiber.h"

// ------------------------------------------------------------------ words of the language

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(...)
#define __grid_constant__

struct uint4 {
  alignas(16) unsigned x;
  unsigned y, z, w;
};

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorLaunchFailure = 719;

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

// ------------------------------------------------------------------ numbers

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};

namespace host_cuda {
template <typename To, typename From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
}  // namespace host_cuda

inline float __half2float(__half h) {
  const uint32_t sign = uint32_t{h.bits & 0x8000u} << 16, rest = h.bits & 0x7fffu;
  if (rest >= 0x7c00u) return host_cuda::bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ff) << 13);
  if (rest < 0x0400u) {
    const float value = static_cast<float>(rest) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  return host_cuda::bit_cast<float>(sign | ((rest << 13) + (112u << 23)));
}

inline __half __float2half_rn(float f) {
  const uint32_t x = host_cuda::bit_cast<uint32_t>(f), a = x & 0x7fffffffu;
  const auto signed_half = [&](uint32_t h) {
    return __half{static_cast<uint16_t>((x >> 16 & 0x8000u) | h)};
  };
  if (a > 0x7f800000u) return signed_half(0x7fff);
  if (a >= 0x477ff000u) return signed_half(0x7c00);  // from 65520 on: infinity
  if (a < 0x38800000u) {  // subnormal: 0.5 has the unit in the last place of a subnormal half
    const float sum = host_cuda::bit_cast<float>(a) + 0.5f;
    return signed_half(host_cuda::bit_cast<uint32_t>(sum) - 0x3f000000u);
  }
  return signed_half((a + 0xfffu + (a >> 13 & 1u) - (112u << 23)) >> 13);
}

inline float __bfloat162float(__nv_bfloat16 h) {
  return host_cuda::bit_cast<float>(uint32_t{h.bits} << 16);
}

inline __nv_bfloat16 __float2bfloat16_rn(float f) {
  const uint32_t x = host_cuda::bit_cast<uint32_t>(f);
  if ((x & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((x + 0x7fffu + (x >> 16 & 1u)) >> 16)};
}

// The driver is compiled with -ffp-contract=off: these round separately, as on the device.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(uint64_t{a} * b >> 32);
}

template <typename T>
T atomicAdd(T* p, T v) {
  const T old = *p;
  *p += v;
  return old;
}
template <typename T>
T atomicSub(T* p, T v) {
  const T old = *p;
  *p -= v;
  return old;
}

// ------------------------------------------------------------------ blocks

namespace host_cuda {

enum Order { kForward = 0, kReverse = 1, kShuffled = 2 };
enum class State { kReady, kAtBarrier, kAtWarp, kDone };

struct Thread {
  State state = State::kReady;
  int line = 0;  // where it waits
  unsigned warp_ops = 0;
  Fiber* fiber = nullptr;
};

struct Slot {
  alignas(16) unsigned char bytes[16];
};

struct Machine {
  Order order = kForward;
  std::string error;
  std::vector<Thread> threads;
  std::vector<Slot> slots;  // [2][thread]: what each thread brought to a warp operation
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Fiber*> free_fibers;
  std::unique_ptr<unsigned char[]> shared_bytes;
  unsigned char* shared = nullptr;
  const std::function<void()>* body = nullptr;
  unsigned current = 0;
};
inline Machine machine;

inline void set_thread(unsigned t) {
  machine.current = t;
  threadIdx.x = t % blockDim.x;
  threadIdx.y = t / blockDim.x % blockDim.y;
  threadIdx.z = t / blockDim.x / blockDim.y;
}

inline void wait(State state, int line) {
  const unsigned me = machine.current;
  machine.threads[me].state = state;
  machine.threads[me].line = line;
  machine.threads[me].fiber->leave();
  set_thread(me);
}

inline void thread_main() {
  (*machine.body)();
  machine.threads[machine.current].state = State::kDone;
}

inline bool fail(const std::string& what) {
  char where[64];
  std::snprintf(where, sizeof(where), " in block %u of %u", blockIdx.x, gridDim.x);
  machine.error = what + where;
  return false;
}

// Releases waiting threads: a warp whose lanes are all at one operation, a block that is all at
// one barrier. False, with machine.error, where none can ever go on.
inline bool release() {
  auto& threads = machine.threads;
  bool released = false;
  size_t at_barrier = 0, done = 0;
  for (size_t base = 0; base < threads.size(); base += 32) {
    size_t at_warp = 0;
    const size_t lanes = std::min<size_t>(32, threads.size() - base);
    for (size_t t = base; t < base + lanes; ++t) {
      at_barrier += threads[t].state == State::kAtBarrier;
      done += threads[t].state == State::kDone;
      at_warp += threads[t].state == State::kAtWarp && threads[t].line == threads[base].line;
    }
    if (at_warp != lanes) continue;
    for (size_t t = base; t < base + lanes; ++t) threads[t].state = State::kReady;
    released = true;
  }
  if (released) return true;
  if (at_barrier != threads.size()) {
    return fail("divergence: " + std::to_string(at_barrier) + " of " +
                std::to_string(threads.size()) + " threads at a barrier, " + std::to_string(done) +
                " gone, the others at a warp operation with lanes missing");
  }
  for (Thread& t : threads) {
    if (t.line != threads[0].line) return fail("divergence: threads at different barriers");
    t.state = State::kReady;
  }
  return true;
}

inline bool run_block(const std::vector<unsigned>& turns) {
  for (Thread& t : machine.threads) t = Thread();
  size_t alive = turns.size();
  while (alive > 0) {
    bool any = false;
    for (const unsigned t : turns) {
      Thread& thread = machine.threads[t];
      if (thread.state != State::kReady) continue;
      any = true;
      if (thread.fiber == nullptr) {
        if (machine.free_fibers.empty()) {
          machine.fibers.push_back(std::make_unique<Fiber>());
          machine.free_fibers.push_back(machine.fibers.back().get());
        }
        thread.fiber = machine.free_fibers.back();
        machine.free_fibers.pop_back();
        thread.fiber->start(thread_main);
      }
      set_thread(t);
      thread.fiber->enter();
      if (thread.state == State::kDone) {
        machine.free_fibers.push_back(thread.fiber);
        --alive;
      }
    }
    if (!any && !release()) return false;
  }
  return true;
}

inline std::vector<unsigned> in_order(unsigned n) {
  std::vector<unsigned> turns(n);
  for (unsigned i = 0; i < n; ++i) turns[i] = i;
  if (machine.order == kReverse) std::reverse(turns.begin(), turns.end());
  if (machine.order == kShuffled) std::shuffle(turns.begin(), turns.end(), std::mt19937(n));
  return turns;
}

inline cudaError_t run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& body) {
  gridDim = grid;
  blockDim = block;
  machine.body = &body;
  const unsigned threads = block.x * block.y * block.z;
  if (threads > 1024 || grid.x == 0 || threads == 0 || grid.y * grid.z != 1) {
    machine.error = "launch: a grid or block of a size the harness or CUDA does not take";
    return cudaErrorInvalidValue;
  }
  machine.threads.resize(threads);
  machine.slots.resize(2 * threads);
  // Exactly as large as asked for, so that the address sanitizer sees an access beyond.
  machine.shared_bytes.reset(new unsigned char[shared + 16]);
  machine.shared = machine.shared_bytes.get();
  const std::vector<unsigned> turns = in_order(threads);
  for (const unsigned b : in_order(grid.x)) {
    blockIdx = dim3(b, 0, 0);
    std::memset(machine.shared, 0xff, shared);  // NaN in every float type
    if (!run_block(turns)) {
      for (Thread& t : machine.threads) {
        if (t.fiber != nullptr && t.state != State::kDone) t.fiber->abandon();
      }
      machine.free_fibers.clear();
      machine.fibers.clear();
      return cudaErrorLaunchFailure;
    }
  }
  return cudaSuccess;
}

template <typename T>
T shuffle_xor(unsigned mask, T value, int lane_mask, int line) {
  static_assert(sizeof(T) <= 16, "a slot is 16 bytes");
  if (mask != 0xffffffffu) std::abort();  // the harness knows whole warps only
  const unsigned me = machine.current;
  // Two sets of slots in turn: a lane may bring its next value before others have read this one.
  Slot* slots =
      machine.slots.data() + (machine.threads[me].warp_ops++ % 2) * machine.threads.size();
  std::memcpy(slots[me].bytes, &value, sizeof(T));
  wait(State::kAtWarp, line);
  T out;
  std::memcpy(&out, slots[me ^ static_cast<unsigned>(lane_mask)].bytes, sizeof(T));
  return out;
}

}  // namespace host_cuda

#define __syncthreads() ::host_cuda::wait(::host_cuda::State::kAtBarrier, __LINE__)
#define __syncwarp() ::host_cuda::wait(::host_cuda::State::kAtWarp, __LINE__)
#define __shfl_xor_sync(mask, value, lane_mask) \
  ::host_cuda::shuffle_xor(mask, value, lane_mask, __LINE__)

// ------------------------------------------------------------------ what launch.cuh provides

namespace fused_mixup {

template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared, cudaStream_t,
                   const Args&... args) {
  return host_cuda::run(grid, block, shared, [&] { kernel(args...); });
}

inline void* dynamic_shared() { return host_cuda::machine.shared; }
inline void copy16_async(void* shared, const void* global) { std::memcpy(shared, global, 16); }
inline void copies_done() {}
inline void store16(void* global, uint4 v) { std::memcpy(global, &v, 16); }
inline float fast_exp(float x) { return std::exp2(x * 1.4426950408889634f); }

}  // namespace fused_mixup
