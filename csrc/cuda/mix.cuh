// mix_, mix, mix_out, mix_backward and paste_ on raw arguments: chooses the kernel.
//
//   out[i, p] = x[partner_i, p] where p lies in box_i, else blend_i0 x[i, p] + blend_i1
//   x[partner_i, p]
//
//   flip, self                 mix_pair.cuh    in and out of place, and the transpose
//   roll, tensor, in place     mix_tile.cuh    mix_walk.cuh for batches too large for shared memory
//                              mix_ring.cuh    on GPUs with bulk copies, where asked for
//   roll, tensor, otherwise    mix_gather.cuh  and the transpose
#pragma once

#include "mix_gather.cuh"
#include "mix_pair.cuh"
#include "mix_ring.cuh"
#include "mix_tile.cuh"
#include "mix_walk.cuh"

namespace fused_mixup {

struct MixArgs {
  DType dtype;
  int element_size;
  Samples samples;
  int spatial;  // D, 0 for no boxes
  int pairing;
  const int32_t* partner;  // device [B], for kTensor
  const int32_t* sources;  // device [B], for the transpose of kTensor
  const int32_t* offsets;  // device [B+1], likewise
  const double* blend;     // device [B, 2], or null: blend_row serves all
  const int32_t* box;      // device [B, 2D], or null: box_row serves all
  double blend_row[2];
  const int32_t* box_row;  // host [2D], or null for no box
  int64_t shared_limit;    // bytes of dynamic shared memory a block may have
  int32_t* scratch;        // device [2 B] where needs_scratch()
  int ring_blocks;         // of mix_ring.cuh, one a multiprocessor; 0: it is not used
  bool wide;               // whether the GPU, and the code made for it, moves 32 bytes at once
  // Whether the launch may start while the kernel in front, which draws the plan, still runs. A
  // transpose, and samples that are walked through, start after it all the same.
  bool starts_early;
  cudaStream_t stream;
};

enum class Form { kInPlace, kOutOfPlace, kTransposed };

inline bool needs_scratch(const MixArgs& a) {
  return a.pairing == kTensor &&
         tile_width(a.samples.batch, kMostRowBytes, false, a.shared_limit) == 0;
}

template <typename T, int V, bool kBox, Form kForm>
cudaError_t dispatch_pairing(const MixParams& p, const MixArgs& a) {
  constexpr bool kTransposed = kForm == Form::kTransposed;
  if (p.pairing == kFlip || p.pairing == kSelf) {
    return launch_pair<T, V, kBox, kTransposed>(p, a.stream);
  }
  if constexpr (kForm == Form::kInPlace && sizeof(T) * V == 16) {
    // Bulk copies take a sample in one run of memory; where vectors fit, all rows are aligned.
    if (a.ring_blocks > 0 && p.geo.ndim == 0) {
      const RingShape shape =
          ring_shape(p.batch, p.geo.count, p.geo.spatial, a.shared_limit, a.ring_blocks);
      if (shape.stages > 0) return launch_ring<T, V, kBox>(p, shape, a.ring_blocks, a.stream);
    }
  }
  if constexpr (kForm == Form::kInPlace) {
    const int width = tile_width_of<T, V, kBox>(p, a.shared_limit);
    if (width == 0) return launch_walk<T, V>(p, a.scratch, a.stream);
    return launch_tile<T, V, kBox>(p, width, a.stream);
  } else {
    return launch_gather<T, V, kBox, kTransposed>(p, a.stream);
  }
}

template <typename T, Form kForm>
cudaError_t mix_typed(const MixArgs& a);

// Mixes the halves of a sample that is too large for 32-bit coordinates, along a dim without boxes.
template <typename T, Form kForm>
cudaError_t mix_halves(const MixArgs& a, int spatial) {
  const Samples& s = a.samples;
  int halved = -1;
  for (int k = 0; k < s.ndim - spatial; ++k) {
    if (s.sizes[k] > 1 && (halved < 0 || s.sizes[k] > s.sizes[halved])) halved = k;
  }
  if (halved < 0) return cudaErrorInvalidValue;
  int64_t sizes[kMaxDims];
  for (int k = 0; k < s.ndim; ++k) sizes[k] = s.sizes[k];
  int64_t first = s.sizes[halved] / 2;
  if (first > 64) first = first / 64 * 64;  // the second half stays aligned
  MixArgs part = a;
  part.samples.sizes = sizes;
  sizes[halved] = first;
  const cudaError_t error = mix_typed<T, kForm>(part);
  if (error != cudaSuccess) return error;
  sizes[halved] = s.sizes[halved] - first;
  part.samples.dst = static_cast<T*>(s.dst) + first * s.dst_strides[halved];
  part.samples.src = static_cast<const T*>(s.src) + first * s.src_strides[halved];
  return mix_typed<T, kForm>(part);
}

template <typename T, Form kForm>
cudaError_t mix_typed(const MixArgs& a) {
  const Samples& s = a.samples;
  if (s.batch == 0) return cudaSuccess;
  using A = typename Number<T>::Acc;
  const bool row_keeps = a.blend == nullptr && static_cast<A>(a.blend_row[0]) == A(1) &&
                         static_cast<A>(a.blend_row[1]) == A(0);
  // What the host knows decides here: there are no boxes, or all that changes is one box.
  int spatial = a.box != nullptr || a.box_row != nullptr ? a.spatial : 0;
  if (a.box == nullptr) {
    for (int k = 0; k < a.spatial && spatial != 0; ++k) {
      if (a.box_row[k] >= a.box_row[a.spatial + k]) spatial = 0;
    }
  }
  if (kForm == Form::kInPlace && row_keeps && spatial == 0) return cudaSuccess;
  const bool region = kForm == Form::kInPlace && row_keeps && a.box == nullptr;

  MixParams p = {};
  int v = 1;
  int64_t dst_start = 0, src_start = 0;
  constexpr bool kCanBeWide = Number<T>::kBlends && sizeof(T) > 1;
  const bool wide = kCanBeWide && a.wide && (a.pairing == kFlip || a.pairing == kSelf);
  if (!make_geometry(s, sizeof(T), spatial, region ? a.box_row : nullptr, &p.geo, &v, &dst_start,
                     &src_start, &p.box_row, wide ? 32 : 16)) {
    return mix_halves<T, kForm>(a, spatial);
  }
  if (p.geo.count == 0) return cudaSuccess;
  if (!region && spatial > 0 && a.box == nullptr) p.box_row = box_range(p.geo, a.box_row);
  p.dst = static_cast<T*>(s.dst) + dst_start;
  p.src = static_cast<const T*>(s.src) + src_start;
  p.batch = s.batch;
  p.dst_batch_stride = s.dst_batch_stride;
  p.src_batch_stride = s.src_batch_stride;
  p.pairing = a.pairing;
  p.partner = a.partner;
  p.sources = a.sources;
  p.offsets = a.offsets;
  p.blend = a.blend;
  p.box = spatial > 0 ? a.box : nullptr;
  p.blend_row[0] = a.blend_row[0];
  p.blend_row[1] = a.blend_row[1];
  p.in_place = kForm == Form::kInPlace;
  p.awaits = a.starts_early && kForm != Form::kTransposed;
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  if constexpr (kCanBeWide) {
    if (v == 2 * kWide) {
      constexpr bool kTransposed = kForm == Form::kTransposed;
      if (spatial == 0) return launch_pair<T, 2 * kWide, false, kTransposed>(p, a.stream);
      return launch_pair<T, 2 * kWide, true, kTransposed>(p, a.stream);
    }
  }
  // Single elements are slow in any case: one kernel serves with and without boxes.
  if (v == 1 && kWide != 1) return dispatch_pairing<T, 1, true, kForm>(p, a);
  if constexpr (Number<T>::kBlends) {
    if (spatial == 0) return dispatch_pairing<T, kWide, false, kForm>(p, a);
  }
  return dispatch_pairing<T, kWide, true, kForm>(p, a);
}

// Pastes the box alone, in any dtype: values are moved and never read as numbers.
inline cudaError_t paste_inplace(MixArgs a) {
  a.blend = nullptr;
  a.blend_row[0] = 1.0;
  a.blend_row[1] = 0.0;
  switch (a.element_size) {
    case 1:
      return mix_typed<Raw<1>, Form::kInPlace>(a);
    case 2:
      return mix_typed<Raw<2>, Form::kInPlace>(a);
    case 4:
      return mix_typed<Raw<4>, Form::kInPlace>(a);
    case 8:
      return mix_typed<Raw<8>, Form::kInPlace>(a);
    case 16:
      return mix_typed<Raw<16>, Form::kInPlace>(a);
    default:
      return cudaErrorInvalidValue;
  }
}

template <Form kForm>
cudaError_t mix_any(const MixArgs& a) {
  if constexpr (kForm != Form::kTransposed) {
    if (a.dtype == kUInt8) return mix_typed<uint8_t, kForm>(a);
  }
  return with_floating(a.dtype, [&](auto x) { return mix_typed<decltype(x), kForm>(a); });
}

inline cudaError_t mix_inplace(const MixArgs& a) {
  const bool paste = a.blend == nullptr && a.blend_row[0] == 1.0 && a.blend_row[1] == 0.0;
  return paste ? paste_inplace(a) : mix_any<Form::kInPlace>(a);
}

inline cudaError_t mix_outplace(const MixArgs& a) { return mix_any<Form::kOutOfPlace>(a); }

inline cudaError_t mix_transposed(const MixArgs& a) { return mix_any<Form::kTransposed>(a); }

}  // namespace fused_mixup
