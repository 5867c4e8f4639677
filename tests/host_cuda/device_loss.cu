// Instantiates every loss kernel, without PyTorch: tests/test_cuda_build.py compiles it.
#include "../../csrc/cuda/loss.cuh"

using namespace fused_mixup;

cudaError_t every_loss_kernel(const LossArgs& args) {
  const cudaError_t error = soft_target_cross_entropy(args);
  return error == cudaSuccess ? soft_target_cross_entropy_backward(args) : error;
}
