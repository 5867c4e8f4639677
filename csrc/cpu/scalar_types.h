// The types that elements are stored in, and how single elements become floats and back.
#pragma once

#include <cstdint>
#include <type_traits>

namespace fused_mixup {

// Types of storage alone; arithmetic is in float.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
// Elements of 16 bytes, which are moved and never blended.
struct Bits128 {
  uint64_t bits[2];
};

template <typename T>
using acc_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Half precision in scalar code, for the baseline and for single elements; rounds half to even.
inline float bits_to_float(uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
inline uint32_t float_to_bits(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  return u;
}

inline float to_float(float v) { return v; }
inline double to_float(double v) { return v; }
inline float to_float(uint8_t v) { return v; }
inline float to_float(BFloat16 v) { return bits_to_float(uint32_t(v.bits) << 16); }
inline float to_float(Half v) {
  const uint32_t sign = uint32_t(v.bits & 0x8000) << 16;
  const uint32_t magnitude = v.bits & 0x7fff;
  if (magnitude >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // The bits read as a float are the value times 2^-112, denormals included.
  const float value = bits_to_float(magnitude << 13) * bits_to_float(0x77800000);
  return bits_to_float(sign | float_to_bits(value));
}

template <typename T>
T from_float(acc_t<T> v) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const uint32_t u = float_to_bits(v);
    if (v != v) return {uint16_t((u >> 16) | 0x40)};
    return {uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
  } else if constexpr (std::is_same_v<T, Half>) {
    const uint32_t u = float_to_bits(v);
    const uint16_t sign = uint16_t((u >> 16) & 0x8000);
    const uint32_t magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000) {
      return {uint16_t(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff))};
    }
    if (magnitude >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // 65520 and up: infinity
    if (magnitude < 0x38800000) {  // below 2^-14: adding 0.5 rounds at the denormals' last bit
      const float shifted = bits_to_float(magnitude) + 0.5f;
      return {uint16_t(sign | (float_to_bits(shifted) - 0x3f000000))};
    }
    const uint32_t odd = (magnitude >> 13) & 1;
    return {uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + odd) >> 13))};
  } else if constexpr (std::is_same_v<T, uint8_t>) {
    const float r = __builtin_nearbyintf(v);
    return r <= 0 ? 0 : r >= 255 ? 255 : uint8_t(r);
  } else {
    return v;
  }
}

}  // namespace fused_mixup
