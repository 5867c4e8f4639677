// Kernels with bulk copies that are wrong on purpose, each in one way, and right ones: see
// driver_bugs.cpp. A block has 64 floats of `out` and room for two such stages.
#include <cstring>

#include "../../csrc/cuda/bulk.cuh"

namespace fused_mixup {
namespace {

constexpr unsigned kFloats = 64, kBytes = kFloats * sizeof(float);

struct Block {
  float* stage = static_cast<float*>(dynamic_shared());
  float* mine;
  uint64_t* full = block_shared<uint64_t[2]>();
  unsigned t = threadIdx.x;

  explicit Block(float* out) : mine(out + blockIdx.x * kFloats) {}

  // One thread prepares the barriers for all.
  void prepare(unsigned count = 1) const {
    if (t == 0) {
      barrier_init(full, count);
      barrier_init(full + 1, count);
      fence_proxy_async();
    }
    __syncthreads();
  }

  void load(unsigned expected = kBytes, unsigned bytes = kBytes) const {
    if (t != 0) return;
    barrier_arrive(full, expected);
    bulk_load(stage, mine, bytes, full);
  }

  void begin() const {
    prepare();
    load();
  }
};
// ------------------------------------------------------------------ right

__global__ void bulk_reversal(float* out, int) {
  const Block b(out);
  b.begin();
  barrier_wait(b.full, 0);
  b.mine[b.t] = b.stage[kFloats - 1 - b.t];
}

__global__ void bulk_one_waits_for_all(float* out, int) {
  const Block b(out);
  b.begin();
  if (b.t == 0) barrier_wait(b.full, 0);
  __syncthreads();
  b.mine[b.t] = b.stage[kFloats - 1 - b.t];
}

__global__ void bulk_over_fenced(float* out, int) {
  const Block b(out);
  b.stage[b.t] = 1.0f;
  fence_proxy_async();
  b.begin();
  barrier_wait(b.full, 0);
  b.mine[b.t] = b.stage[kFloats - 1 - b.t];
}

// Each quarter of the floats passes through one of two stages.
__global__ void bulk_ring(float* out, int) {
  const Block b(out);
  b.prepare();
  const unsigned part = kFloats / 4;
  const auto start = [&](unsigned n) {
    if (b.t != 0) return;
    barrier_arrive(b.full + n % 2, kBytes / 4);
    bulk_load(b.stage + n % 2 * kFloats, b.mine + n * part, kBytes / 4, b.full + n % 2);
  };
  start(0);
  for (unsigned n = 0; n < 4; ++n) {
    __syncthreads();
    if (n < 3) start(n + 1);
    barrier_wait(b.full + n % 2, n / 2 % 2);
    if (b.t < part) b.mine[n * part + b.t] = b.stage[n % 2 * kFloats + b.t] + 1.0f;
  }
}

// ------------------------------------------------------------------ wrong

__global__ void bulk_no_wait(float* out, int) {
  const Block b(out);
  b.begin();
  b.mine[b.t] = b.stage[b.t];
}

__global__ void bulk_one_waits(float* out, int) {
  const Block b(out);
  b.begin();
  if (b.t == 0) barrier_wait(b.full, 0);
  b.mine[b.t] = b.stage[b.t];
}

__global__ void bulk_wrong_parity(float* out, int) {
  const Block b(out);
  b.begin();
  barrier_wait(b.full, 1);
  b.mine[b.t] = b.stage[b.t];
}

__global__ void bulk_next_parity(float* out, int) {
  const Block b(out);
  b.begin();
  barrier_wait(b.full, 0);
  barrier_wait(b.full, 1);
}

__global__ void bulk_expects_too_much(float* out, int) {
  const Block b(out);
  b.prepare();
  b.load(kBytes, kBytes / 2);
  barrier_wait(b.full, 0);
}

__global__ void bulk_expects_too_little(float* out, int) {
  const Block b(out);
  b.prepare();
  b.load(kBytes / 2, kBytes);
  barrier_wait(b.full, 0);
}

__global__ void bulk_too_many_arrivals(float* out, int) {
  const Block b(out);
  b.prepare();
  if (b.t < 2) barrier_arrive(b.full, kBytes);
}

__global__ void bulk_too_few_arrivals(float* out, int) {
  const Block b(out);
  b.prepare(2);
  b.load();
  barrier_wait(b.full, 0);
}

__global__ void bulk_barrier_unfenced(float* out, int) {
  const Block b(out);
  if (b.t == 0) barrier_init(b.full, 1);
  __syncthreads();
  b.load();
  barrier_wait(b.full, 0);
}

__global__ void bulk_barrier_unset(float* out, int) {
  const Block b(out);
  b.load();
  barrier_wait(b.full, 0);
}

__global__ void bulk_barrier_unseen(float* out, int) {
  const Block b(out);
  if (b.t == 0) {
    barrier_init(b.full, 1);
    fence_proxy_async();
    b.load();
  }
  __syncwarp();
  barrier_wait(b.full, 0);
}

__global__ void bulk_misaligned(float* out, int) {
  const Block b(out);
  b.prepare();
  if (b.t == 0) bulk_load(b.stage, b.mine + 1, kBytes, b.full);
}

__global__ void bulk_ragged(float* out, int) {
  const Block b(out);
  b.prepare();
  b.load(kBytes - 4, kBytes - 4);
}

__global__ void bulk_behind_shared(float* out, int) {
  const Block b(out);
  b.prepare();
  if (b.t == 0) bulk_load(b.stage + 2 * kFloats, b.mine, kBytes, b.full);
}

__global__ void bulk_early_refill(float* out, int) {
  const Block b(out);
  b.begin();
  barrier_wait(b.full, 0);
  b.mine[b.t] = b.stage[kFloats - 1 - b.t];
  if (b.t == 0) {
    barrier_arrive(b.full + 1, kBytes);
    bulk_load(b.stage, out + 2 * kFloats, kBytes, b.full + 1);
  }
  barrier_wait(b.full + 1, 0);
}

__global__ void bulk_source_overwritten(float* out, int) {
  const Block b(out);
  b.begin();
  b.mine[b.t] = 1.0f;
  barrier_wait(b.full, 0);
}

__global__ void bulk_over_written(float* out, int) {
  const Block b(out);
  b.stage[b.t] = 1.0f;
  if (b.t == 0) fence_proxy_async();  // that of another thread is none
  b.begin();
  barrier_wait(b.full, 0);
}

// Copies read no bytes that their kernel has written, whatever it fences.
__global__ void bulk_source_written(float* out, int) {
  const Block b(out);
  b.mine[b.t] = 1.0f;
  fence_proxy_async();
  b.begin();
  barrier_wait(b.full, 0);
}

struct Planted {
  const char* name;
  void (*kernel)(float*, int);
};
#define PLANTED(kernel) {#kernel, kernel}
// clang-format off
const Planted kPlanted[] = {
    PLANTED(bulk_reversal), PLANTED(bulk_one_waits_for_all), PLANTED(bulk_ring), PLANTED(bulk_no_wait), PLANTED(bulk_one_waits),
    PLANTED(bulk_wrong_parity), PLANTED(bulk_next_parity), PLANTED(bulk_expects_too_much),
    PLANTED(bulk_expects_too_little), PLANTED(bulk_too_many_arrivals),
    PLANTED(bulk_too_few_arrivals), PLANTED(bulk_barrier_unfenced), PLANTED(bulk_barrier_unset),
    PLANTED(bulk_barrier_unseen), PLANTED(bulk_misaligned), PLANTED(bulk_ragged),
    PLANTED(bulk_behind_shared), PLANTED(bulk_early_refill), PLANTED(bulk_source_overwritten), PLANTED(bulk_source_written),
    PLANTED(bulk_over_written), PLANTED(bulk_over_fenced),
};
// clang-format on

}  // namespace
}  // namespace fused_mixup

extern "C" EXPORT int host_planted_bulk(const char* name, float* out, int64_t n) {
  using namespace fused_mixup;
  for (const Planted& p : kPlanted) {
    if (std::strcmp(p.name, name) != 0) continue;
    return launch_grid(p.kernel, dim3(2), dim3(kFloats), 2 * kBytes, nullptr, out,
                       static_cast<int>(n));
  }
  return -1;
}
