// The checks of the arguments of mix_rectangles and mix_patches, the same for both modules (see
// arguments.h).
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <cstring>

#include "arguments.h"
#include "resample.h"

namespace fused_mixup {

inline bool is_blendable(const Tensor& t) {
  return is_floating(t) || code_of(t) == aoti_torch_dtype_uint8();
}

// out takes a result that is made from x, other and nothing else.
inline void check_collage_out(const Tensor& out, const Tensor& x) {
  expect(out.device() == x.device(), "out", "the device of x");
  expect(code_of(out) == code_of(x), "out", "the dtype of x");
  expect_writable("out", out);
  expect_apart(out, x);
}

// [B, …, H, W]
inline void check_images(const Tensor& x) {
  expect(x.dim() >= 3 && x.dim() <= kMaxDims + 1, "x", "shape [B, …, H, W], 3 to 13 dims");
}

inline void check_rectangles(const Tensor& x, const OptionalTensor& other, const Tensor& source,
                             const Tensor& source_box, const Tensor& box,
                             const OptionalTensor& scale, int64_t resample, bool filled,
                             const Tensor& out) {
  check_images(x);
  expect(resample >= kRaw && resample <= kResizeAligned, "resample", "a number from 0 to 3");
  expect(resample <= kResizeNearest || is_blendable(x), "x", "floats or uint8, to interpolate");
  const int64_t batch = x.size(0), rows = source.dim() == 2 ? source.size(1) : -1;
  expect(rows >= 0 && rows <= kMaxRectangles, "source", "shape [B, R], R at most 4");
  expect_tensor("source", source, aoti_torch_dtype_int32(), {batch, rows}, x);
  expect_tensor("source_box", source_box, aoti_torch_dtype_int32(), {batch, rows, 4}, x);
  expect_tensor("box", box, aoti_torch_dtype_int32(), {batch, rows, 4}, x);
  if (scale) expect_tensor("scale", *scale, aoti_torch_dtype_float32(), {batch, rows, 2}, x);
  const auto sizes = x.sizes(), made = out.sizes();
  const size_t kept = sizes.size() - (filled ? 2 : 0);
  expect(
      made.size() == sizes.size() && std::equal(sizes.begin(), sizes.begin() + kept, made.begin()),
      "out", "the shape of x, with a fill any height and width");
  check_collage_out(out, x);
  if (!other) return;
  const auto theirs = other->sizes();
  expect(other->device() == x.device() && code_of(*other) == code_of(x), "other",
         "the device and the dtype of x");
  expect(theirs.size() == sizes.size() &&
             std::equal(sizes.begin() + 1, sizes.end(), theirs.begin() + 1),
         "other", "samples of the shape of x");
  expect(theirs[0] > 0 || batch == 0 || rows == 0, "other", "at least one sample");
  expect_apart(out, *other);
}

// [B, gh, gw], a grid that divides the images.
inline void check_grid(const char* name, const Tensor& t, Code code, const Tensor& x) {
  expect_near(name, t, x);
  expect_code(name, t, code);
  const int64_t height = x.size(x.dim() - 2), width = x.size(x.dim() - 1);
  expect(t.dim() == 3 && t.size(0) == x.size(0), name, "shape [B, rows, columns]");
  expect(t.size(1) > 0 && t.size(2) > 0 && height % t.size(1) == 0 && width % t.size(2) == 0, name,
         "a grid that divides height and width");
}

inline void check_patch_side(const char* sample_name, const char* index_name,
                             const OptionalTensor& sample, const OptionalTensor& index,
                             const Tensor& x) {
  const Code whole = aoti_torch_dtype_int32();
  if (index) check_grid(index_name, *index, whole, x);
  if (!sample) return;
  if (sample->dim() != 3) return expect_tensor(sample_name, *sample, whole, {x.size(0)}, x);
  check_grid(sample_name, *sample, whole, x);
  expect(!index || same_sizes(*sample, *index), sample_name, "the shape of the index");
}

inline void check_patches(const Tensor& x, const OptionalTensor& sample,
                          const OptionalTensor& index, const OptionalTensor& partner,
                          const OptionalTensor& partner_index, const OptionalTensor& mask,
                          const Tensor& out) {
  check_images(x);
  check_patch_side("sample", "index", sample, index, x);
  check_patch_side("partner", "partner_index", partner, partner_index, x);
  expect(mask.has_value() == partner.has_value(), "partner",
         "a tensor where there is a mask, and only there");
  expect(mask.has_value() || !partner_index.has_value(), "partner_index", "none without a mask");
  if (mask) {
    expect(is_blendable(x), "x", "floats or uint8, to blend");
    check_grid("mask", *mask, aoti_torch_dtype_float32(), x);
  }
  expect(same_sizes(out, x), "out", "the shape of x");
  check_collage_out(out, x);
}

// The bits of one element that holds a number, in 16 bytes.
struct ElementBits {
  unsigned char bytes[16] = {};

  template <typename T>
  static ElementBits of(T value) {
    ElementBits out;
    std::memcpy(out.bytes, &value, sizeof(T));
    return out;
  }
};

inline ElementBits element_bits(double value, ScalarType type) {
  switch (type) {
    case ScalarType::Half:
      return ElementBits::of(torch::headeronly::Half(float(value)));
    case ScalarType::BFloat16:
      return ElementBits::of(torch::headeronly::BFloat16(float(value)));
    case ScalarType::Float:
      return ElementBits::of(float(value));
    case ScalarType::Double:
      return ElementBits::of(value);
    case ScalarType::Byte:
      return ElementBits::of(uint8_t(int64_t(value)));
    case ScalarType::Char:
      return ElementBits::of(int8_t(value));
    case ScalarType::Short:
      return ElementBits::of(int16_t(value));
    case ScalarType::Int:
      return ElementBits::of(int32_t(value));
    case ScalarType::Long:
      return ElementBits::of(int64_t(value));
    case ScalarType::Bool:
      return ElementBits::of(value != 0);
    default:
      expect(false, "fill", "none, as elements of this dtype are only moved");
      return {};
  }
}

}  // namespace fused_mixup
