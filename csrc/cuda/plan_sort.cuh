// A bitonic sort by one block, for up to 2^16 keys that are all distinct.
//
// The smaller key of a pair always goes to the lower place, also in the first step of a merge,
// which pairs the ends of two runs. So the keys need no padding: keys beyond the last would be
// larger than all others, and no step would move them.
#pragma once

#include "launch.cuh"

namespace fused_mixup {

constexpr int kChunk = 4096;  // keys that fit shared memory without the opt-in to more

// A warp owns runs of 64 places: in steps within them its threads wait only for each other.
constexpr int kWarpSpan = 64;

// One step on keys [n]: in each run of `span` places it compares pairs that are half a span apart,
// or (first) at equal distances from both ends. settle() orders its memory accesses.
__device__ __forceinline__ void sort_step(int64_t* keys, int n, int span, bool first) {
  const int half = span / 2;
  for (int t = static_cast<int>(threadIdx.x);; t += static_cast<int>(blockDim.x)) {
    const int at = t & (half - 1), run = 2 * (t - at);  // half is a power of two
    if (run >= n) break;
    const int low = run + at, high = first ? run + span - 1 - at : low + half;
    if (high >= n) continue;
    const int64_t a = keys[low], b = keys[high];
    if (a > b) {
      keys[low] = b;
      keys[high] = a;
    }
  }
}

// Stands after each step within runs of `span` places. The next step works within half of them or,
// after the last step of a merge, within runs of twice the merged places.
__device__ __forceinline__ void settle(int n, int span, int merged) {
  const int next = span > 2 ? span / 2 : merged < n ? 2 * merged : n;
  if (span <= kWarpSpan && next <= kWarpSpan && (span > 2 || merged < n)) {
    __syncwarp();  // both steps stay within what this warp owns
  } else {
    __syncthreads();  // the next step reads places that other warps have written
  }
}

// Merges keys [n] into sorted runs of `merged`, from the step within runs of `span` on.
__device__ __forceinline__ void merge_runs(int64_t* keys, int n, int span, int merged) {
  for (; span > 1; span /= 2) {
    sort_step(keys, n, span, span == merged);
    settle(n, span, merged);
  }
}

// Sorts keys that every thread of the block may read and write. All threads may read them
// afterwards.
__device__ __forceinline__ void sort_keys(int64_t* keys, int n) {
  for (int merged = 2; merged < 2 * n; merged *= 2) merge_runs(keys, n, merged, merged);
}

// sort_keys() for keys in global memory, through `chunk` in shared memory. 2^16 keys take 136
// steps, of which 10 compare keys of two chunks, in global memory.
__device__ __forceinline__ void sort_keys_by(int64_t* chunk, int64_t* keys, int n) {
  const int tid = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  for (int merged = kChunk; merged == kChunk || merged < 2 * n; merged *= 2) {
    for (int span = merged; span > kChunk; span /= 2) {
      sort_step(keys, n, span, span == merged);
      __syncthreads();  // the next step reads keys that other threads have written
    }
    for (int start = 0; start < n; start += kChunk) {
      const int count = n - start < kChunk ? n - start : kChunk;
      for (int t = tid; t < count; t += threads) chunk[t] = keys[start + t];
      __syncthreads();  // the chunk is complete
      if (merged == kChunk) {
        sort_keys(chunk, count);
      } else {
        merge_runs(chunk, count, kChunk, merged);
      }
      for (int t = tid; t < count; t += threads) keys[start + t] = chunk[t];
    }
    __syncthreads();  // all chunks are back where the next merge reads them
  }
}

}  // namespace fused_mixup
