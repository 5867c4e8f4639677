// mix_targets on the CPU: writes dense soft labels [B, K, …] once, and reads nothing dense.
#include <algorithm>
#include <limits>
#include <vector>

#include "binding.h"
#include "dispatch.h"
#include "target_values.h"

namespace fused_mixup {
namespace {

// The soft labels of one sample, [K, inner].
template <typename T>
void fill_row(T* out, const int64_t* labels, const int64_t* partner_labels,
              const TargetValues<acc_t<T>>& values, int64_t num_classes, int64_t inner) {
  using A = acc_t<T>;
  std::fill_n(out, num_classes * inner, from_float<T>(values.neither));
  const T both = from_float<T>(values.both);
  const T own = from_float<T>(values.own), other = from_float<T>(values.partner);
  const T nan = from_float<T>(std::numeric_limits<A>::quiet_NaN());
  for (int64_t s = 0; s < inner; ++s) {
    const int64_t a = labels[s], b = partner_labels[s];
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

Tensor mix_targets(Tensor labels,           // int64 [B, …]
                   OptionalTensor partner,  // int32 [B]
                   Tensor weight,           // float32 [B, 2]
                   int64_t pairing, int64_t num_classes, double label_smoothing, ScalarType dtype) {
  check_label_pairs(labels, pairing, partner, weight, num_classes);
  const auto sizes = labels.sizes();
  std::vector<int64_t> shape(sizes.begin(), sizes.end());
  shape.insert(shape.begin() + 1, num_classes);
  Tensor out = on_large_pages(new_tensor(shape, dtype));
  if (out.numel() == 0) return out;
  const int64_t batch = labels.size(0);
  const int64_t inner = labels.numel() / batch;
  const Tensor dense = as_contiguous(labels), near_weight = as_rows(weight);
  const Partners partners(pairing, partner, batch);
  const auto partner_at = partners.lookup();
  const int64_t* y = data<int64_t>(dense);
  const float* weights = data<float>(near_weight);
  const int64_t weight_stride = near_weight.stride(0);
  const SmoothedOneHot value(label_smoothing, num_classes);
  const int64_t row_size = num_classes * inner;
  dispatch_floating(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* rows = data<T>(out);
    parallel_for(0, batch, 1 + 32768 / row_size, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const TargetValues<acc_t<T>> values(weights + i * weight_stride, value);
        const int64_t* partner_labels = y + partner_at(i) * inner;
        fill_row(rows + i * row_size, y + i * inner, partner_labels, values, num_classes, inner);
      }
    });
  });
  return out;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("mix_targets", TORCH_BOX(&fused_mixup::mix_targets));
}
