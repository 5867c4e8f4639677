// Kernels of clusters that are wrong on purpose, each in one way, and right ones: see
// driver_bugs.cpp. Two clusters of two blocks of 64 threads.
#include <cstring>

#include "../../csrc/cuda/bulk.cuh"
#include "../../csrc/cuda/cluster.cuh"

namespace fused_mixup {
namespace {

// Lets every thread of the cluster pass one barrier.
#define CLUSTER_SYNC() (cluster_arrive(), cluster_wait())

// Writes this thread's float of dynamic shared memory, and returns where it stands.
float* filled() {
  float* own = static_cast<float*>(dynamic_shared()) + threadIdx.x;
  *own = static_cast<float>(100 * blockIdx.x + threadIdx.x);
  return own;
}

// This thread's element of `out`.
float& result(float* out) { return out[blockIdx.x * blockDim.x + threadIdx.x]; }

int other() { return 1 - cluster_rank(); }

constexpr unsigned kBytes = 64 * sizeof(float);

// ------------------------------------------------------------------ right

__global__ void exchange(float* out, int) {
  const float* own = filled();
  CLUSTER_SYNC();
  result(out) = remote_load(own, other());
  CLUSTER_SYNC();
}

__global__ void two_exchanges(float* out, int) {  // one barrier per round, two buffers
  float* own = static_cast<float*>(dynamic_shared()) + threadIdx.x;
  own[0] = 1.0f;
  for (int round = 0; round < 3; ++round) {
    cluster_arrive();
    const int now = round % 2 * 64;
    cluster_wait();
    own[64 - now] = remote_load(own + now, other()) + 1.0f;
  }
  result(out) = own[64];
  CLUSTER_SYNC();
}

__global__ void static_exchange(float* out, int) {
  auto& s = block_shared<float[64]>();
  s[threadIdx.x] = static_cast<float>(cluster_rank() + 10 * cluster_blocks());
  CLUSTER_SYNC();
  result(out) = remote_load(&s[63 - threadIdx.x], other());
  CLUSTER_SYNC();
}

__global__ void cluster_in_place(float* out, int) {  // the barrier orders global memory too
  float* first = out + blockIdx.x / 2 * 128;
  const unsigned own = cluster_rank() * 64 + threadIdx.x;
  const float taken = first[127 - own];
  CLUSTER_SYNC();
  first[own] = taken + 1.0f;
}

__global__ void copies_of_each_block(float* out, int) {
  uint64_t* full = block_shared<uint64_t[1]>();
  float* stage = static_cast<float*>(dynamic_shared());
  float* mine = out + blockIdx.x * 64;
  if (threadIdx.x == 0) {
    barrier_init(full, 1);
    fence_proxy_async();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    barrier_arrive(full, kBytes);
    bulk_load(stage, mine, kBytes, full);
  }
  barrier_wait(full, 0);
  mine[threadIdx.x] = stage[63 - threadIdx.x];
}

// ------------------------------------------------------------------ races

__global__ void block_barrier_for_cluster(float* out, int) {
  const float* own = filled();
  CLUSTER_SYNC();
  static_cast<float*>(dynamic_shared())[64 + threadIdx.x] = 1.0f;
  __syncthreads();  // orders this block alone
  result(out) = remote_load(own + 64, other());
  CLUSTER_SYNC();
}

__global__ void write_after_arrival(float* out, int) {
  float* own = filled();
  CLUSTER_SYNC();
  cluster_arrive();
  *own = 1.0f;  // the other block may have passed
  cluster_wait();
  result(out) = remote_load(own, other());
  CLUSTER_SYNC();
}

__global__ void overwritten_while_read(float* out, int) {  // one buffer, one barrier
  float* own = filled();
  CLUSTER_SYNC();
  result(out) = remote_load(own, other());
  *own = 2.0f;
  CLUSTER_SYNC();
}

__global__ void never_written_there(float* out, int) {
  float* own = static_cast<float*>(dynamic_shared()) + threadIdx.x;
  if (cluster_rank() == 0) *own = 1.0f;
  CLUSTER_SYNC();
  result(out) = remote_load(own, 1);
  CLUSTER_SYNC();
}

__global__ void across_clusters(float* out, int) {  // a cluster's barrier orders no other cluster
  result(out) = 1.0f;
  CLUSTER_SYNC();
  out[256 + threadIdx.x] = out[(blockIdx.x + 2) % 4 * 64 + threadIdx.x];
}

// ------------------------------------------------------------------ always found

__global__ void before_the_barrier(float* out, int) {
  result(out) = remote_load(filled(), other());
  CLUSTER_SYNC();
}

__global__ void between_arrival_and_wait(float* out, int) {
  const float* own = filled();
  cluster_arrive();
  result(out) = remote_load(own, other());
  cluster_wait();
}

__global__ void ends_while_read(float* out, int) {
  const float* own = filled();
  CLUSTER_SYNC();
  result(out) = remote_load(own, other());
}

__global__ void one_block_ends_while_read(float* out, int) {
  const float* own = filled();
  CLUSTER_SYNC();
  if (cluster_rank() == 0) result(out) = remote_load(own, 1);
}

__global__ void wrong_rank(float* out, int) {
  const float* own = filled();
  CLUSTER_SYNC();
  result(out) = remote_load(own, cluster_rank() + 1);
  CLUSTER_SYNC();
}

__global__ void rank_of_the_grid(float* out, int) {
  const float* own = filled();
  CLUSTER_SYNC();
  result(out) = remote_load(own, static_cast<int>(blockIdx.x ^ 1));
  CLUSTER_SYNC();
}

__global__ void foreign_address(float* out, int) {
  CLUSTER_SYNC();
  result(out) = remote_load(out, other());
  CLUSTER_SYNC();
}

__global__ void one_block_alone(float*, int) {
  if (cluster_rank() == 0) CLUSTER_SYNC();
}

__global__ void one_thread_less(float*, int) {
  if (threadIdx.x == 7) return;
  CLUSTER_SYNC();
}

__global__ void wait_alone(float*, int) { cluster_wait(); }

__global__ void arrival_twice(float*, int) {
  cluster_arrive();
  cluster_arrive();
}

__global__ void arrival_at_the_end(float*, int) { cluster_arrive(); }

__global__ void fence_of_another_block(float* out, int) {
  uint64_t* full = block_shared<uint64_t[1]>();
  if (threadIdx.x == 0) barrier_init(full, 1);
  CLUSTER_SYNC();
  if (cluster_rank() == 0) fence_proxy_async();
  CLUSTER_SYNC();
  if (threadIdx.x == 0) {
    barrier_arrive(full, kBytes);
    bulk_load(dynamic_shared(), out + blockIdx.x * 64, kBytes, full);
  }
  barrier_wait(full, 0);
}

struct Planted {
  const char* name;
  void (*kernel)(float*, int);
};
#define PLANTED(kernel) {#kernel, kernel}
const Planted kPlanted[] = {
    PLANTED(exchange),
    PLANTED(two_exchanges),
    PLANTED(static_exchange),
    PLANTED(cluster_in_place),
    PLANTED(copies_of_each_block),
    PLANTED(block_barrier_for_cluster),
    PLANTED(write_after_arrival),
    PLANTED(overwritten_while_read),
    PLANTED(never_written_there),
    PLANTED(across_clusters),
    PLANTED(before_the_barrier),
    PLANTED(between_arrival_and_wait),
    PLANTED(ends_while_read),
    PLANTED(one_block_ends_while_read),
    PLANTED(wrong_rank),
    PLANTED(rank_of_the_grid),
    PLANTED(foreign_address),
    PLANTED(one_block_alone),
    PLANTED(one_thread_less),
    PLANTED(wait_alone),
    PLANTED(arrival_twice),
    PLANTED(arrival_at_the_end),
    PLANTED(fence_of_another_block),
};

}  // namespace
}  // namespace fused_mixup

int planted_cluster(const char* name, float* out, int n) {
  using namespace fused_mixup;
  for (const Planted& p : kPlanted) {
    if (std::strcmp(p.name, name) != 0) continue;
    return launch_clusters(p.kernel, 2, 2, dim3(64), 128 * sizeof(float), nullptr, out, n);
  }
  return -1;
}
