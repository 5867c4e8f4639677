// Instantiates every kernel of mix_rectangles and mix_patches, without PyTorch:
// tests/test_cuda_build.py compiles it.
#include "../../csrc/cuda/patches.cuh"
#include "../../csrc/cuda/rectangles.cuh"

using namespace fused_mixup;

cudaError_t every_rectangle_kernel(const RectangleArgs& args) { return mix_rectangles(args); }

cudaError_t every_patch_kernel(const PatchArgs& args) { return mix_patches(args); }
