// How the samples of a batch and the rows of a loss lie in memory.
//
// The host makes a layout once per call. A sample's dims are sorted from the outermost to the
// innermost in memory and merged where one continues the other. Contiguous or channels_last samples
// without a box collapse to one dim of stride 1, so that kernels walk flat memory whatever the
// shape. Nothing here depends on PyTorch.
#pragma once

#include <cstdint>

// Marks functions that CUDA kernels call too.
#ifdef __CUDACC__
#define FUSED_MIXUP_HOST_DEVICE __host__ __device__
#else
#define FUSED_MIXUP_HOST_DEVICE
#endif

namespace fused_mixup {

constexpr int kMaxDims = 12;  // dims of a sample, the batch dim not counted
constexpr int kMaxSpatial = 3;
constexpr int64_t kMaxChannels = 64;  // of images whose channels are taken apart or normalised

// Pairing codes; the same numbers stand in fused_mixup/codes.py.
enum Pairing : int { kTensor = 0, kFlip = 1, kRoll = 2, kSelf = 3 };

// How the losses of all rows become one; the same numbers stand in
// fused_mixup/codes.py.
enum Reduction : int { kMean = 0, kSum = 1, kNone = 2 };

// Strides of a tensor [B, K, d1…] seen as [B, K, S], in elements: element (b, k, s) lies at
// b·batch + k·classes + s·positions. A tensor [B, S] leaves `classes` unused.
struct Strides {
  int64_t batch, classes, positions;
};

// The two values of a smoothed one-hot row: at its label, and elsewhere.
struct SmoothedOneHot {
  double on, off;

  SmoothedOneHot(double smoothing, int64_t num_classes) : off(smoothing / double(num_classes)) {
    on = 1.0 - smoothing + off;
  }
};

struct Layout {
  int ndim = 0;                 // 0: a sample is a single element
  int64_t size[kMaxDims] = {};  // in elements, outermost first
  int64_t dst_stride[kMaxDims] = {};
  int64_t src_stride[kMaxDims] = {};
  int axis[kMaxDims] = {};       // the spatial axis along which this dim runs, or -1
  int64_t group[kMaxDims] = {};  // elements per step of that axis: coordinate = i / group

  int64_t numel() const {
    int64_t n = 1;
    for (int k = 0; k < ndim; ++k) n *= size[k];
    return n;
  }
  // True where a sample is one run of memory on both sides.
  bool flat() const { return ndim == 0 || (ndim == 1 && dst_stride[0] == 1 && src_stride[0] == 1); }
};

// sizes, dst_strides, src_strides: [ndim], for one sample. The last `spatial` dims are the axes of
// the box; pass 0 where no row has a box, so that all dims can merge.
inline Layout make_layout(const int64_t* sizes, const int64_t* dst_strides,
                          const int64_t* src_strides, int ndim, int spatial) {
  Layout sorted;
  for (int k = 0; k < ndim; ++k) {
    if (sizes[k] == 1) continue;  // has one coordinate; box_of_row() knows whether its box is empty
    int at = sorted.ndim++;
    // Insertion sort by stride, outermost first; equal strides keep their order.
    for (; at > 0 && sorted.dst_stride[at - 1] < dst_strides[k]; --at) {
      sorted.size[at] = sorted.size[at - 1];
      sorted.dst_stride[at] = sorted.dst_stride[at - 1];
      sorted.src_stride[at] = sorted.src_stride[at - 1];
      sorted.axis[at] = sorted.axis[at - 1];
    }
    sorted.size[at] = sizes[k];
    sorted.dst_stride[at] = dst_strides[k];
    sorted.src_stride[at] = src_strides[k];
    sorted.axis[at] = k >= ndim - spatial ? k - (ndim - spatial) : -1;
  }
  Layout out;
  for (int k = 0; k < sorted.ndim; ++k) {
    const int last = out.ndim - 1;
    const bool continues = last >= 0 && sorted.axis[k] < 0 &&
                           out.dst_stride[last] == sorted.size[k] * sorted.dst_stride[k] &&
                           out.src_stride[last] == sorted.size[k] * sorted.src_stride[k];
    if (continues) {
      out.size[last] *= sorted.size[k];
      out.dst_stride[last] = sorted.dst_stride[k];
      out.src_stride[last] = sorted.src_stride[k];
      out.group[last] *= sorted.size[k];
    } else {
      out.size[out.ndim] = sorted.size[k];
      out.dst_stride[out.ndim] = sorted.dst_stride[k];
      out.src_stride[out.ndim] = sorted.src_stride[k];
      out.axis[out.ndim] = sorted.axis[k];
      out.group[out.ndim++] = 1;
    }
  }
  return out;
}

// The box of one row, clamped to the sample.
struct Box {
  int64_t start[kMaxSpatial] = {};
  int64_t stop[kMaxSpatial] = {};
  bool empty = true;

  bool operator==(const Box& other) const {
    if (empty || other.empty) return empty == other.empty;
    for (int k = 0; k < kMaxSpatial; ++k) {
      if (start[k] != other.start[k] || stop[k] != other.stop[k]) return false;
    }
    return true;
  }
};

// box: int32 [2·spatial] of the row; extent: the spatial sizes.
inline Box box_of_row(const int32_t* box, const int64_t* extent, int spatial) {
  Box out;
  out.empty = spatial == 0;
  for (int k = 0; k < spatial; ++k) {
    const int64_t start = box[k] < 0 ? 0 : box[k];
    const int64_t stop = box[spatial + k] > extent[k] ? extent[k] : box[spatial + k];
    out.start[k] = start;
    out.stop[k] = stop;
    if (stop <= start) out.empty = true;
  }
  return out;
}

// The partner of sample i in a batch of B; indices from the caller are clamped into the batch.
FUSED_MIXUP_HOST_DEVICE inline int64_t partner_of(int pairing, const int32_t* partner, int64_t i,
                                                  int64_t batch) {
  switch (pairing) {
    case kFlip:
      return batch - 1 - i;
    case kRoll:
      return i == 0 ? batch - 1 : i - 1;
    case kSelf:
      return i;
    default: {
      const int64_t p = partner[i];
      return p < 0 ? 0 : p >= batch ? batch - 1 : p;
    }
  }
}

}  // namespace fused_mixup
