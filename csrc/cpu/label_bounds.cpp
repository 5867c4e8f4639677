// label_bounds on the CPU: the smallest and the largest of the labels that are not ignored, in one
// read of them. Class maps are checked by it before each step.
#include <algorithm>
#include <limits>
#include <mutex>
#include <type_traits>

#include "binding.h"

namespace fused_mixup {
namespace {

template <typename T>
void bounds_of(const T* labels, int64_t n, int64_t ignore_index, int64_t* bounds) {
  using U = std::make_unsigned_t<T>;
  // An ignored label that T cannot hold occurs nowhere.
  const bool can_hold = int64_t(T(ignore_index)) == ignore_index;
  std::mutex mutex;
  parallel_for(0, n, 1 << 15, [&](int64_t begin, int64_t end) {
    constexpr T kLow = std::numeric_limits<T>::min(), kHigh = std::numeric_limits<T>::max();
    const T ignored = T(ignore_index);
    T low = kHigh, high = kLow;
    // Masks instead of branches: compilers turn them into vectors of T, which int would widen.
    for (int64_t i = begin; i < end; ++i) {
      const T y = labels[i];
      const U skip = U(can_hold ? -U(y == ignored) : 0), kept = U(y) & U(~skip);
      low = std::min(low, T(kept | (U(kHigh) & skip)));
      high = std::max(high, T(kept | (U(kLow) & skip)));
    }
    if (low > high) return;  // all are ignored
    const std::lock_guard<std::mutex> lock(mutex);
    bounds[0] = std::min<int64_t>(bounds[0], low);
    bounds[1] = std::max<int64_t>(bounds[1], high);
  });
}

Tensor label_bounds(Tensor labels,  // […], integers
                    int64_t ignore_index) {
  const Tensor dense = as_contiguous(labels);
  const int64_t n = dense.numel();
  Tensor out = new_tensor(std::array<int64_t, 1>{2}, ScalarType::Long);
  int64_t* bounds = data<int64_t>(out);
  bounds[0] = std::numeric_limits<int64_t>::max();
  bounds[1] = std::numeric_limits<int64_t>::min();
  switch (labels.scalar_type()) {
    case ScalarType::Byte:
      bounds_of(data<uint8_t>(dense), n, ignore_index, bounds);
      break;
    case ScalarType::Char:
      bounds_of(data<int8_t>(dense), n, ignore_index, bounds);
      break;
    case ScalarType::Short:
      bounds_of(data<int16_t>(dense), n, ignore_index, bounds);
      break;
    case ScalarType::Int:
      bounds_of(data<int32_t>(dense), n, ignore_index, bounds);
      break;
    case ScalarType::Long:
      bounds_of(data<int64_t>(dense), n, ignore_index, bounds);
      break;
    default:
      STD_TORCH_CHECK(false, "fused_mixup, labels: expected integers");
  }
  if (bounds[0] > bounds[1]) bounds[0] = 0, bounds[1] = -1;
  return out;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("label_bounds", TORCH_BOX(&fused_mixup::label_bounds));
}
