// C entry points to the kernels of mix_rectangles and mix_patches, run on the host (see
// cuda_host.h).
#include <cstdint>

extern int64_t host_max_count;  // of driver_mix.cpp
#define FUSED_MIXUP_MAX_COUNT host_max_count

#include "../../csrc/cuda/patches.cuh"
#include "../../csrc/cuda/rectangles.cuh"

using namespace fused_mixup;

extern "C" {

// Every member is 8 bytes wide, so that ctypes lays it out alike.
struct HostImages {
  int64_t ndim;
  const int64_t *sizes, *dst_strides, *src_strides, *other_strides;
};

struct HostRectangles {
  HostImages images;
  int64_t dtype, element_size;
  void* dst;
  const void *own, *other;
  int64_t batch, samples, height, width, count, resample;
  const int32_t *source, *source_box, *box;
  const float* scale;
  const void* fill;  // an element, or null
};

EXPORT int host_mix_rectangles(const HostRectangles* h) {
  RectangleArgs a = {};
  RectangleParams& p = a.params;
  a.dtype = static_cast<DType>(h->dtype);
  a.element_size = static_cast<int>(h->element_size);
  a.batch = h->batch;
  const HostImages& i = h->images;
  a.shape =
      line_shape(i.sizes, static_cast<int>(i.ndim), {i.dst_strides, i.src_strides, i.other_strides},
                 {&p.dst_stride, &p.own_stride, &p.image_stride});
  p.dst = h->dst;
  p.own = h->fill != nullptr ? nullptr : h->own;
  p.images = h->other;
  p.samples = h->samples;
  p.image_height = h->height;
  p.image_width = h->width;
  p.count = static_cast<int>(h->count);
  p.resample = static_cast<int>(h->resample);
  p.source = h->source;
  p.source_box = h->source_box;
  p.box = h->box;
  p.scale = h->scale;
  if (h->fill != nullptr) memcpy(&p.fill, h->fill, h->element_size);
  return mix_rectangles(a);
}

struct HostSide {
  const int32_t *sample, *index;
  int64_t each, rows, columns;
};

struct HostPatches {
  HostImages images;
  int64_t dtype, element_size;
  void* dst;
  const void* src;
  int64_t batch;
  HostSide own, other;
  const float* mask;
  int64_t mask_rows, mask_columns;
};

EXPORT int host_mix_patches(const HostPatches* h) {
  PatchArgs a = {};
  PatchParams& p = a.params;
  a.dtype = static_cast<DType>(h->dtype);
  a.element_size = static_cast<int>(h->element_size);
  const HostImages& i = h->images;
  a.shape = line_shape(i.sizes, static_cast<int>(i.ndim), {i.dst_strides, i.src_strides},
                       {&p.dst_stride, &p.src_stride});
  p.dst = h->dst;
  p.src = h->src;
  p.batch = h->batch;
  const auto side = [](const HostSide& s) {
    return PatchSide{s.sample, s.index, s.each != 0, s.rows, s.columns};
  };
  p.own.side = side(h->own);
  p.other.side = side(h->other);
  p.mask = h->mask;
  p.mask_rows = h->mask_rows;
  p.mask_columns = h->mask_columns;
  return mix_patches(a);
}
}
