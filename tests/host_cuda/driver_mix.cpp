// C entry points to the mix kernels and to mix_targets, run on the host (see cuda_host.h).
#include "../../csrc/cuda/mix.cuh"
#include "../../csrc/cuda/targets.cuh"

using namespace fused_mixup;

extern "C" {

// Every member is 8 bytes wide, so that ctypes lays it out alike.
struct HostMix {
  int64_t form;  // 0 in place, 1 out of place, 2 transposed, 3 paste
  int64_t dtype, element_size;
  void* dst;
  const void* src;
  int64_t batch, dst_batch_stride, src_batch_stride, ndim;
  const int64_t *sizes, *dst_strides, *src_strides;
  int64_t spatial, pairing;
  const int32_t *partner, *sources, *offsets;
  const double* blend;      // [B, 2] or null
  const int32_t* box;       // [B, 2D] or null
  const double* blend_row;  // [2] or null
  const int32_t* box_row;   // [2D] or null
  int64_t shared_limit;
};

int host_mix(const HostMix* h) {
  MixArgs a = {};
  a.dtype = static_cast<DType>(h->dtype);
  a.element_size = static_cast<int>(h->element_size);
  a.samples = {h->dst,
               h->src,
               h->batch,
               h->dst_batch_stride,
               h->src_batch_stride,
               static_cast<int>(h->ndim),
               h->sizes,
               h->dst_strides,
               h->src_strides};
  a.spatial = static_cast<int>(h->spatial);
  a.pairing = static_cast<int>(h->pairing);
  a.partner = h->partner;
  a.sources = h->sources;
  a.offsets = h->offsets;
  a.blend = h->blend;
  a.box = h->box;
  if (h->blend_row != nullptr) {
    a.blend_row[0] = h->blend_row[0];
    a.blend_row[1] = h->blend_row[1];
  }
  a.box_row = h->box_row;
  a.shared_limit = h->shared_limit;
  std::vector<int32_t> scratch(needs_scratch(a) ? 2 * h->batch : 0, -1);
  a.scratch = scratch.data();
  switch (h->form) {
    case 0:
      return mix_inplace(a);
    case 1:
      return mix_outplace(a);
    case 2:
      return mix_transposed(a);
    default:
      return paste_inplace(a);
  }
}

int host_mix_targets(int64_t dtype, void* out, const int64_t* labels, int64_t batch,
                     int64_t classes, int64_t rest, int64_t pairing, const int32_t* partner,
                     const float* weight, const float* weight_row, double label_smoothing) {
  TargetArgs a = {};
  a.dtype = static_cast<DType>(dtype);
  a.out = out;
  a.labels = labels;
  a.batch = batch;
  a.classes = classes;
  a.rest = rest;
  a.pairing = static_cast<int>(pairing);
  a.partner = partner;
  a.weight = weight;
  if (weight_row != nullptr) {
    a.weight_row[0] = weight_row[0];
    a.weight_row[1] = weight_row[1];
  }
  a.label_smoothing = label_smoothing;
  return mix_targets(a);
}

void host_set_order(int64_t order) {
  host_cuda::machine.order = static_cast<host_cuda::Order>(order);
}

const char* host_error() { return host_cuda::machine.error.c_str(); }

// Kernels that are wrong on purpose, to test the harness.
__global__ void early_exit_kernel() {
  if (threadIdx.x == 3) return;
  __syncthreads();
}
__global__ void missing_lane_kernel(float* out) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
__global__ void unwritten_shared_kernel(float* out) {
  out[threadIdx.x] = static_cast<float*>(dynamic_shared())[threadIdx.x];
}
__global__ void racy_kernel(float* out) {  // leans on the order of threads
  out[threadIdx.x] = threadIdx.x == 0 ? 1.0f : out[threadIdx.x - 1] + 1.0f;
}

int host_self_test(int64_t which, float* out) {
  switch (which) {
    case 0:
      return launch(early_exit_kernel, dim3(1), dim3(64), 0, nullptr);
    case 1:
      return launch(missing_lane_kernel, dim3(1), dim3(32), 0, nullptr, out);
    case 2:
      return launch(unwritten_shared_kernel, dim3(1), dim3(32), 32 * sizeof(float), nullptr, out);
    default:
      return launch(racy_kernel, dim3(1), dim3(32), 0, nullptr, out);
  }
}
}
