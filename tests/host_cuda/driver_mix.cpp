// C entry points to the mix kernels, mix_targets and mix_boxes, run on the host (see cuda_host.h).
#include <cstdint>
#include <vector>

// A test may lower this: samples with more vectors are mixed in halves (mix.cuh), images with more
// groups of pixels one element at a time (driver_normalize.cpp).
int64_t host_max_count = int64_t{1} << 31;
#define FUSED_MIXUP_MAX_COUNT host_max_count
// And this: the blocks from which a block does several rounds (mix_rows.cuh).
int64_t host_enough_blocks = 4096;
#define FUSED_MIXUP_ENOUGH_BLOCKS host_enough_blocks

#include "../../csrc/cuda/boxes.cuh"
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
  int64_t shared_limit, ring_blocks, wide;
};

// Lets mixes be dependent launches: they await the kernel in front.
static bool starts_early = false;
EXPORT void host_set_starts_early(int64_t early) { starts_early = early != 0; }

EXPORT int host_mix(const HostMix* h) {
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
  a.starts_early = starts_early;
  a.ring_blocks = static_cast<int>(h->ring_blocks);
  a.wide = h->wide != 0;
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

EXPORT int host_mix_targets(int64_t dtype, void* out, const int64_t* labels, int64_t batch,
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

// Every member is 8 bytes wide, as above.
struct HostBoxes {
  int64_t dtype;
  const void* boxes;
  int64_t batch, most;
  const void* given;
  int64_t given_wide, pairing;
  const int32_t* partner;
  const double *blend, *blend_row;
  const int32_t *box, *box_row;
  double min_visible;
  void* out;
  int32_t* source;
  float* weight;
  int32_t* count;
};

EXPORT int host_mix_boxes(const HostBoxes* h) {
  BoxArgs a = {};
  a.dtype = static_cast<DType>(h->dtype);
  a.boxes = h->boxes;
  a.batch = h->batch;
  a.most = h->most;
  a.given = h->given;
  a.given_wide = h->given_wide != 0;
  a.pairing = static_cast<int>(h->pairing);
  a.partner = h->partner;
  a.blend = h->blend;
  if (h->blend_row != nullptr) {
    a.blend_row[0] = h->blend_row[0];
    a.blend_row[1] = h->blend_row[1];
  }
  a.box = h->box;
  a.has_boxes = h->box != nullptr || h->box_row != nullptr;
  if (h->box_row != nullptr) {
    for (int k = 0; k < 4; ++k) a.box_row[k] = h->box_row[k];
  }
  a.min_visible = h->min_visible;
  a.out = h->out;
  a.source = h->source;
  a.weight = h->weight;
  a.count = h->count;
  return mix_boxes(a);
}

// Bytes of a piece and number of stages, or zeros.
EXPORT void host_ring_shape(int64_t batch, int64_t vectors, int64_t spatial, int64_t shared_limit,
                            int64_t blocks, int64_t* out) {
  const RingShape shape =
      ring_shape(batch, vectors, static_cast<int>(spatial), shared_limit, static_cast<int>(blocks));
  out[0] = shape.stages > 0 ? 16 << shape.log2_width : 0;
  out[1] = shape.stages;
}

EXPORT void host_set_enough_blocks(int64_t blocks) { host_enough_blocks = blocks; }

EXPORT int64_t host_long_div(int64_t n, int64_t divisor) { return LongDiv(divisor).div(n); }

EXPORT void host_set_max_count(int64_t count) { host_max_count = count; }
}
