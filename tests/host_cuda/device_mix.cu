// Instantiates every mix, target and box kernel, without PyTorch: tests/test_cuda_build.py compiles
// it.
#include "../../csrc/cuda/boxes.cuh"
#include "../../csrc/cuda/mix.cuh"
#include "../../csrc/cuda/targets.cuh"

using namespace fused_mixup;

cudaError_t every_mix_kernel(const MixArgs& mix, const TargetArgs& targets) {
  cudaError_t error = mix_inplace(mix);
  if (error == cudaSuccess) error = mix_outplace(mix);
  if (error == cudaSuccess) error = mix_transposed(mix);
  if (error == cudaSuccess) error = paste_inplace(mix);
  return error == cudaSuccess ? mix_targets(targets) : error;
}

cudaError_t every_box_kernel(const BoxArgs& boxes) { return mix_boxes(boxes); }
