// Instantiates the kernel of draw_plan, without PyTorch: tests/test_cuda_build.py compiles it.
#include "../../csrc/cuda/plan.cuh"

using namespace fused_mixup;

cudaError_t every_plan_kernel(const PlanArgs& args) { return draw_plan(args); }
