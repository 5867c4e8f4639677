// Instantiates every loss kernel, without PyTorch: tests/test_cuda_build.py compiles it.
#include "../../csrc/cuda/bce.cuh"
#include "../../csrc/cuda/loss.cuh"
#include "../../csrc/cuda/scale.cuh"

using namespace fused_mixup;

cudaError_t every_loss_kernel(const LossArgs& loss, const BinaryArgs& binary,
                              const ScaleArgs& scaled) {
  const cudaError_t error = soft_target_cross_entropy(loss);
  if (error != cudaSuccess) return error;
  const cudaError_t other = soft_target_binary_cross_entropy(binary);
  return other == cudaSuccess ? scale(scaled) : other;
}
