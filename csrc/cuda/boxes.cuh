// mix_boxes: the bounding boxes that a mixed batch shows.
//
// A warp takes one sample: 32 boxes at a time, its own first, then its partner's. Each lane decides
// for one box (boxes.h); a vote tells it how many before it stay, which is where it writes. Read:
// each box twice, 16 bytes, from cache the second time. Written: each place once.
#pragma once

#include "../common/boxes.h"
#include "vec.cuh"

namespace fused_mixup {

struct BoxArgs {
  DType dtype;        // kFloat or kDouble
  const void* boxes;  // device [B, N, 4]
  int64_t batch, most;
  const void* given;  // device [B]: how many boxes each sample has, or null: N
  bool given_wide;    // int64, else int32
  int pairing;
  const int32_t* partner;  // device [B], for kTensor
  const double* blend;     // device [B, 2], or null: blend_row serves all
  const int32_t* box;      // device [B, 4], or null: box_row serves all, where has_boxes
  double blend_row[2];
  int32_t box_row[4];
  bool has_boxes;
  double min_visible;
  void* out;        // device [B, 2 N, 4]
  int32_t* source;  // device [B, 2 N]
  float* weight;    // device [B, 2 N]
  int32_t* count;   // device [B]
  cudaStream_t stream;
};

constexpr int kBoxThreads = 128;
constexpr int kBoxWarps = kBoxThreads / 32;  // samples of a block

__device__ __forceinline__ int64_t boxes_of(const BoxArgs& a, int64_t i) {
  if (a.given == nullptr) return a.most;
  const int64_t n = a.given_wide ? static_cast<const int64_t*>(a.given)[i]
                                 : static_cast<const int32_t*>(a.given)[i];
  return n < 0 ? 0 : n > a.most ? a.most : n;
}

template <typename A>
__global__ void __launch_bounds__(kBoxThreads) boxes_kernel(const __grid_constant__ BoxArgs a) {
  const int64_t i =
      static_cast<int64_t>(blockIdx.x) * kBoxWarps + static_cast<int>(threadIdx.x) / 32;
  if (i >= a.batch) return;  // the whole warp
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t p = partner_of(a.pairing, a.partner, i, a.batch);
  const int32_t* box = a.box != nullptr ? a.box + 4 * i : a.has_boxes ? a.box_row : nullptr;
  const BoxMix<A> mix(a.blend != nullptr ? a.blend + 2 * i : a.blend_row, box, p == i,
                      a.min_visible);
  const Corners<A>* boxes = static_cast<const Corners<A>*>(a.boxes);
  const int64_t own = boxes_of(a, i), total = own + (p == i ? 0 : boxes_of(a, p));
  const int64_t room = 2 * a.most;
  Corners<A>* out = static_cast<Corners<A>*>(a.out) + i * room;
  int32_t* source = a.source + i * room;
  float* weight = a.weight + i * room;
  int64_t count = 0;
  for (int64_t first = 0; first < total; first += 32) {
    const int64_t k = first + lane;
    const bool is_own = k < own;
    ShownBox<A> shown = {};
    if (is_own) {
      shown = mix.own_box(boxes[i * a.most + k]);
    } else if (k < total) {
      shown = mix.partner_box(boxes[p * a.most + k - own]);
    }
    const unsigned stay = __ballot_sync(0xffffffffu, shown.stays);
    if (shown.stays) {
      const int64_t at = count + __popc(stay & ((1u << lane) - 1));
      out[at] = shown.at;
      source[at] = static_cast<int32_t>(is_own ? k : k - own + a.most);
      weight[at] = shown.weight;
    }
    count += __popc(stay);
  }
  for (int64_t k = count + lane; k < room; k += 32) {
    out[k] = {};
    source[k] = -1;
    weight[k] = 0.0f;
  }
  if (lane == 0) a.count[i] = static_cast<int32_t>(count);
}

inline cudaError_t mix_boxes(const BoxArgs& a) {
  if (a.batch == 0) return cudaSuccess;
  const int64_t blocks = (a.batch + kBoxWarps - 1) / kBoxWarps;
  const dim3 block(kBoxThreads);
  if (a.dtype == kDouble) return launch(boxes_kernel<double>, blocks, block, 0, a.stream, a);
  return launch(boxes_kernel<float>, blocks, block, 0, a.stream, a);
}

}  // namespace fused_mixup
