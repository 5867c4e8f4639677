// C entry point to the kernels of mix_normalize, run on the host (see cuda_host.h).
#include <cstdint>

extern int64_t host_max_count;  // of driver_mix.cpp
#define FUSED_MIXUP_MAX_COUNT host_max_count

#include "../../csrc/cuda/mix_normalize.cuh"

using namespace fused_mixup;

extern "C" {

// Every member is 8 bytes wide, so that ctypes lays it out alike.
struct HostNormalize {
  int64_t in, out;
  void* dst;
  const void* src;
  int64_t batch, channels, height, width;
  int64_t dst_stride[4], src_stride[4];
  int64_t pairing;
  const int32_t* partner;
  const double *blend, *blend_row;  // [B, 2] or null; [2] or null
  int64_t spatial;
  const int32_t *box, *box_row;  // [B, 2D] or null; [2D] or null
  const uint8_t* flip;           // [B] or null
  int64_t first, erased;
  const int32_t* erase_box;
  const float* erase_value;
  int64_t value_stride[3];
  const int64_t* erase_noise;
  const double *mean, *std;  // [C]
};

EXPORT int host_mix_normalize(const HostNormalize* h) {
  NormalizeArgs a = {};
  a.in = static_cast<DType>(h->in);
  a.out = static_cast<DType>(h->out);
  NormalizeParams& p = a.params;
  p.dst = h->dst;
  p.src = h->src;
  p.batch = h->batch;
  p.channels = static_cast<int32_t>(h->channels);
  p.height = static_cast<int32_t>(h->height);
  p.width = static_cast<int32_t>(h->width);
  p.dst_stride = {h->dst_stride[0], h->dst_stride[1], h->dst_stride[2], h->dst_stride[3]};
  p.src_stride = {h->src_stride[0], h->src_stride[1], h->src_stride[2], h->src_stride[3]};
  p.pairing = static_cast<int>(h->pairing);
  p.partner = h->partner;
  p.blend = h->blend;
  if (h->blend_row != nullptr) {
    p.blend_row[0] = h->blend_row[0];
    p.blend_row[1] = h->blend_row[1];
  }
  p.spatial = static_cast<int>(h->spatial);
  p.box = h->box;
  if (h->box_row != nullptr) {
    for (int64_t k = 0; k < 2 * h->spatial; ++k) p.box_row[k] = h->box_row[k];
  }
  p.flip = h->flip;
  p.first = h->first != 0;
  p.erased = h->erased;
  p.erase_box = h->erase_box;
  p.erase_value = h->erase_value;
  p.value_batch = h->value_stride[0];
  p.value_box = h->value_stride[1];
  p.value_channel = h->value_stride[2];
  p.erase_noise = h->erase_noise;
  for (int64_t c = 0; c < h->channels; ++c) {
    p.mean[c] = static_cast<float>(h->mean[c]);
    p.std[c] = static_cast<float>(h->std[c]);
  }
  return mix_normalize(a);
}
}
