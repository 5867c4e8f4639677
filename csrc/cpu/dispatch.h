// Calls f with the C++ type of a dtype, as an argument of type TypeTag or LossTypes.
#pragma once

#include "../common/arguments.h"
#include "scalar_types.h"

namespace fused_mixup {

template <typename T>
struct TypeTag {
  using type = T;
};

// L: type of the logits. T: type of a dense target.
template <typename L, typename T>
struct LossTypes {
  using Logit = L;
  using Target = T;
  using A = acc_t<L>;
};

// The types that images are normalised to: a float or a half.
template <typename F>
void dispatch_normalized(ScalarType dtype, const F& f) {
  switch (dtype) {
    case ScalarType::Float:
      return f(TypeTag<float>());
    case ScalarType::Half:
      return f(TypeTag<Half>());
    case ScalarType::BFloat16:
      return f(TypeTag<BFloat16>());
    default:
      STD_TORCH_CHECK(false, "fused_mixup: dtype that this op does not take");
  }
}

template <typename F>
void dispatch_floating(ScalarType dtype, const F& f) {
  dtype == ScalarType::Double ? f(TypeTag<double>()) : dispatch_normalized(dtype, f);
}

template <typename F>
void dispatch_blendable(ScalarType dtype, const F& f) {
  dtype == ScalarType::Byte ? f(TypeTag<uint8_t>()) : dispatch_floating(dtype, f);
}

// A dense target has the dtype of the logits, or float32 where that is a half type.
template <typename F>
void dispatch_loss(ScalarType logits, ScalarType target, const F& f) {
  dispatch_floating(logits, [&](auto tag) {
    using L = typename decltype(tag)::type;
    if constexpr (sizeof(L) == 2) {
      if (target != logits) return f(LossTypes<L, float>());
    }
    f(LossTypes<L, L>());
  });
}

// A type of this size, for values that are moved and never read as numbers.
template <typename F>
void dispatch_size(size_t bytes, const F& f) {
  switch (bytes) {
    case 1:
      return f(TypeTag<uint8_t>());
    case 2:
      return f(TypeTag<Half>());
    case 4:
      return f(TypeTag<float>());
    case 8:
      return f(TypeTag<double>());
    case 16:
      return f(TypeTag<Bits128>());
    default:
      STD_TORCH_CHECK(false, "fused_mixup: element size that cannot be moved");
  }
}

}  // namespace fused_mixup
