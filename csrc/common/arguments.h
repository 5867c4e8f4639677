// The checks of the tensors that ops are called with, the same for both modules.
//
// The public functions check in Python, with messages that name a remedy. But ops are also called
// directly (torch.ops, exported graphs), and kernels read memory by the dtype and sizes that are
// checked here, with a few comparisons per argument. No strides are refused: as_rows() and other
// helpers of the modules copy tensors whose elements do not lie as kernels read them. Before
// PyTorch 2.13 the messages are lost on the way to Python, which raises an error without one.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "binary.h"
#include "layout.h"

namespace fused_mixup {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline void expect(bool holds, const char* name, const char* expected) {
  STD_TORCH_CHECK(holds, "fused_mixup: ", name, ": expected ", expected);
}

// A dtype as PyTorch numbers it. A comparison of numbers takes a few instructions; a ScalarType is
// found by comparing with one dtype after another.
using Code = int32_t;
inline Code code_of(const Tensor& t) {
  Code code = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &code));
  return code;
}

inline const char* name_of(Code code) {
  return code == aoti_torch_dtype_int32()     ? "int32"
         : code == aoti_torch_dtype_int64()   ? "int64"
         : code == aoti_torch_dtype_float32() ? "float32"
         : code == aoti_torch_dtype_float64() ? "float64"
         : code == aoti_torch_dtype_bool()    ? "bool"
                                              : "the dtype of the tensor that it belongs to";
}

inline void expect_code(const char* name, const Tensor& t, Code code) {
  if (code_of(t) != code) expect(false, name, name_of(code));
}

// The arithmetic type of the losses: float64 for float64, else float32.
inline Code arithmetic_code(const Tensor& logits) {
  const Code wide = aoti_torch_dtype_float64();
  return code_of(logits) == wide ? wide : aoti_torch_dtype_float32();
}

// t is on the device of `like`, or on the CPU, from where the CUDA module copies it.
inline void expect_near(const char* name, const Tensor& t, const Tensor& like) {
  expect(t.is_cpu() || t.device() == like.device(), name, "the device of the op");
}

// t has this dtype and these sizes.
inline void expect_tensor(const char* name, const Tensor& t, Code code,
                          std::initializer_list<int64_t> sizes, const Tensor& like) {
  expect_near(name, t, like);
  expect_code(name, t, code);
  const auto found = t.sizes();
  expect(found.size() == sizes.size() && std::equal(sizes.begin(), sizes.end(), found.begin()),
         name, "another shape");
}

// arithmetic_code() as a ScalarType, to allocate results with.
inline ScalarType arithmetic(const Tensor& logits) {
  return code_of(logits) == aoti_torch_dtype_float64() ? ScalarType::Double : ScalarType::Float;
}

inline bool same_sizes(const Tensor& a, const Tensor& b) {
  const auto left = a.sizes(), right = b.sizes();
  return left.size() == right.size() && std::equal(left.begin(), left.end(), right.begin());
}

// t has this dtype and the sizes of `like`.
inline void expect_like(const char* name, const Tensor& t, Code code, const Tensor& like) {
  expect_near(name, t, like);
  expect_code(name, t, code);
  expect(same_sizes(t, like), name, "another shape");
}

// t has this dtype and the shape [planes, B, d1…], or [B, d1…] for planes 0.
inline void expect_positions(const char* name, const Tensor& t, Code code, const Tensor& logits,
                             int64_t planes = 0) {
  expect_near(name, t, logits);
  expect_code(name, t, code);
  const auto found = t.sizes(), sizes = logits.sizes();
  const size_t first = planes > 0 ? 1 : 0;
  expect(found.size() + 1 == sizes.size() + first && (planes == 0 || found[0] == planes) &&
             found[first] == sizes[0] &&
             std::equal(sizes.begin() + 2, sizes.end(), found.begin() + first + 1),
         name, "a value for each row of the logits");
}

// No two elements of t, which is written, share memory: the stride of each dim is larger than the
// reach of all dims with smaller strides.
inline void expect_writable(const char* name, const Tensor& t) {
  if (t.is_contiguous() || t.numel() == 0) return;
  const auto sizes = t.sizes(), strides = t.strides();
  const size_t ndim = sizes.size();
  expect(ndim <= size_t(kMaxDims) + 1, name, "at most 13 dims");
  size_t order[kMaxDims + 1];
  for (size_t k = 0; k < ndim; ++k) order[k] = k;
  std::sort(order, order + ndim, [&](size_t a, size_t b) { return strides[a] < strides[b]; });
  int64_t reach = 0;
  for (size_t k = 0; k < ndim; ++k) {
    const int64_t size = sizes[order[k]], stride = strides[order[k]];
    if (size == 1) continue;
    expect(stride > reach, name, "a tensor whose elements share no memory");
    reach += stride * (size - 1);
  }
}

// One past the last byte that t can reach.
inline const char* end_of(const Tensor& t) {
  int64_t reach = 1;
  const auto sizes = t.sizes(), strides = t.strides();
  for (size_t k = 0; k < sizes.size(); ++k) reach += (sizes[k] - 1) * strides[k];
  return static_cast<const char*>(t.const_data_ptr()) + reach * int64_t(t.element_size());
}

inline void expect_apart(const Tensor& out, const Tensor& x) {
  const bool empty = out.numel() == 0 || x.numel() == 0;  // whose strides may be any numbers
  const bool apart =
      empty || end_of(out) <= x.const_data_ptr() || end_of(x) <= out.const_data_ptr();
  expect(apart, "out", "memory of its own");
}

// ---------------------------------------------------------------- plans

// The partners of `batch` samples are given by a rule or by a tensor.
inline void check_pairing(int64_t pairing, const OptionalTensor& partner, int64_t batch,
                          const Tensor& like) {
  expect(pairing >= kTensor && pairing <= kSelf, "pairing", "a number from 0 to 3");
  if (pairing != kTensor) return;
  expect(partner.has_value(), "partner", "a tensor, as pairing is 0");
  expect_tensor("partner", *partner, aoti_torch_dtype_int32(), {batch}, like);
}

// A plan of `batch` samples fits x [B, …]. blend is null where the box alone is pasted.
inline void check_plan(const Tensor& x, int64_t batch, int64_t pairing,
                       const OptionalTensor& partner, const Tensor* blend, const Tensor& box) {
  const int64_t dims = x.dim() - 1;
  expect(dims >= 0 && dims <= kMaxDims, "x", "1 to 13 dims");
  check_pairing(pairing, partner, batch, x);
  if (blend) expect_tensor("blend", *blend, aoti_torch_dtype_float64(), {batch, 2}, x);
  const auto sizes = box.sizes();
  expect(sizes.size() == 2 && sizes[0] == batch, "box", "shape [B, 2 D]");
  const int64_t columns = sizes[1];
  expect(columns % 2 == 0 && columns <= 2 * std::min<int64_t>(dims, kMaxSpatial), "box",
         "two columns for each of at most 3 of the batch's dims");
  expect_near("box", box, x);
  expect_code("box", box, aoti_torch_dtype_int32());
}

// The lists by which mix_backward finds the rows whose partner a sample is.
inline void check_transpose(int64_t pairing, const OptionalTensor& sources,
                            const OptionalTensor& offsets, const Tensor& grad) {
  if (pairing != kTensor) return;
  expect(sources && offsets, "sources, offsets", "tensors, as pairing is 0");
  expect_tensor("sources", *sources, aoti_torch_dtype_int32(), {grad.size(0)}, grad);
  expect_tensor("offsets", *offsets, aoti_torch_dtype_int32(), {grad.size(0) + 1}, grad);
}

inline void check_out(const Tensor& out, const Tensor& x) {
  expect(out.device() == x.device(), "out", "the device of x");
  expect_like("out", out, code_of(x), x);
  expect_writable("out", out);
  expect_apart(out, x);
}

inline void check_label_pairs(const Tensor& labels, int64_t pairing, const OptionalTensor& partner,
                              const Tensor& weight, int64_t num_classes) {
  expect(labels.dim() >= 1, "labels", "shape [B, …]");
  expect_code("labels", labels, aoti_torch_dtype_int64());
  expect(num_classes >= 0 && num_classes < (int64_t{1} << 31), "num_classes", "0 to 2^31 - 1");
  check_pairing(pairing, partner, labels.size(0), labels);
  expect_tensor("weight", weight, aoti_torch_dtype_float32(), {labels.size(0), 2}, labels);
}

// ---------------------------------------------------------------- boxes

// Boxes of this many dims, the last of them x1, y1, x2, y2.
inline void check_boxes(const Tensor& boxes, int64_t dims) {
  const Code code = code_of(boxes);
  expect(code == aoti_torch_dtype_float32() || code == aoti_torch_dtype_float64(), "boxes",
         "float32 or float64");
  expect(boxes.dim() == dims && boxes.size(dims - 1) == 4, "boxes", "shape […, 4]");
  expect(boxes.size(dims - 2) < (int64_t{1} << 30), "boxes", "fewer than 2^30 in a sample");
}

// How many of the boxes [B, N, 4] of each sample are there.
inline void check_count(const OptionalTensor& count, const Tensor& boxes) {
  if (!count) return;
  const bool narrow = code_of(*count) == aoti_torch_dtype_int32();
  expect_tensor("count", *count, narrow ? aoti_torch_dtype_int32() : aoti_torch_dtype_int64(),
                {boxes.size(0)}, boxes);
}

// A plan of `batch` samples whose boxes, if it has any, are those of images.
inline bool check_box_plan(const Tensor& boxes, int64_t batch, int64_t pairing,
                           const OptionalTensor& partner, const Tensor& blend, const Tensor& box) {
  check_pairing(pairing, partner, batch, boxes);
  expect_tensor("blend", blend, aoti_torch_dtype_float64(), {batch, 2}, boxes);
  const bool none = box.dim() == 2 && box.size(1) == 0;
  expect_tensor("box", box, aoti_torch_dtype_int32(), {batch, none ? 0 : 4}, boxes);
  return true;
}

// ---------------------------------------------------------------- losses

inline bool is_floating(const Tensor& t) {
  const Code code = code_of(t);
  return code == aoti_torch_dtype_float32() || code == aoti_torch_dtype_float16() ||
         code == aoti_torch_dtype_bfloat16() || code == aoti_torch_dtype_float64();
}

inline void check_logits(const Tensor& logits) {
  expect(logits.dim() >= 2 && is_floating(logits), "logits", "floats [B, K, …]");
}

inline void check_per_class(const char* name, const OptionalTensor& t, const Tensor& logits) {
  if (t) expect_tensor(name, *t, arithmetic_code(logits), {logits.size(1)}, logits);
}

// Logits [B, K, d1…] and a target that fits them: dense, or two labels and two weights for each
// row.
inline void check_loss(const Tensor& logits, const Tensor& target,
                       const OptionalTensor& partner_labels, const OptionalTensor& weight,
                       const OptionalTensor& class_weight, int64_t reduction) {
  check_logits(logits);
  expect(reduction >= kMean && reduction <= kNone, "reduction", "a number from 0 to 2");
  expect(partner_labels.has_value() == weight.has_value(), "weight",
         "a tensor where there are partner_labels, and only there");
  if (partner_labels) {
    expect_positions("target", target, aoti_torch_dtype_int64(), logits);
    expect_positions("partner_labels", *partner_labels, aoti_torch_dtype_int64(), logits);
    expect_tensor("weight", *weight, aoti_torch_dtype_float32(), {logits.size(0), 2}, logits);
  } else {
    const bool half = logits.element_size() == 2;
    const bool single = half && code_of(target) == aoti_torch_dtype_float32();
    expect_like("target", target, single ? aoti_torch_dtype_float32() : code_of(logits), logits);
  }
  check_per_class("class_weight", class_weight, logits);
}

inline bool is_coefficient(double x) { return x >= 0 && x - x == 0; }

// A focal loss has terms for two labels; with smoothing or a dense target each class would have
// one, for which no kernel has a sweep. A z-loss serves every target.
inline void check_focal(double gamma, bool sparse, double target_smoothing, double label_smoothing,
                        double z_loss) {
  expect(is_coefficient(gamma), "focal_gamma", "a finite number >= 0");
  expect(is_coefficient(z_loss), "z_loss", "a finite number >= 0");
  expect(gamma == 0 || (sparse && target_smoothing == 0 && label_smoothing == 0), "focal_gamma",
         "0 with a dense or smoothed target; the public function takes it");
}

// The upstream gradient of one loss. With `each`, of a loss for every row; with `elements` too, of
// a loss for every element.
inline void check_grad_loss(const Tensor& grad_loss, const Tensor& logits, bool each,
                            bool elements = false) {
  const Code type = arithmetic_code(logits);
  if (!each) return expect_tensor("grad_loss", grad_loss, type, {}, logits);
  if (elements) return expect_like("grad_loss", grad_loss, type, logits);
  expect_positions("grad_loss", grad_loss, type, logits);
}

// What the forward of the cross-entropy passes to its backward.
inline void check_saved(const Tensor& stats, const Tensor& count, const Tensor& logits) {
  expect_positions("stats", stats, arithmetic_code(logits), logits, 3);
  expect_tensor("count", count, arithmetic_code(logits), {}, logits);
}

// ---------------------------------------------------------------- scale_ and draw_plan

inline void check_scale(const Tensor& x, const Tensor& factor) {
  expect(is_floating(x) && x.dim() <= kMaxDims, "x", "floats of at most 12 dims");
  expect_writable("x", x);
  expect_tensor("factor", factor, arithmetic_code(x), {}, x);
}

}  // namespace fused_mixup
