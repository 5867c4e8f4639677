// The checks of mix_normalize's arguments, the same for both modules (see arguments.h).
#pragma once

#include <vector>

#include "arguments.h"

namespace fused_mixup {

// One tensor [B, C, H, W], not a list of samples.
inline bool is_whole_batch(const std::vector<Tensor>& images) {
  return images.size() == 1 && images[0].dim() == 4;
}

inline bool is_normalized_code(Code code) {
  return code == aoti_torch_dtype_float16() || code == aoti_torch_dtype_bfloat16() ||
         code == aoti_torch_dtype_float32();
}

// What fills the boxes erase_box [B, N, 4]: values for each image, box and channel, or one for all
// of them; or noise of a key for each image.
inline void check_erase(const OptionalTensor& erase_box, const OptionalTensor& erase_value,
                        const OptionalTensor& erase_noise, const Tensor& out) {
  const int filled = int(erase_value.has_value()) + int(erase_noise.has_value());
  expect(filled == int(erase_box.has_value()), "erase_value, erase_noise", "one with boxes");
  if (!erase_box) return;
  const int64_t batch = out.size(0), boxes = erase_box->dim() == 3 ? erase_box->size(1) : 0;
  expect_tensor("erase_box", *erase_box, aoti_torch_dtype_int32(), {batch, boxes, 4}, out);
  if (erase_noise) {
    expect_tensor("erase_noise", *erase_noise, aoti_torch_dtype_int64(), {batch}, out);
    return;
  }
  expect_near("erase_value", *erase_value, out);
  expect_code("erase_value", *erase_value, aoti_torch_dtype_float32());
  const auto sizes = erase_value->sizes();
  const auto fits = [&](size_t k, int64_t whole) { return sizes[k] == 1 || sizes[k] == whole; };
  expect(sizes.size() == 3 && fits(0, batch) && fits(1, boxes) && fits(2, out.size(1)),
         "erase_value", "shape [B or 1, N or 1, C or 1]");
}

inline void check_mix_normalize(const std::vector<Tensor>& images, int64_t pairing,
                                const OptionalTensor& partner, const Tensor& blend,
                                const Tensor& box, const std::vector<double>& means,
                                const std::vector<double>& stds, const OptionalTensor& flip,
                                const OptionalTensor& erase_box, const OptionalTensor& erase_value,
                                const OptionalTensor& erase_noise, const Tensor& out) {
  expect(is_normalized_code(code_of(out)), "out", "float16, bfloat16 or float32");
  expect(out.dim() == 4, "out", "shape [B, C, H, W]");
  expect_writable("out", out);
  const int64_t batch = out.size(0), channels = out.size(1);
  const bool whole = is_whole_batch(images);
  expect(whole || int64_t(images.size()) == batch, "images", "as many as out has, or one tensor");
  const auto wanted = out.sizes();
  for (const Tensor& x : images) {
    const Code code = code_of(images[0]);
    expect(x.device() == out.device(), "images", "the device of out");
    expect(code == aoti_torch_dtype_uint8() || is_normalized_code(code), "images",
           "uint8, float16, bfloat16 or float32");
    expect(code_of(x) == code, "images", "one dtype");
    const auto sizes = x.sizes();
    expect(sizes.size() == (whole ? 4 : 3) &&
               std::equal(sizes.begin(), sizes.end(), wanted.begin() + (whole ? 0 : 1)),
           "images", "the shape of out, each sample's if they are a list");
    expect_apart(out, x);
  }
  expect(int64_t(means.size()) == channels, "mean", "a number for each channel");
  expect(int64_t(stds.size()) == channels, "std", "a number for each channel");
  expect(channels <= kMaxChannels, "images", "up to 64 channels");
  check_plan(out, batch, pairing, partner, &blend, box);
  expect(box.size(1) <= 4, "box", "boxes of up to 2 dims, those of images");
  if (flip) expect_tensor("flip", *flip, aoti_torch_dtype_bool(), {batch}, out);
  check_erase(erase_box, erase_value, erase_noise, out);
}

}  // namespace fused_mixup
