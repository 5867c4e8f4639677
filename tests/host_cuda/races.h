// The calls by which the machine informs the race detector (races.cpp). Other builds leave them
// empty.
#pragma once

#include <cstddef>
#include <cstdint>

namespace host_cuda {
namespace races {

// Which thread runs now. `barrier` counts the block's barriers so far, `sync` the warp's
// __syncwarp(), `arrived` and `waited` what the thread did at its cluster's barrier.
struct Now {
  bool watching = false;
  uint32_t block = 0, thread = 0, barrier = 0, sync = 0;
  uint32_t cluster = 0, rank = 0, arrived = 0, waited = 0;
  const unsigned char *stack = nullptr, *stack_end = nullptr;
};
inline Now now;

#ifdef FUSED_MIXUP_RACES
constexpr size_t kGuard = 4096;  // bytes on both sides of shared memory that are out of bounds
void begin_launch();
void begin_cluster();
void shared_memory(const unsigned char* begin, size_t size, const char* name);
#else
constexpr size_t kGuard = 0;
inline void begin_launch() {}
inline void begin_cluster() {}
inline void shared_memory(const unsigned char*, size_t, const char*) {}
#endif

}  // namespace races
}  // namespace host_cuda
