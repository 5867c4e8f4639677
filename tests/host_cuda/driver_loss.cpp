// C entry points to the loss kernels, run on the host (see cuda_host.h).
#include "../../csrc/cuda/bce.cuh"
#include "../../csrc/cuda/loss.cuh"
#include "../../csrc/cuda/scale.cuh"

using namespace fused_mixup;

extern "C" {

// Every member is 8 bytes wide, so that ctypes lays it out alike.
struct HostLoss {
  int64_t binary, forward, dtype;
  const void* logits;
  Strides logits_at;
  int64_t batch, classes, positions;
  const void* target;
  int64_t target_dtype;
  Strides target_at;
  const int64_t *labels, *partner_labels;
  const float *weight, *weight_row;
  int64_t ignore_index;
  const void *class_weight, *pos_weight;
  double target_smoothing, label_smoothing, focal_gamma, z_loss;
  int64_t has_threshold;
  double threshold;
  int64_t reduction;
  void *row_losses, *element_losses, *loss, *count, *stats;
  int32_t* ranks;
  int64_t rank_planes;
  const void* grad_loss;
  Strides grad_loss_at;
  void* grad;
  Strides grad_at;
  double divisor;
  int64_t cluster_blocks, shared_limit;
};

}  // extern "C"

namespace {

CallArgs call_of(const HostLoss& h) {
  CallArgs a = {};
  a.dtype = static_cast<DType>(h.dtype);
  a.logits = h.logits;
  a.logits_at = h.logits_at;
  a.batch = h.batch;
  a.classes = h.classes;
  a.positions = h.positions;
  a.target = h.target;
  a.target_dtype = static_cast<DType>(h.target_dtype);
  a.target_at = h.target_at;
  a.labels = h.labels;
  a.partner_labels = h.partner_labels;
  a.weight = h.weight;
  if (h.weight_row != nullptr) {
    a.weight_row[0] = h.weight_row[0];
    a.weight_row[1] = h.weight_row[1];
  }
  a.class_weight = h.class_weight;
  a.target_smoothing = h.target_smoothing;
  a.reduction = static_cast<int>(h.reduction);
  a.forward = h.forward != 0;
  a.row_losses = h.row_losses;
  a.loss = h.loss;
  a.grad = h.grad;
  a.grad_at = h.grad_at;
  a.grad_loss = h.grad_loss;
  a.grad_loss_at = h.grad_loss_at;
  return a;
}

// Allocates scratch of exactly the size asked for, so that the address sanitizer sees its ends.
template <typename F>
cudaError_t with_scratch(int64_t sums, bool wanted, F&& f) {
  LossSum* scratch = wanted ? new LossSum[static_cast<size_t>(sums)] : nullptr;
  const cudaError_t error = f(scratch);
  delete[] scratch;
  return error;
}

}  // namespace

extern "C" {

// The blocks of a cluster, bytes between two buffers and bytes of shared memory for a row of
// `classes` logits; target_dtype -1: labels.
EXPORT void host_cluster_shape(int64_t dtype, int64_t classes, int64_t target_dtype,
                               int64_t cluster_blocks, int64_t shared_limit, int64_t* out) {
  LossArgs a = {};
  a.dtype = static_cast<DType>(dtype);
  a.classes = classes;
  if (target_dtype >= 0) a.target = out;  // any address: it is not read
  a.target_dtype = static_cast<DType>(target_dtype);
  a.cluster_blocks = static_cast<int>(cluster_blocks);
  a.shared_limit = shared_limit;
  with_floating(a.dtype, [&](auto z) {
    const ClusterShape shape = cluster_shape<decltype(z)>(a);
    out[0] = shape.blocks;
    out[1] = shape.buffer;
    out[2] = static_cast<int64_t>(shape.shared);
    return cudaSuccess;
  });
}

EXPORT int host_loss(const HostLoss* h) {
  if (h->binary != 0) {
    BinaryArgs a = {};
    static_cast<CallArgs&>(a) = call_of(*h);
    a.pos_weight = h->pos_weight;
    a.has_threshold = h->has_threshold != 0;
    a.threshold = h->threshold;
    a.focal_gamma = h->focal_gamma;
    a.element_losses = h->element_losses;
    a.divisor = h->divisor;
    return with_scratch(binary_scratch(a), h->loss != nullptr, [&](LossSum* scratch) {
      a.partials = scratch;
      return soft_target_binary_cross_entropy(a);
    });
  }
  LossArgs a = {};
  static_cast<CallArgs&>(a) = call_of(*h);
  a.ignore_index = h->ignore_index;
  a.label_smoothing = h->label_smoothing;
  a.focal_gamma = h->focal_gamma;
  a.z_loss = h->z_loss;
  a.stats = h->stats;
  a.count = h->count;
  a.ranks = h->ranks;
  a.rank_planes = static_cast<int>(h->rank_planes);
  a.cluster_blocks = static_cast<int>(h->cluster_blocks);
  a.shared_limit = h->shared_limit;
  const bool counts = a.forward && h->count != nullptr;
  return with_scratch(loss_scratch(a), counts, [&](LossSum* scratch) {
    a.partials = scratch;
    return soft_target_cross_entropy(a);
  });
}

EXPORT int host_scale(int64_t dtype, void* x, const void* factor, int64_t batch,
                      int64_t batch_stride, int64_t ndim, const int64_t* sizes,
                      const int64_t* strides) {
  ScaleArgs a = {};
  a.dtype = static_cast<DType>(dtype);
  a.factor = factor;
  a.samples = {x,     x,       batch,  batch_stride, batch_stride, static_cast<int>(ndim),
               sizes, strides, strides};
  return scale(a);
}
}
