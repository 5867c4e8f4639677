// C entry points to the kernels of masks, run on the host (see cuda_host.h).
#include <cstdint>

extern int64_t host_max_count;  // of driver_mix.cpp
#define FUSED_MIXUP_MAX_COUNT host_max_count

#include "../../csrc/cuda/mask_mean.cuh"
#include "../../csrc/cuda/mix_masked.cuh"

using namespace fused_mixup;

extern "C" {

// Every member is 8 bytes wide, so that ctypes lays it out alike.
struct HostMask {
  const int32_t* code;
  int64_t code_stride;
  const float* threshold;
  int64_t threshold_stride;
  const float* rows;
  int64_t rows_stride;
  const float* columns;
  int64_t columns_stride, rank;
  const void* map;
  int64_t map_stride, map_type, map_height, map_width, interpolation, height, width;
};

struct HostMasked {
  int64_t form;  // 0 in place, 1 out of place, 2 transposed
  int64_t dtype;
  void* dst;
  const void* src;
  int64_t batch, dst_batch_stride, src_batch_stride, ndim;
  const int64_t *sizes, *dst_strides, *src_strides;
  const void* other;  // or null
  int64_t others, other_batch_stride;
  const int64_t* other_strides;
  void* clean;  // or null
  int64_t spatial, pairing;
  const int32_t *partner, *sources, *offsets;
  const double* blend;      // [B, 2] or null
  const int32_t* box;       // [B, 2D] or null
  const double* blend_row;  // [2] or null
  const int32_t* box_row;   // [2D] or null
  HostMask mask;
};
}

namespace {

MaskArgs mask_args(const HostMask& h) {
  MaskArgs a;
  a.code = h.code;
  a.code_stride = h.code_stride;
  a.threshold = h.threshold;
  a.threshold_stride = h.threshold_stride;
  a.rows = h.rows;
  a.rows_stride = h.rows_stride;
  a.columns = h.columns;
  a.columns_stride = h.columns_stride;
  a.rank = static_cast<int>(h.rank);
  a.map = h.map;
  a.map_stride = h.map_stride;
  a.map_type = static_cast<MapType>(h.map_type);
  a.map_height = static_cast<int>(h.map_height);
  a.map_width = static_cast<int>(h.map_width);
  a.interpolation = static_cast<int>(h.interpolation);
  a.height = static_cast<int>(h.height);
  a.width = static_cast<int>(h.width);
  return a;
}

}  // namespace

extern "C" {

EXPORT int host_mix_masked(const HostMasked* h) {
  MixMaskedArgs a = {};
  a.dtype = static_cast<DType>(h->dtype);
  a.samples = {h->dst,
               h->src,
               h->batch,
               h->dst_batch_stride,
               h->src_batch_stride,
               static_cast<int>(h->ndim),
               h->sizes,
               h->dst_strides,
               h->src_strides};
  a.other = h->other;
  a.others = h->others;
  a.other_batch_stride = h->other_batch_stride;
  a.other_strides = h->other_strides;
  a.clean = h->clean;
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
  a.mask = mask_args(h->mask);
  return h->form == 0   ? mix_masked_inplace(a)
         : h->form == 1 ? mix_masked_outplace(a)
                        : mix_masked_transposed(a);
}

EXPORT int host_mask_mean(const HostMask* mask, int64_t batch, float* out) {
  MaskMeanArgs a = {};
  a.mask = mask_args(*mask);
  a.batch = batch;
  a.out = out;
  return mask_mean(a);
}
}
