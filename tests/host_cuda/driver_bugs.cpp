// Kernels that are wrong on purpose, each in one way, which the harness must report, and kernels
// that look dangerous but are right, which it must not (tests/test_harness.py).
#include <cstring>

#include "../../csrc/cuda/launch.cuh"

namespace fused_mixup {
namespace {

constexpr unsigned kAll = 0xffffffffu;

float* dynamic_floats() { return static_cast<float*>(dynamic_shared()); }

// ------------------------------------------------------------------ right

__global__ void tree_reduction(float* out, int) {
  float* s = dynamic_floats();
  s[threadIdx.x] = 1.0f;
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) s[threadIdx.x] += s[threadIdx.x + half];
  }
  if (threadIdx.x == 0) out[blockIdx.x] = s[0];
}

__global__ void shuffle_reduction(float* out, int) {
  auto& s = block_shared<float[32]>();
  float sum = 1.0f;
  for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(kAll, sum, by);
  if (threadIdx.x % 32 == 0) s[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  sum = threadIdx.x < blockDim.x / 32 ? s[threadIdx.x] : 0.0f;
  for (int by = 16; by > 0; by /= 2) sum += __shfl_down_sync(kAll, sum, by);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

__global__ void atomic_counters(float* out, int) {
  int& count = block_shared<int>();
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  atomicAdd(out, 1.0f);
  __syncthreads();
  out[1 + blockIdx.x * blockDim.x + threadIdx.x] = static_cast<float>(count);
}

__global__ void double_buffer(float* out, int) {
  float* s = dynamic_floats();
  const unsigned n = blockDim.x, t = threadIdx.x;
  s[t] = static_cast<float>(t);
  for (unsigned step = 0; step < 4; ++step) {
    __syncthreads();  // one barrier per step: reads of one half, writes of the other
    s[(step + 1) % 2 * n + t] = s[step % 2 * n + (t + 1) % n];
  }
  __syncthreads();
  out[blockIdx.x * n + t] = s[(t + 1) % n];
}

__global__ void warp_exchange(float* out, int) {
  float* s = dynamic_floats();
  const unsigned t = threadIdx.x, other = t ^ 1;
  s[t] = static_cast<float>(t);
  __syncwarp();
  const float mine = s[other];
  __syncwarp();
  s[other] = mine + 1.0f;  // the pair has read both
  __syncwarp();
  out[blockIdx.x * blockDim.x + t] = s[t];
}

__global__ void staged_copy(float* out, int) {
  float* s = dynamic_floats();
  const unsigned n = blockDim.x, t = threadIdx.x;
  float* mine = out + blockIdx.x * n;
  if (t < n / 4) copy16_async(s + 4 * t, mine + 4 * t);
  copies_done();
  __syncthreads();
  mine[t] = s[n - 1 - t];
}

// The block that finishes last adds what all have written. bugs: what its threads leave out.
enum Bug { kNone = 0, kRelease = 1, kAcquire = 2, kBarrier = 4, kLate = 8 };
template <int kBugs>
__device__ void add_in_the_last_block(float* out) {
  bool& last = block_shared<bool>();
  unsigned* ticket = reinterpret_cast<unsigned*>(out);
  float* sums = out + 4;
  if (threadIdx.x == 0) {
    if (!(kBugs & kLate)) sums[blockIdx.x] = 1.0f + static_cast<float>(blockIdx.x);
    if (!(kBugs & kRelease)) __threadfence();
    if (kBugs & kLate) sums[blockIdx.x] = 1.0f + static_cast<float>(blockIdx.x);
    const unsigned most = gridDim.x - 1;
    last = atomicInc(ticket, most) == most;
    if (!(kBugs & kAcquire)) __threadfence();
  }
  if (!(kBugs & kBarrier)) __syncthreads();
  if (last && threadIdx.x < 2) out[2 + threadIdx.x] = sums[0] + sums[1];
}
__global__ void last_block(float* out, int) { add_in_the_last_block<kNone>(out); }

// ------------------------------------------------------------------ races

__global__ void no_release(float* out, int) { add_in_the_last_block<kRelease>(out); }
__global__ void no_acquire(float* out, int) { add_in_the_last_block<kAcquire>(out); }
__global__ void no_barrier_after_ticket(float* out, int) { add_in_the_last_block<kBarrier>(out); }
__global__ void write_after_release(float* out, int) { add_in_the_last_block<kLate>(out); }

__global__ void missing_barrier(float* out, int) {
  float* s = dynamic_floats();
  s[threadIdx.x] = 1.0f;
  out[blockIdx.x * blockDim.x + threadIdx.x] = s[(threadIdx.x + 1) % blockDim.x];
}

__global__ void barrier_before_overwriting(float* out, int) {  // write after read
  float* s = dynamic_floats();
  s[threadIdx.x] = 1.0f;
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = s[(threadIdx.x + 1) % blockDim.x];
  s[threadIdx.x] = 2.0f;
}

__global__ void shuffle_as_barrier(float* out, int) {  // a shuffle orders no memory
  float* s = dynamic_floats();
  s[threadIdx.x] = 1.0f;
  __shfl_xor_sync(kAll, 0, 1);
  out[blockIdx.x * blockDim.x + threadIdx.x] = s[threadIdx.x ^ 1];
}

__global__ void warp_barrier_for_block(float* out, int) {
  float* s = dynamic_floats();
  s[threadIdx.x] = 1.0f;
  __syncwarp();
  out[blockIdx.x * blockDim.x + threadIdx.x] = s[(threadIdx.x + 32) % blockDim.x];
}

__global__ void neighbour_in_place(float* out, int) {
  if (threadIdx.x > 0) out[threadIdx.x] = out[threadIdx.x - 1] + 1.0f;
}

__global__ void blocks_in_place(float* out, int) {  // reads what the next block overwrites
  const unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned next = t + blockDim.x;
  out[t] = (next < gridDim.x * blockDim.x ? out[next] : 0.0f) + 1.0f;
}

__global__ void everybody_writes(float* out, int) { out[0] = static_cast<float>(threadIdx.x); }

__global__ void neighbouring_bytes(float* out, int) {  // a read-modify-write of shared words
  unsigned* word = reinterpret_cast<unsigned*>(out) + threadIdx.x / 4;
  *word |= 0xffu << 8 * (threadIdx.x % 4);
}

__global__ void atomic_and_read(float* out, int) {
  atomicAdd(out, 1.0f);
  out[1 + blockIdx.x * blockDim.x + threadIdx.x] = out[0];
}

__global__ void copy_without_barrier(float* out, int) {
  float* s = dynamic_floats();
  if (threadIdx.x < blockDim.x / 4) copy16_async(s + 4 * threadIdx.x, out + 4 * threadIdx.x);
  copies_done();
  out[blockIdx.x * blockDim.x + threadIdx.x] = s[threadIdx.x];
}

// ------------------------------------------------------------------ barriers

__global__ void early_exit(float*, int) {
  if (threadIdx.x == 3) return;
  __syncthreads();
}

__global__ void two_barriers(float*, int) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void missing_lane(float* out, int) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_xor_sync(kAll, 1.0f, 1);
}

__global__ void lane_outside_mask(float* out, int) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 16);
}

__global__ void mask_without_itself(float* out, int) {
  out[threadIdx.x] = __shfl_xor_sync(0xfffffffeu, 1.0f, 2);
}

// ------------------------------------------------------------------ memory

__global__ void unwritten_dynamic(float* out, int) {
  out[blockIdx.x * blockDim.x + threadIdx.x] = dynamic_floats()[threadIdx.x];
}

__global__ void unwritten_static(float* out, int) {  // by later blocks: the first has written
  auto& s = block_shared<float[128]>();
  const unsigned t = threadIdx.x;
  if (blockIdx.x == 0) s[t] = 1.0f;
  out[blockIdx.x * blockDim.x + t] = s[t];
}

__global__ void not_waited_for(float* out, int) {
  float* s = dynamic_floats();
  const unsigned t = threadIdx.x;
  if (t >= blockDim.x / 4) return;
  s[4 * t] = 1.0f;  // lost, as the copy may come at any time
  copy16_async(s + 4 * t, out + 4 * t);
  out[4 * t] = s[4 * t];
  copies_done();
}

__global__ void one_type_twice(float* out, int) {
  auto& a = block_shared<float[32]>();
  auto& b = block_shared<float[32]>();
  out[threadIdx.x] = &a[0] == &b[0] ? 1.0f : 0.0f;
}

__global__ void read_behind(float* out, int n) {
  if (blockIdx.x == 0 && threadIdx.x == 0) out[0] = out[n];
}

__global__ void write_behind(float* out, int n) {
  if (blockIdx.x == 0 && threadIdx.x == 0) out[n] = 1.0f;
}

__global__ void read_behind_dynamic(float* out, int) {
  float* s = dynamic_floats();
  s[threadIdx.x] = 1.0f;
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = s[threadIdx.x + 2 * blockDim.x];
}

__global__ void write_behind_static(float*, int) {
  auto& s = block_shared<float[32]>();
  float* p = s;
  p[threadIdx.x] = 1.0f;  // there are 64 threads
}

__global__ void misaligned_load(float* out, int) {
  if (blockIdx.x != 0 || threadIdx.x != 0) return;
  const uint4 v = *reinterpret_cast<const uint4*>(out + 1);
  store16(out + 8, v);
}

__global__ void misaligned_store(float* out, int) {
  if (blockIdx.x == 0 && threadIdx.x == 0) store16(out + 1, uint4{});
}

__global__ void overflow(float* out, int n) {
  int big = 0x7fffffff - n;
  big += 2 * n;
  if (blockIdx.x == 0 && threadIdx.x == 0) out[0] = static_cast<float>(big);
}

struct Planted {
  const char* name;
  void (*kernel)(float*, int);
};
#define PLANTED(kernel) {#kernel, kernel}
const Planted kPlanted[] = {
    PLANTED(tree_reduction),      PLANTED(shuffle_reduction),
    PLANTED(atomic_counters),     PLANTED(double_buffer),
    PLANTED(warp_exchange),       PLANTED(staged_copy),
    PLANTED(missing_barrier),     PLANTED(barrier_before_overwriting),
    PLANTED(shuffle_as_barrier),  PLANTED(warp_barrier_for_block),
    PLANTED(neighbour_in_place),  PLANTED(blocks_in_place),
    PLANTED(everybody_writes),    PLANTED(neighbouring_bytes),
    PLANTED(atomic_and_read),     PLANTED(copy_without_barrier),
    PLANTED(early_exit),          PLANTED(two_barriers),
    PLANTED(missing_lane),        PLANTED(lane_outside_mask),
    PLANTED(mask_without_itself), PLANTED(unwritten_dynamic),
    PLANTED(unwritten_static),    PLANTED(not_waited_for),
    PLANTED(one_type_twice),      PLANTED(read_behind),
    PLANTED(write_behind),        PLANTED(read_behind_dynamic),
    PLANTED(write_behind_static), PLANTED(misaligned_load),
    PLANTED(misaligned_store),    PLANTED(overflow),
    PLANTED(last_block),          PLANTED(no_release),
    PLANTED(no_acquire),          PLANTED(no_barrier_after_ticket),
    PLANTED(write_after_release),
};

}  // namespace
}  // namespace fused_mixup

// Those of clusters: driver_cluster_bugs.cpp.
int planted_cluster(const char* name, float* out, int n);

// Two blocks of 64 threads, with two floats of dynamic shared memory per thread.
extern "C" EXPORT int host_planted(const char* name, float* out, int64_t n) {
  using namespace fused_mixup;
  for (const Planted& p : kPlanted) {
    if (std::strcmp(p.name, name) != 0) continue;
    return launch_grid(p.kernel, dim3(2), dim3(64), 128 * sizeof(float), nullptr, out,
                       static_cast<int>(n));
  }
  return planted_cluster(name, out, static_cast<int>(n));
}
