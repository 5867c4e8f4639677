// CUDA's numbers: vector types, half types and their conversions, intrinsics.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

using std::max;
using std::min;

// ------------------------------------------------------------------ vector types

#define HOST_CUDA_VECTORS(T, name, align2, align4)                           \
  struct alignas(align2) name##2 { T x, y; };                                \
  struct name##3 { T x, y, z; };                                             \
  struct alignas(align4) name##4 { T x, y, z, w; };                          \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                 \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }         \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; } \
  static_assert(sizeof(name##2) == 2 * sizeof(T) && sizeof(name##4) == 4 * sizeof(T))

HOST_CUDA_VECTORS(unsigned char, uchar, 2, 4);
HOST_CUDA_VECTORS(short, short, 4, 8);
HOST_CUDA_VECTORS(unsigned short, ushort, 4, 8);
HOST_CUDA_VECTORS(int, int, 8, 16);
HOST_CUDA_VECTORS(unsigned, uint, 8, 16);
HOST_CUDA_VECTORS(float, float, 8, 16);
HOST_CUDA_VECTORS(long long, longlong, 16, 16);
HOST_CUDA_VECTORS(unsigned long long, ulonglong, 16, 16);
HOST_CUDA_VECTORS(double, double, 16, 16);
#undef HOST_CUDA_VECTORS

// ------------------------------------------------------------------ half types

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

namespace host_cuda {
template <typename To, typename From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
}  // namespace host_cuda

inline float __half2float(__half h) {
  const uint32_t sign = uint32_t{h.bits & 0x8000u} << 16, rest = h.bits & 0x7fffu;
  if (rest >= 0x7c00u) return host_cuda::bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ff) << 13);
  if (rest < 0x0400u) {
    const float value = static_cast<float>(rest) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  return host_cuda::bit_cast<float>(sign | ((rest << 13) + (112u << 23)));
}

inline __half __float2half_rn(float f) {
  const uint32_t x = host_cuda::bit_cast<uint32_t>(f), a = x & 0x7fffffffu;
  const auto signed_half = [&](uint32_t h) {
    return __half{static_cast<uint16_t>((x >> 16 & 0x8000u) | h)};
  };
  if (a > 0x7f800000u) return signed_half(0x7fff);
  if (a >= 0x477ff000u) return signed_half(0x7c00);  // 65520 and larger become infinity
  if (a < 0x38800000u) {  // subnormal: 0.5 has the unit in the last place of a subnormal half
    const float sum = host_cuda::bit_cast<float>(a) + 0.5f;
    return signed_half(host_cuda::bit_cast<uint32_t>(sum) - 0x3f000000u);
  }
  return signed_half((a + 0xfffu + (a >> 13 & 1u) - (112u << 23)) >> 13);
}

inline float __bfloat162float(__nv_bfloat16 h) {
  return host_cuda::bit_cast<float>(uint32_t{h.bits} << 16);
}

inline __nv_bfloat16 __float2bfloat16_rn(float f) {
  const uint32_t x = host_cuda::bit_cast<uint32_t>(f);
  if ((x & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((x + 0x7fffu + (x >> 16 & 1u)) >> 16)};
}

inline __half __float2half(float f) { return __float2half_rn(f); }
inline __nv_bfloat16 __float2bfloat16(float f) { return __float2bfloat16_rn(f); }
inline __half2 __floats2half2_rn(float x, float y) {
  return {__float2half_rn(x), __float2half_rn(y)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 h) {
  return {__bfloat162float(h.x), __bfloat162float(h.y)};
}

// ------------------------------------------------------------------ intrinsics

// Drivers are compiled with -ffp-contract=off, so that these round one by one, as on the device.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }

inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(uint64_t{a} * b >> 32);
}
// Byte k of the result is the byte of y:x that the k-th digit of the selector numbers. (With a
// digit above 7 it would be a sign, which no kernel uses.)
inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector) {
  const uint64_t bytes = uint64_t{y} << 32 | x;
  uint32_t out = 0;
  for (int k = 0; k < 4; ++k) {
    out |= static_cast<uint32_t>(bytes >> 8 * (selector >> 4 * k & 7) & 255) << 8 * k;
  }
  return out;
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }

inline unsigned __float_as_uint(float v) { return host_cuda::bit_cast<unsigned>(v); }
inline int __float_as_int(float v) { return host_cuda::bit_cast<int>(v); }
inline float __uint_as_float(unsigned v) { return host_cuda::bit_cast<float>(v); }
inline float __int_as_float(int v) { return host_cuda::bit_cast<float>(v); }

template <typename T>
T __ldg(const T* p) {
  return *p;
}
template <typename T>
T __ldcg(const T* p) {  // from L2, which holds what other blocks have written
  return *p;
}
