// What the kernels of mix_normalize share: their parameters, the rule of a row, erased boxes.
//
//   flip       each sample, before it is mixed
//   mix        first: the bytes, rounded to bytes; else what is normalised
//   normalise  (x - mean_c) / std_c, difference and quotient rounded one by one, in float
//   erase      boxes, of which a later one covers an earlier one
//   round      once, to the dtype of the result
#pragma once

#include <type_traits>

#include "../common/noise.h"
#include "geometry.cuh"

namespace fused_mixup {

struct ImageStrides {  // in elements
  int64_t batch, channel, y, x;
};

struct NormalizeParams {
  void* dst;
  const void* src;
  int64_t batch;
  int32_t channels, height, width;
  ImageStrides dst_stride, src_stride;
  int pairing;
  const int32_t* partner;  // [B], for kTensor
  const double* blend;     // [B, 2] on the device, or null: blend_row
  double blend_row[2];
  int spatial;         // D: 1 along the width, 2 for images, 0 for no box
  const int32_t* box;  // [B, 2D] on the device, or null: box_row
  int32_t box_row[4];
  const uint8_t* flip;                            // [B], or null
  bool first;                                     // mix, then normalise
  int64_t erased;                                 // N, 0 for none
  const int32_t* erase_box;                       // [B, N, 4]
  const float* erase_value;                       // [B or 1, N or 1, C or 1], or null: noise
  int64_t value_batch, value_box, value_channel;  // strides, 0 along dims of size 1
  const int64_t* erase_noise;                     // [B]
  float mean[kMaxChannels], std[kMaxChannels];
  // Of the launch.
  int64_t rows;                 // samples, or pairs of them
  int64_t chunks;               // a sample's parts, one for each warp or block
  bool src_packed, dst_packed;  // the channels of a pixel are adjacent
  FastDiv row_groups;           // groups of pixels in a line of an image
  uint32_t groups;              // in an image
  float inverse[4];             // 1 / std, for bytes
};

__device__ __forceinline__ bool is_flipped(const NormalizeParams& p, int64_t i) {
  return p.flip != nullptr && p.flip[i] != 0;
}

// What a box covers of one line of an image.
struct LineRange {
  int32_t lo, hi;
  __device__ __forceinline__ bool has(int32_t x) const { return x >= lo && x < hi; }
};

struct RowMix {
  float w0, w1;
  bool keep;  // weights (1, 0) keep the value, also the sign of a zero
  LineRange line;

  __device__ __forceinline__ RowMix(const NormalizeParams& p, int64_t i, int32_t y)
      : w0(static_cast<float>(p.blend != nullptr ? p.blend[2 * i] : p.blend_row[0])),
        w1(static_cast<float>(p.blend != nullptr ? p.blend[2 * i + 1] : p.blend_row[1])),
        keep(w0 == 1.0f && w1 == 0.0f),
        line{0, 0} {
    if (p.spatial == 0) return;
    const int d = p.spatial;
    const int32_t* box = p.box != nullptr ? p.box + i * 2 * d : p.box_row;
    if (d == 2 && (y < box[0] || y >= box[2])) return;
    // Not below 0, so that differences of places and ends fit 32 bits.
    line = {max(box[d - 1], 0), max(box[2 * d - 1], 0)};
  }

  __device__ __forceinline__ float blend(float own, float other) const {
    return keep ? own : add(term(w0, own), term(w1, other));
  }
};

// A blend of bytes, rounded to a byte. The sum with 0 makes a zero of -0, as a byte does.
__device__ __forceinline__ float byte_of(float v) {
  return add(fminf(fmaxf(rintf(v), 0.0f), 255.0f), 0.0f);
}

__device__ __forceinline__ float normalized(const NormalizeParams& p, float v, int c) {
  return __fdiv_rn(__fsub_rn(v, p.mean[c]), p.std[c]);
}

// Whether normalized_byte() is right for a mean and a std: nothing underflows or overflows.
inline bool suits_bytes(float mean, float std) {
  const auto ordinary = [](float v) {
    return (v >= 0x1p-30f && v <= 0x1p30f) || (v <= -0x1p-30f && v >= -0x1p30f);
  };
  return (mean == 0.0f || ordinary(mean)) && ordinary(std);
}

// normalized() for bytes, in a third of the instructions: a product with the inverse, and two
// steps that correct it. The first makes the quotient faithful (within one unit in the last place),
// from which the second gives the nearest float, as the inverse is the nearest too (Markstein,
// 1990). A difference of 0 gives the zero that a division gives: no byte is -0.
__device__ __forceinline__ float normalized_byte(const NormalizeParams& p, float v, int c) {
  const float difference = __fsub_rn(v, p.mean[c]);
  float q = __fmul_rn(difference, p.inverse[c]);
  q = __fmaf_rn(__fmaf_rn(-q, p.std[c], difference), p.inverse[c], q);
  return __fmaf_rn(__fmaf_rn(-q, p.std[c], difference), p.inverse[c], q);
}

// What a line of an image shows of its k-th erased box.
__device__ __forceinline__ LineRange erased_range(const NormalizeParams& p, int64_t i, int64_t k,
                                                  int32_t y) {
  const int32_t* box = p.erase_box + (i * p.erased + k) * 4;
  if (y < box[0] || y >= box[2]) return {0, 0};
  return {box[1], box[3]};
}

__device__ __forceinline__ Words noise_at(const NormalizeParams& p, int64_t i, int32_t y, int32_t x,
                                          int block) {
  return noise_words(p.erase_noise[i], static_cast<int64_t>(y) * p.width + x, block);
}

__device__ __forceinline__ float value_at(const NormalizeParams& p, int64_t i, int64_t k, int c) {
  return p.erase_value[i * p.value_batch + k * p.value_box + c * p.value_channel];
}

}  // namespace fused_mixup
