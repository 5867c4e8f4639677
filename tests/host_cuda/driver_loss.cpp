// C entry points to the loss kernels, run on the host (see cuda_host.h).
#include "../../csrc/cuda/loss.cuh"

using namespace fused_mixup;

extern "C" {

// Every member is 8 bytes wide, so that ctypes lays it out alike.
struct HostLoss {
  int64_t backward, dtype;
  const void* logits;
  int64_t batch, classes, row_stride, column_stride;
  const void* target;
  int64_t target_dtype, target_row_stride, target_column_stride;
  const int64_t *labels, *partner_labels;
  const float *weight, *weight_row;
  double target_smoothing, label_smoothing;
  int64_t reduction;
  void *rows, *loss, *stats;
  const void* grad_loss;
  int64_t grad_loss_stride;
  void* grad;
  int64_t grad_row_stride, grad_column_stride;
};

EXPORT int host_loss(const HostLoss* h) {
  LossArgs a = {};
  a.dtype = static_cast<DType>(h->dtype);
  a.logits = h->logits;
  a.batch = h->batch;
  a.classes = h->classes;
  a.row_stride = h->row_stride;
  a.column_stride = h->column_stride;
  a.target = h->target;
  a.target_dtype = static_cast<DType>(h->target_dtype);
  a.target_row_stride = h->target_row_stride;
  a.target_column_stride = h->target_column_stride;
  a.labels = h->labels;
  a.partner_labels = h->partner_labels;
  a.weight = h->weight;
  if (h->weight_row != nullptr) {
    a.weight_row[0] = h->weight_row[0];
    a.weight_row[1] = h->weight_row[1];
  }
  a.target_smoothing = h->target_smoothing;
  a.label_smoothing = h->label_smoothing;
  a.reduction = static_cast<int>(h->reduction);
  a.rows = h->rows;
  a.loss = h->loss;
  a.stats = h->stats;
  a.grad_loss = h->grad_loss;
  a.grad_loss_stride = h->grad_loss_stride;
  a.grad = h->grad;
  a.grad_row_stride = h->grad_row_stride;
  a.grad_column_stride = h->grad_column_stride;
  return h->backward != 0 ? soft_target_cross_entropy_backward(a) : soft_target_cross_entropy(a);
}
}
