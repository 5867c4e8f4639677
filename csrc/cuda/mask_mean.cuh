// mask_mean: the mean of each sample's mask.
//
// A block takes one sample; a warp takes lines of the image. The values are summed as whole numbers
// of 2^-24, so that the order of the sum changes no bit. Written: one number per sample.
#pragma once

#include "mask_values.cuh"

namespace fused_mixup {

struct MaskMeanArgs {
  MaskArgs mask;  // on the device
  int64_t batch;
  float* out;  // device [B]
  cudaStream_t stream;
};

struct MaskMeanParams {
  MaskParams mask;
  float* out;
};

constexpr int kMeanThreads = 512;

__global__ void __launch_bounds__(kMeanThreads)
    mask_mean_kernel(const __grid_constant__ MaskMeanParams p) {
  auto& sums = block_shared<int64_t[kMeanThreads / 32]>();
  const int64_t i = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const MaskArgs& a = p.mask.args;
  const SampleMask mask(a, i);
  if (!mask.masked()) {  // the whole block
    if (threadIdx.x == 0) p.out[i] = 1.0f;
    return;
  }
  int64_t total = 0;
  for (int y = warp; y < a.height; y += kMeanThreads / 32) {
    for (int x = lane; x < a.width; x += 32) {
      float m[1];
      mask_values<1>(p.mask, mask, Pixels{y, x, 1, 0}, m);
      total += whole_mask(m[0]);
    }
  }
#pragma unroll
  for (int by = 16; by > 0; by /= 2) total += __shfl_xor_sync(0xffffffffu, total, by);
  if (lane == 0) sums[warp] = total;
  __syncthreads();  // thread 0 reads what every warp wrote
  if (threadIdx.x != 0) return;
  total = 0;
  for (int w = 0; w < kMeanThreads / 32; ++w) total += sums[w];
  p.out[i] = mean_of_mask(total, a.height, a.width);
}

inline cudaError_t mask_mean(const MaskMeanArgs& a) {
  if (a.batch == 0) return cudaSuccess;
  MaskMeanParams p = {};
  p.mask.args = a.mask;
  p.mask.ratio_y = map_ratio(a.mask.map_height, a.mask.height);
  p.mask.ratio_x = map_ratio(a.mask.map_width, a.mask.width);
  p.out = a.out;
  return launch(mask_mean_kernel, a.batch, dim3(kMeanThreads), 0, a.stream, p);
}

}  // namespace fused_mixup
