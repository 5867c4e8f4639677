// Instantiates every kernel of mix_normalize, without PyTorch: tests/test_cuda_build.py compiles
// it.
#include "../../csrc/cuda/mix_normalize.cuh"

using namespace fused_mixup;

cudaError_t every_normalize_kernel(const NormalizeArgs& args) { return mix_normalize(args); }
