// Instantiates the kernels of draw_plan, draw_variants and the other draws, without PyTorch:
// tests/test_cuda_build.py compiles them.
#include "../../csrc/cuda/draw_erasing.cuh"
#include "../../csrc/cuda/draw_neighbors.cuh"
#include "../../csrc/cuda/draw_variants.cuh"
#include "../../csrc/cuda/plan.cuh"

using namespace fused_mixup;

cudaError_t every_plan_kernel(const PlanArgs& args) { return draw_plan(args); }
cudaError_t every_erasing_kernel(const ErasingLaunch& args) { return draw_erasing(args); }
cudaError_t every_variant_kernel(const VariantLaunch& args) { return draw_variants(args); }
cudaError_t every_neighbor_kernel(const NeighborLaunch& args) {
  const cudaError_t error = draw_neighbors<float>(args);
  return error != cudaSuccess ? error : draw_neighbors<double>(args);
}
