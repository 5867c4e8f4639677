// Instantiates every kernel of masks, without PyTorch: tests/test_cuda_build.py compiles it.
#include "../../csrc/cuda/mask_mean.cuh"
#include "../../csrc/cuda/mix_masked.cuh"

using namespace fused_mixup;

cudaError_t every_masked_kernel(const MixMaskedArgs& mix, const MaskMeanArgs& mean) {
  cudaError_t error = mix_masked_inplace(mix);
  if (error == cudaSuccess) error = mix_masked_outplace(mix);
  if (error == cudaSuccess) error = mix_masked_transposed(mix);
  return error == cudaSuccess ? mask_mean(mean) : error;
}
