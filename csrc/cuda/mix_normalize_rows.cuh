// What the kernels of mix_normalize share: their parameters, the rule of a row, erased boxes.
//
//   flip       each sample, before it is mixed
//   mix        first: the bytes, rounded to bytes; else what is normalised
//   normalise  (x - mean_c) / std_c, difference and quotient rounded one by one, in float
//   erase      boxes, of which a later one covers an earlier one
//   round      once, to the dtype of the result
#pragma once

#include <cmath>
#include <cstring>
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
  int64_t rows;                       // samples, or pairs of them
  int64_t chunks;                     // a sample's parts, one for each warp or block
  bool src_packed, dst_packed;        // the channels of a pixel are adjacent
  FastDiv inner;                      // warps or blocks along the dim that they run along first
  FastDiv row_groups;                 // groups of pixels in a line of an image
  uint32_t groups;                    // in an image
  LongDiv outer, columns;             // of single elements: the inner dim of the result; a line
  float inverse[4], inverse_rest[4];  // of std, for bytes
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
  bool keep;       // weights (1, 0) keep the value, also the sign of a zero
  LineRange line;  // what the box covers, counted from x

  // For the pixels of line y from x on.
  __device__ __forceinline__ RowMix(const NormalizeParams& p, int64_t i, int32_t y, int32_t x)
      : w0(static_cast<float>(p.blend != nullptr ? p.blend[2 * i] : p.blend_row[0])),
        w1(static_cast<float>(p.blend != nullptr ? p.blend[2 * i + 1] : p.blend_row[1])),
        keep(w0 == 1.0f && w1 == 0.0f),
        line{0, 0} {
    if (p.spatial == 0) return;
    const int d = p.spatial;
    const int32_t* box = p.box != nullptr ? p.box + i * 2 * d : p.box_row;
    if (d == 2 && (y < box[0] || y >= box[2])) return;
    // Not below 0, so that differences of places and ends fit 32 bits.
    line = {max(box[d - 1], 0) - x, max(box[2 * d - 1], 0) - x};
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

// normalized() for bytes, in half of the instructions: std's inverse is the sum of two floats. That
// this gives what a division gives, to the bit, is found out for each constant: see ByteConstants.
__device__ __forceinline__ float normalized_byte(const NormalizeParams& p, float v, int c) {
  const float difference = __fsub_rn(v, p.mean[c]);
  return __fmaf_rn(difference, p.inverse[c], __fmul_rn(difference, p.inverse_rest[c]));
}

// The inverses of the last constants, and whether normalized_byte() is right for all 256 bytes.
struct ByteConstants {
  static constexpr int kMost = 4;  // channels
  float mean[kMost], std[kMost], inverse[kMost], rest[kMost];
  int channels = 0;
  bool right = false;

  // Fills in p; returns whether it may be used.
  static bool find(NormalizeParams* p, int channels) {
    static thread_local ByteConstants last;
    const size_t size = sizeof(float) * static_cast<size_t>(channels);
    if (last.channels != channels || memcmp(last.mean, p->mean, size) != 0 ||
        memcmp(last.std, p->std, size) != 0) {
      last.channels = channels;
      last.right = true;
      for (int c = 0; c < channels; ++c) last.add(c, p->mean[c], p->std[c]);
    }
    memcpy(p->inverse, last.inverse, size);
    memcpy(p->inverse_rest, last.rest, size);
    return last.right;
  }

 private:
  void add(int c, float mean_c, float std_c) {
    mean[c] = mean_c;
    std[c] = std_c;
    inverse[c] = 1.0f / std_c;
    rest[c] = static_cast<float>(1.0 / std_c - inverse[c]);
    for (int byte = 0; byte < 256; ++byte) {
      const float difference = static_cast<float>(byte) - mean_c, want = difference / std_c;
      const float got = std::fma(difference, inverse[c], difference * rest[c]);
      // Infinite ones would need that a weight of 0 drops its term.
      right =
          right && got == want && std::signbit(got) == std::signbit(want) && std::isfinite(want);
    }
  }
};

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
