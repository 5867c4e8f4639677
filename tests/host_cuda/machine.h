// The interface between kernels and the machine that runs blocks of CUDA threads on the host.
//
// Its code (machine.cpp, shared_memory.cpp) is compiled separately from the kernels. The race
// detector (races.cpp) has the compiler report every access to memory, and so sees those of kernels
// alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

// All other symbols are hidden, as several variants of the library live in one process.
#define EXPORT __attribute__((visibility("default")))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1;
constexpr cudaError_t cudaErrorInvalidConfiguration = 9, cudaErrorLaunchFailure = 719;

namespace host_cuda {

// A line of the source: as a default argument it is the line of the call.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};
inline bool operator!=(Site a, Site b) {
  return a.line != b.line || std::strcmp(a.file, b.file) != 0;
}

// Reports what would be a fault on the device: the launch fails with this text, and the thread
// ends.
[[noreturn]] void fault(const std::string& what);

// Runs body(args), which calls the kernel, in every thread of every block. The blocks of a cluster
// run together.
cudaError_t run(dim3 grid, dim3 block, size_t shared, const void* kernel, void (*body)(const void*),
                const void* args, unsigned cluster = 1);

void block_barrier(Site site);
void fence(Site site);
unsigned* ticket(unsigned* spare);
// Lets other threads run until ready(what). Where none can run, the launch fails with why(what).
struct Condition {
  bool (*ready)(const void*);
  std::string (*why)(const void*);
  const void* what;
};
void wait_until(const Condition& condition, Site site);
void* dynamic_shared();
void* static_shared(const void* type, size_t size, size_t alignment, Site site);
void need_aligned(const void* at, size_t size);  // a fault otherwise
void store16(void* global, const void* value);
void copy16_async(void* shared, const void* global);
void copies_done(Site site);

void note_launch(const void* kernel);

// The next launch is dependent: its threads await the kernel in front.
void next_starts_early();
void await_earlier(Site site);
bool awaited();
bool may_touch(const void* global);

// Of clusters: see csrc/cuda/cluster.cuh.
int cluster_rank();
int cluster_blocks();
int resident_clusters();
void cluster_arrive(Site site);
void cluster_wait(Site site);
const void* remote_shared(const void* own, int rank);

// The operand of one lane in an operation of its warp, and its result: the bytes of lane `source`,
// or one bit per lane.
constexpr int kNoSource = -1, kBallot = -2;
struct WarpOp {
  unsigned mask;  // the lanes that take part
  const void* value = nullptr;
  void* result = nullptr;
  size_t size = 0;
  int source = kNoSource;
  bool orders_memory = false;
};
int lane();
void warp_operation(const WarpOp& op, Site site);

// Reports accesses that the compiler does not report to the race detector; other variants ignore
// them.
// A bulk copy gives its number (bulk.cpp).
enum class Access { kRead, kWrite, kAtomic, kCopyStarts, kCopyDone, kBulkRead, kBulkWrite };
void note_access(const void* at, size_t size, Access access, uint32_t bulk_copy = 0);
void note_fence();

}  // namespace host_cuda
