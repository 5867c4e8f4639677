// mix_targets on the CPU: dense soft labels [B, K, …] written once, nothing dense read.
#include <algorithm>
#include <limits>
#include <vector>

#include "binding.h"
#include "kernels.h"

namespace fused_mixup {
namespace {

struct TargetRow {
  const int64_t* labels;
  const int64_t* partner_labels;
  double weight[2];
};

// t[c] = w0·v0(c) + w1·v1(c) with v = on where c is the label, else off. Each product and the sum
// are rounded one by one; a weight of 0 drops its term.
template <typename T>
void fill_row(T* out, const TargetRow& row, int64_t num_classes, int64_t inner, double on_value,
              double off_value) {
  using A = acc_t<T>;
  const A on = A(on_value), off = A(off_value);
  const A w0 = A(row.weight[0]), w1 = A(row.weight[1]);
  const auto entry = [&](bool hit0, bool hit1) {
    const A first = w0 == 0 ? A(0) : w0 * (hit0 ? on : off);
    const A second = w1 == 0 ? A(0) : w1 * (hit1 ? on : off);
    return from_float<T>(first + second);
  };
  std::fill_n(out, num_classes * inner, entry(false, false));
  const T both = entry(true, true), own = entry(true, false), other = entry(false, true);
  const T nan = from_float<T>(std::numeric_limits<A>::quiet_NaN());
  for (int64_t s = 0; s < inner; ++s) {
    const int64_t a = row.labels[s], b = row.partner_labels[s];
    if (a < 0 || a >= num_classes || b < 0 || b >= num_classes) {
      for (int64_t c = 0; c < num_classes; ++c) out[c * inner + s] = nan;
    } else if (a == b) {
      out[a * inner + s] = both;
    } else {
      out[a * inner + s] = own;
      out[b * inner + s] = other;
    }
  }
}

Tensor mix_targets(Tensor labels, OptionalTensor partner, Tensor weight, int64_t pairing,
                   int64_t num_classes, double label_smoothing, ScalarType dtype) {
  check_label_pairs(labels, pairing, partner, weight, num_classes);
  const auto sizes = labels.sizes();
  std::vector<int64_t> shape(sizes.begin(), sizes.end());
  shape.insert(shape.begin() + 1, num_classes);
  Tensor out = on_large_pages(new_tensor(shape, dtype));
  if (out.numel() == 0) return out;
  const int64_t batch = labels.size(0);
  const int64_t inner = labels.numel() / batch;
  const Tensor dense = as_contiguous(labels), near_weight = as_rows(weight);
  const Tensor near_partner = pairing == kTensor ? as_contiguous(*partner) : labels;
  const int64_t* y = static_cast<const int64_t*>(dense.data_ptr());
  const int32_t* indices = static_cast<const int32_t*>(near_partner.data_ptr());
  const float* weights = static_cast<const float*>(near_weight.data_ptr());
  const int64_t weight_stride = near_weight.stride(0);
  const double off = label_smoothing / double(num_classes);
  const double on = 1.0 - label_smoothing + off;
  const int64_t row_size = num_classes * inner;
  const auto fill = [&](auto* data) {
    torch::stable::parallel_for(0, batch, 1 + 32768 / row_size, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t p = partner_of(int(pairing), indices, i, batch);
        const float* w = weights + i * weight_stride;
        const TargetRow row = {y + i * inner, y + p * inner, {w[0], w[1]}};
        fill_row(data + i * row_size, row, num_classes, inner, on, off);
      }
    });
  };
  switch (dtype) {
    case ScalarType::Float:
      fill(static_cast<float*>(out.data_ptr()));
      break;
    case ScalarType::Double:
      fill(static_cast<double*>(out.data_ptr()));
      break;
    case ScalarType::Half:
      fill(static_cast<Half*>(out.data_ptr()));
      break;
    case ScalarType::BFloat16:
      fill(static_cast<BFloat16*>(out.data_ptr()));
      break;
    default:
      STD_TORCH_CHECK(false, "fused_mixup: target dtype that is not floating");
  }
  return out;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CPU, m) {
  m.impl("mix_targets", TORCH_BOX(&fused_mixup::mix_targets));
}
