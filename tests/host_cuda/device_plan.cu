// Instantiates the kernels of draw_plan and draw_erasing, without PyTorch: tests/test_cuda_build.py
// compiles them.
#include "../../csrc/cuda/draw_erasing.cuh"
#include "../../csrc/cuda/plan.cuh"

using namespace fused_mixup;

cudaError_t every_plan_kernel(const PlanArgs& args) { return draw_plan(args); }
cudaError_t every_erasing_kernel(const ErasingLaunch& args) { return draw_erasing(args); }
