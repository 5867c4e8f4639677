// mix_masked_, mix_masked, mix_masked_out and mix_masked_backward on raw arguments: chooses the
// kernel.
//
//   out[i, p] = x[partner_i, p] where p lies in box_i, else m x[i, p] + (1 - m) x[partner_i, p]
//   with the mask m of sample i at the pixel of p; a sample without a mask is mixed as by mix()
//
//   flip, self         mix_masked_pair.cuh     in and out of place, and the transpose
//   all else           mix_masked_gather.cuh   out of place, and the transpose
#pragma once

#include "mix_masked_gather.cuh"
#include "mix_masked_pair.cuh"

namespace fused_mixup {

struct MixMaskedArgs {
  DType dtype;
  Samples samples;
  // Partners are taken from `others` samples of their own, with the sizes of x; null: from x.
  const void* other;
  int64_t others, other_batch_stride;
  const int64_t* other_strides;
  void* clean;  // takes x, with the strides of the destination; or null
  int spatial;  // D, 0 for no boxes
  int pairing;
  const int32_t* partner;  // device [B], for kTensor
  const int32_t* sources;  // device [B], for the transpose of kTensor
  const int32_t* offsets;  // device [B+1], likewise
  const double* blend;     // device [B, 2], or null: blend_row serves all
  const int32_t* box;      // device [B, 2D], or null: box_row serves all
  double blend_row[2];
  const int32_t* box_row;  // host [2D], or null for no box
  MaskArgs mask;           // on the device
  cudaStream_t stream;
};

enum class MaskedForm { kInPlace, kOutOfPlace, kTransposed };

template <typename T, int V, MaskedForm kForm>
cudaError_t launch_masked(const MaskedParams& p, cudaStream_t stream) {
  constexpr bool kTransposed = kForm == MaskedForm::kTransposed;
  const bool pairs = p.pairing == kFlip || p.pairing == kSelf;
  if constexpr (kForm == MaskedForm::kInPlace) {
    return pairs ? launch_masked_pair<T, V, false>(p, stream) : cudaErrorInvalidValue;
  } else {
    if (pairs && p.other == p.src && p.clean == nullptr) {
      return launch_masked_pair<T, V, kTransposed>(p, stream);
    }
    return launch_masked_gather<T, V, kTransposed>(p, stream);
  }
}

template <typename T, MaskedForm kForm>
cudaError_t mix_masked_typed(const MixMaskedArgs& a);

// Mixes the halves of a sample that is too large for 32-bit coordinates, along a dim outside the
// image and the boxes.
template <typename T, MaskedForm kForm>
cudaError_t mix_masked_halves(const MixMaskedArgs& a, int axes) {
  const Samples& s = a.samples;
  int halved = -1;
  for (int k = 0; k < s.ndim - axes; ++k) {
    if (s.sizes[k] > 1 && (halved < 0 || s.sizes[k] > s.sizes[halved])) halved = k;
  }
  if (halved < 0) return cudaErrorInvalidValue;
  int64_t sizes[kMaxDims];
  for (int k = 0; k < s.ndim; ++k) sizes[k] = s.sizes[k];
  const int64_t first = s.sizes[halved] / 2;
  MixMaskedArgs part = a;
  part.samples.sizes = sizes;
  sizes[halved] = first;
  const cudaError_t error = mix_masked_typed<T, kForm>(part);
  if (error != cudaSuccess) return error;
  sizes[halved] = s.sizes[halved] - first;
  part.samples.dst = static_cast<T*>(s.dst) + first * s.dst_strides[halved];
  part.samples.src = static_cast<const T*>(s.src) + first * s.src_strides[halved];
  if (a.other != nullptr) {
    part.other = static_cast<const T*>(a.other) + first * a.other_strides[halved];
  }
  if (a.clean != nullptr) part.clean = static_cast<T*>(a.clean) + first * s.dst_strides[halved];
  return mix_masked_typed<T, kForm>(part);
}

// The geometries of the samples and of a pool of partners, which number vectors alike. Returns
// false for samples that are too large.
inline bool make_masked_geometry(const MixMaskedArgs& a, int element_size, int axes,
                                 MaskedParams* p, int* vector_size) {
  int64_t dst_start = 0, src_start = 0;
  int v = 1;
  if (!make_geometry(a.samples, element_size, axes, nullptr, &p->geo, &v, &dst_start, &src_start,
                     nullptr)) {
    return false;
  }
  // A mask runs along lines of the image: of vectors along columns each element has a line of its
  // own.
  bool vectors = v > 1 && (axes < 2 || p->geo.inner_axis != axes - 2) &&
                 (a.clean == nullptr || aligned16(a.clean));
  if (a.other != nullptr) {
    Samples others = a.samples;
    others.src = a.other;
    others.batch = a.others > others.batch ? a.others : others.batch;
    others.src_batch_stride = a.other_batch_stride;
    others.src_strides = a.other_strides;
    int other_v = 1;
    if (!make_geometry(others, element_size, axes, nullptr, &p->other_geo, &other_v, &dst_start,
                       &src_start, nullptr)) {
      return false;
    }
    p->other_apart = true;
    vectors = vectors && other_v == v;
  }
  *vector_size = vectors ? v : 1;
  // Elements of 16 bytes each are vectors of their own.
  if (v > 1 && !vectors) return make_masked_geometry(a, 16, axes, p, vector_size);
  return true;
}

// Divides a sample into planes, and finds the image in the geometry.
template <int V>
void find_planes(const MixMaskedArgs& a, int axes, MaskedParams* p) {
  p->planes_per_thread = kPlanesPerThread;
  if (axes == 0) {  // there is nothing that vectors have in common: planes are parts of a sample
    p->planes = kPlanes<V>;
    p->inner = (p->geo.count + p->planes - 1) / p->planes;
    return;
  }
  p->inner = 1;
  for (int axis = 0; axis < axes; ++axis) {
    const uint32_t size = p->geo.below[axis].divisor * p->geo.steps[axis].divisor;
    if (size > p->inner) p->inner = size;
  }
  p->planes = p->geo.count / p->inner;
  if (a.mask.code == nullptr) return;
  const int y_axis = axes - 2, x_axis = axes - 1;
  p->along_lines = p->geo.inner_axis == x_axis;
  p->group_y = FastDiv(p->geo.group[y_axis]);
  p->group_x = FastDiv(p->geo.group[x_axis]);
  const MaskArgs& mask = a.mask;
  p->mask.args = mask;
  p->mask.ratio_y = map_ratio(mask.map_height, mask.height);
  p->mask.ratio_x = map_ratio(mask.map_width, mask.width);
  p->mask.wide = aligned16(mask.columns) && mask.width % 4 == 0 && mask.columns_stride % 4 == 0;
}

template <typename T, MaskedForm kForm>
cudaError_t mix_masked_typed(const MixMaskedArgs& a) {
  const Samples& s = a.samples;
  if (s.batch == 0) return cudaSuccess;
  // A box that the host knows to be empty is none.
  int boxed = a.box != nullptr || a.box_row != nullptr ? a.spatial : 0;
  if (a.box == nullptr) {
    for (int k = 0; k < a.spatial && boxed != 0; ++k) {
      if (a.box_row[k] >= a.box_row[a.spatial + k]) boxed = 0;
    }
  }
  const int axes = a.mask.code != nullptr && boxed < 2 ? 2 : boxed;
  MaskedParams p = {};
  int v = 1;
  if (!make_masked_geometry(a, sizeof(T), axes, &p, &v))
    return mix_masked_halves<T, kForm>(a, axes);
  if (p.geo.count == 0) return cudaSuccess;
  p.dst = s.dst;
  p.src = s.src;
  p.batch = s.batch;
  p.dst_batch_stride = s.dst_batch_stride;
  p.src_batch_stride = s.src_batch_stride;
  p.other = a.other != nullptr ? a.other : s.src;
  p.others = a.other != nullptr ? a.others : s.batch;
  p.other_batch_stride = a.other != nullptr ? a.other_batch_stride : s.src_batch_stride;
  p.clean = a.clean;
  p.pairing = a.pairing;
  p.partner = a.partner;
  p.sources = a.sources;
  p.offsets = a.offsets;
  p.blend = a.blend;
  p.blend_row[0] = a.blend_row[0];
  p.blend_row[1] = a.blend_row[1];
  p.in_place = kForm == MaskedForm::kInPlace;
  p.box_axes = boxed;
  if (boxed > 0) {
    // The axes before those of the box are not bounded.
    int32_t box[2 * kMaxSpatial] = {};
    for (int k = 0; k < axes; ++k) {
      const int at = k - (axes - boxed);
      const bool bounded = at >= 0 && a.box == nullptr;
      box[k] = bounded ? a.box_row[at] : 0;
      box[axes + k] = bounded ? a.box_row[a.spatial + at] : p.geo.extent[k];
    }
    p.box_row = box_range(p.geo, box);
    p.box = a.box;
  }
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  if (v == 1) {
    find_planes<1>(a, axes, &p);
    return launch_masked<T, 1, kForm>(p, a.stream);
  }
  find_planes<kWide>(a, axes, &p);
  return launch_masked<T, kWide, kForm>(p, a.stream);
}

template <MaskedForm kForm>
cudaError_t mix_masked_any(const MixMaskedArgs& a) {
  if constexpr (kForm != MaskedForm::kTransposed) {
    if (a.dtype == kUInt8) return mix_masked_typed<uint8_t, kForm>(a);
  }
  return with_floating(a.dtype, [&](auto x) { return mix_masked_typed<decltype(x), kForm>(a); });
}

inline cudaError_t mix_masked_inplace(const MixMaskedArgs& a) {
  return mix_masked_any<MaskedForm::kInPlace>(a);
}

inline cudaError_t mix_masked_outplace(const MixMaskedArgs& a) {
  return mix_masked_any<MaskedForm::kOutOfPlace>(a);
}

inline cudaError_t mix_masked_transposed(const MixMaskedArgs& a) {
  return mix_masked_any<MaskedForm::kTransposed>(a);
}

}  // namespace fused_mixup
