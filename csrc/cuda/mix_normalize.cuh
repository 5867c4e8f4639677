// mix_normalize on raw arguments: chooses the kernel.
//
//   out[i, c, y, x] = w_i0 n(f_i(x_i)) + w_i1 n(f_p(x_p)) outside box_i, and n(f_p(x_p)) inside,
//   with n(v) = (v - mean_c) / std_c, f the flip of a sample and p the partner of i; then erased.
//
//   mix_normalize_groups.cuh  1, 3 or 4 channels, adjacent or apart, whole vectors of 16 bytes
//   mix_normalize_single.cuh  all else
#pragma once

#include "mix_normalize_groups.cuh"
#include "mix_normalize_single.cuh"

namespace fused_mixup {

struct NormalizeArgs {
  DType in, out;           // of images and of the result
  NormalizeParams params;  // all but the launch's own
  cudaStream_t stream;
};

template <typename T, typename O>
cudaError_t normalize_typed(const NormalizeArgs& a) {
  NormalizeParams p = a.params;
  if (make_groups<T, O, 3>(&p)) return launch_groups<T, O, 3>(p, a.stream);
  if (make_groups<T, O, 1>(&p)) return launch_groups<T, O, 1>(p, a.stream);
  if (make_groups<T, O, 4>(&p)) return launch_groups<T, O, 4>(p, a.stream);
  return launch_single<T, O>(p, a.stream);
}

inline cudaError_t mix_normalize(const NormalizeArgs& a) {
  const NormalizeParams& p = a.params;
  if (p.batch == 0 || p.channels == 0 || p.height == 0 || p.width == 0) return cudaSuccess;
  if (p.channels > kMaxChannels) return cudaErrorInvalidValue;
  return with_normalized(a.out, [&](auto out) {
    using O = decltype(out);
    if (a.in == kUInt8) return normalize_typed<uint8_t, O>(a);
    return with_normalized(a.in, [&](auto in) { return normalize_typed<decltype(in), O>(a); });
  });
}

}  // namespace fused_mixup
