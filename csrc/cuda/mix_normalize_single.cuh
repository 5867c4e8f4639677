// mix_normalize of one element at a time: any strides, any number of channels.
#pragma once

#include "mix_normalize_rows.cuh"

namespace fused_mixup {

constexpr int kSingleThreads = 256;
constexpr int kSingleUnroll = 4;  // elements of a thread

template <typename T, typename O>
__global__ void __launch_bounds__(kSingleThreads)
    normalize_single_kernel(const __grid_constant__ NormalizeParams p) {
  // Blocks are numbered with the batch fastest, so that a partner's values are in L2.
  const int64_t chunk = p.inner.div(blockIdx.x), i = blockIdx.x - chunk * p.inner.divisor;
  const int64_t j = partner_of(p.pairing, p.partner, i, p.batch);
  const bool flip_own = is_flipped(p, i), flip_other = is_flipped(p, j);
  const T* own = static_cast<const T*>(p.src) + i * p.src_stride.batch;
  const T* other = static_cast<const T*>(p.src) + j * p.src_stride.batch;
  const int64_t pixels = static_cast<int64_t>(p.height) * p.width;
  for (int u = 0; u < kSingleUnroll; ++u) {
    const int64_t e = (chunk * kSingleUnroll + u) * kSingleThreads + threadIdx.x;
    if (e >= pixels * p.channels) return;
    // The order of elements is that of the result's memory, so that neighbours write neighbours.
    const int64_t before = p.outer.div(e);
    const int c = static_cast<int>(p.dst_packed ? e - before * p.channels : before);
    const int64_t pixel = p.dst_packed ? before : e - before * pixels;
    const int64_t y = p.columns.div(pixel), x = pixel - y * p.width;
    const int64_t at = c * p.src_stride.channel + y * p.src_stride.y;
    const int64_t last = p.width - 1;
    const RowMix row(p, i, static_cast<int32_t>(y), static_cast<int32_t>(x));
    const float a = Number<T>::up(own[at + (flip_own ? last - x : x) * p.src_stride.x]);
    const float b = Number<T>::up(other[at + (flip_other ? last - x : x) * p.src_stride.x]);
    const bool pasted = row.line.has(0);
    float v;
    if (p.first) {
      v = pasted ? b : row.blend(a, b);
      if constexpr (std::is_same<T, uint8_t>::value) v = byte_of(v);
      v = normalized(p, v, c);
    } else {
      const float theirs = normalized(p, b, c);
      v = pasted ? theirs : row.blend(normalized(p, a, c), theirs);
    }
    for (int64_t k = p.erased - 1; k >= 0; --k) {
      if (!erased_range(p, i, k, static_cast<int32_t>(y)).has(static_cast<int32_t>(x))) continue;
      if (p.erase_value != nullptr) {
        v = value_at(p, i, k, c);
      } else {
        const Words words = noise_at(p, i, static_cast<int32_t>(y), static_cast<int32_t>(x), c / 4);
        // An index would put the words into local memory.
        const int w = c % 4;
        v = noise_of_word(w == 0   ? words.w[0]
                          : w == 1 ? words.w[1]
                          : w == 2 ? words.w[2]
                                   : words.w[3]);
      }
      break;
    }
    static_cast<O*>(p.dst)[i * p.dst_stride.batch + c * p.dst_stride.channel + y * p.dst_stride.y +
                           x * p.dst_stride.x] = Number<O>::down(v);
  }
}

template <typename T, typename O>
cudaError_t launch_single(NormalizeParams p, cudaStream_t stream) {
  const int64_t block = kSingleThreads * kSingleUnroll;
  const int64_t elements = static_cast<int64_t>(p.height) * p.width * p.channels;
  p.dst_packed = p.dst_stride.channel < p.dst_stride.x;
  p.rows = p.batch;
  p.inner = FastDiv(p.rows);
  p.columns = LongDiv(p.width);
  p.chunks = (elements + block - 1) / block;
  p.outer = LongDiv(p.dst_packed ? p.channels : static_cast<int64_t>(p.height) * p.width);
  return launch(normalize_single_kernel<T, O>, p.rows * p.chunks, dim3(kSingleThreads), 0, stream,
                p);
}

}  // namespace fused_mixup
