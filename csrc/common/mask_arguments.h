// The tensors that describe masks, checked and turned into MaskArgs. Both modules include it.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "arguments.h"
#include "masks.h"

namespace fused_mixup {

// Keeps copies of tensors whose samples are no runs of memory; MaskArgs point into them.
class MaskTensors {
 public:
  MaskArgs args;

  // like: the tensor of the op, on whose device the masks are. code is null where no sample has a
  // mask.
  MaskTensors(const OptionalTensor& code,       // int32 [B]
              const OptionalTensor& threshold,  // float32 [B]
              const OptionalTensor& rows,       // float32 [B, R, H]
              const OptionalTensor& columns,    // float32 [B, R, W]
              const OptionalTensor& map,        // [B, h, w]
              int64_t interpolation, int64_t batch, int64_t height, int64_t width,
              const Tensor& like) {
    if (!code) return;
    const int64_t most = int64_t{1} << 24;  // what a float counts
    expect(height < most && width < most, "x", "smaller images");
    expect(threshold.has_value(), "threshold", "a tensor, as there is a code");
    expect(rows.has_value() == columns.has_value(), "rows, columns", "both or neither");
    expect(interpolation == kNearest || interpolation == kBilinear, "interpolation", "0 or 1");
    expect_tensor("code", *code, aoti_torch_dtype_int32(), {batch}, like);
    expect_tensor("threshold", *threshold, aoti_torch_dtype_float32(), {batch}, like);
    args.code = read<int32_t>("code", code, 0, like, args.code_stride);
    args.threshold = read<float>("threshold", threshold, 1, like, args.threshold_stride);
    if (rows) {
      args.rank = rows->dim() == 3 ? int(rows->size(1)) : 0;
      expect(args.rank >= 1 && args.rank <= kMaskRank, "rows", "shape [B, 1 to 4, H]");
      const Code single = aoti_torch_dtype_float32();
      expect_tensor("rows", *rows, single, {batch, args.rank, height}, like);
      expect_tensor("columns", *columns, single, {batch, args.rank, width}, like);
      args.rows = read<float>("rows", rows, 2, like, args.rows_stride);
      args.columns = read<float>("columns", columns, 3, like, args.columns_stride);
    }
    if (map) {
      expect(map->dim() == 3 && map->size(0) == batch && map->size(1) > 0 && map->size(2) > 0,
             "map", "shape [B, h, w], not empty");
      expect(map->size(1) < most && map->size(2) < most, "map", "a smaller one");
      const Code type = code_of(*map);
      const bool byte = type == aoti_torch_dtype_bool() || type == aoti_torch_dtype_uint8();
      args.map_type = byte                                  ? MapType::kByte
                      : type == aoti_torch_dtype_float16()  ? MapType::kHalf
                      : type == aoti_torch_dtype_bfloat16() ? MapType::kBFloat16
                                                            : MapType::kFloat;
      expect(args.map_type != MapType::kFloat || type == aoti_torch_dtype_float32(), "map",
             "bool, uint8, float16, bfloat16 or float32");
      args.map = read<void>("map", map, 4, like, args.map_stride);
      args.map_height = int(map->size(1));
      args.map_width = int(map->size(2));
    }
    args.interpolation = int(interpolation);
    args.height = int(height);
    args.width = int(width);
  }

 private:
  OptionalTensor kept_[5];

  template <typename T>
  const T* read(const char* name, const OptionalTensor& t, int place, const Tensor& like,
                int64_t& stride) {
    expect(t->device() == like.device(), name, "the device of the op");
    kept_[place] = adjacent(*t) ? *t : torch::stable::contiguous(*t);
    stride = kept_[place]->size(0) > 1 ? kept_[place]->stride(0) : 0;
    return static_cast<const T*>(kept_[place]->const_data_ptr());
  }

  // Whether the elements of each sample are a run of memory.
  static bool adjacent(const Tensor& t) {
    int64_t stride = 1;
    for (int64_t d = t.dim() - 1; d > 0; --d) {
      if (t.size(d) != 1 && t.stride(d) != stride) return false;
      stride *= t.size(d);
    }
    return true;
  }
};

// The checks of mix_masked's arguments; other [M, …] may be none.
inline void check_masked(const Tensor& x, const OptionalTensor& other, const OptionalTensor& code,
                         int64_t pairing) {
  if (code) expect(x.dim() >= 3, "x", "shape [B, …, H, W]");
  if (!other) return;
  expect(other->device() == x.device() && code_of(*other) == code_of(x), "other",
         "the dtype and device of x");
  const auto found = other->sizes(), sizes = x.sizes();
  expect(
      found.size() == sizes.size() && std::equal(sizes.begin() + 1, sizes.end(), found.begin() + 1),
      "other", "samples like those of x");
  expect(found[0] >= (pairing == kTensor ? std::min<int64_t>(sizes[0], 1) : sizes[0]), "other",
         "a partner for each sample");
}

inline bool same_tensor(const Tensor& a, const Tensor& b) {
  const auto strides = a.strides(), others = b.strides();
  return a.const_data_ptr() == b.const_data_ptr() && a.dim() == b.dim() &&
         std::equal(strides.begin(), strides.end(), others.begin());
}

// With partners of another tensor, out may be x itself.
inline void check_masked_out(const Tensor& out, const Tensor& x, const OptionalTensor& other,
                             bool clean) {
  expect(out.device() == x.device() && code_of(out) == code_of(x), "out",
         "the dtype and device of x");
  const auto found = out.sizes(), sizes = x.sizes();
  expect(found.size() == sizes.size() && found[0] == sizes[0] * (clean ? 2 : 1) &&
             std::equal(sizes.begin() + 1, sizes.end(), found.begin() + 1),
         "out", "the shape of the result");
  expect_writable("out", out);
  if (!other || clean || !same_tensor(out, x)) expect_apart(out, x);
}

}  // namespace fused_mixup
