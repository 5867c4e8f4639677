// 16-byte access and the arithmetic every dtype shares.
//
// Products and sums are rounded one by one (the _rn intrinsics), never contracted to an fma, so
// that float32 results equal eager PyTorch's bit for bit. Half types widen to float32 exactly and
// are rounded once at the end; uint8 blends in float32 and rounds half to even.
#pragma once

#include <cstring>
#include <type_traits>

#include "launch.cuh"

namespace fused_mixup {

enum DType : int { kHalf = 0, kBFloat16 = 1, kFloat = 2, kDouble = 3, kUInt8 = 4 };

// The unsigned type of kBytes bytes, for values that are only moved.
template <int kBytes>
struct Word;
template <>
struct Word<1> {
  using type = uint8_t;
};
template <>
struct Word<2> {
  using type = uint16_t;
};
template <>
struct Word<4> {
  using type = uint32_t;
};
template <>
struct Word<8> {
  using type = uint64_t;
};
template <>
struct Word<16> {
  using type = uint4;
};
struct alignas(32) Word32 {
  uint4 lo, hi;
};
template <>
struct Word<32> {
  using type = Word32;
};
template <int kBytes>
struct Raw {
  typename Word<kBytes>::type bits;
};

template <typename T>
struct Number {  // Raw has no arithmetic
  using Acc = float;
  static constexpr bool kBlends = false;
};
template <>
struct Number<__half> {
  using Acc = float;
  static constexpr bool kBlends = true;
  static __device__ __forceinline__ float up(__half v) { return __half2float(v); }
  static __device__ __forceinline__ __half down(float v) { return __float2half_rn(v); }
};
template <>
struct Number<__nv_bfloat16> {
  using Acc = float;
  static constexpr bool kBlends = true;
  static __device__ __forceinline__ float up(__nv_bfloat16 v) { return __bfloat162float(v); }
  static __device__ __forceinline__ __nv_bfloat16 down(float v) { return __float2bfloat16_rn(v); }
};
template <>
struct Number<float> {
  using Acc = float;
  static constexpr bool kBlends = true;
  static __device__ __forceinline__ float up(float v) { return v; }
  static __device__ __forceinline__ float down(float v) { return v; }
};
template <>
struct Number<double> {
  using Acc = double;
  static constexpr bool kBlends = true;
  static __device__ __forceinline__ double up(double v) { return v; }
  static __device__ __forceinline__ double down(double v) { return v; }
};
template <>
struct Number<uint8_t> {
  using Acc = float;
  static constexpr bool kBlends = true;
  static __device__ __forceinline__ float up(uint8_t v) { return static_cast<float>(v); }
  static __device__ __forceinline__ uint8_t down(float v) {
    return static_cast<uint8_t>(fminf(fmaxf(rintf(v), 0.0f), 255.0f));
  }
};

__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double add(double a, double b) { return __dadd_rn(a, b); }

// weight * value, where a weight of exactly 0 drops its term: no 0 * inf.
__device__ __forceinline__ float term(float w, float v) {
  return w == 0.0f ? 0.0f : __fmul_rn(w, v);
}
__device__ __forceinline__ double term(double w, double v) {
  return w == 0.0 ? 0.0 : __dmul_rn(w, v);
}

// V adjacent elements as they are loaded and stored, by one instruction where V * sizeof(T) is 16.
// They stay whole words until elements() takes them apart: if they were split at the load, the
// thread would wait there.
template <typename T, int V>
struct Vec {
  typename Word<static_cast<int>(sizeof(T)) * V>::type bits;
};

template <typename T, int V>
struct Elements {
  T e[V];
};

template <typename T, int V>
__device__ __forceinline__ Elements<T, V> elements(const Vec<T, V>& v) {
  Elements<T, V> out;
  memcpy(&out, &v, sizeof(out));
  return out;
}

template <typename T, int V>
__device__ __forceinline__ Vec<T, V> packed(const Elements<T, V>& elements) {
  Vec<T, V> out;
  memcpy(&out, &elements, sizeof(out));
  return out;
}

template <int V, typename T>
__device__ __forceinline__ Vec<T, V> load(const T* p) {
  using Bits = decltype(Vec<T, V>::bits);
  return {*reinterpret_cast<const Bits*>(p)};
}

template <typename T, int V>
__device__ __forceinline__ void store(T* p, const Vec<T, V>& v) {
  using Bits = decltype(Vec<T, V>::bits);
  if constexpr (sizeof(Bits) == 16) {
    store16(p, v.bits);
  } else {
    *reinterpret_cast<Bits*>(p) = v.bits;
  }
}

// load() without a branch where it is not needed: zeros then.
template <int V, bool kOnce = false, typename T>
__device__ __forceinline__ Vec<T, V> load_if(bool needed, const T* p) {
  Vec<T, V> v{};
  if constexpr (sizeof(v) == 16 && std::is_same<T, double>::value) {
    uint64_t bits[2];
    load8x2<kOnce>(p, needed, bits[0], bits[1]);
    memcpy(&v, bits, sizeof(v));
  } else if constexpr (sizeof(v) == 16) {
    const uint4 bits = load16<kOnce>(p, needed);
    memcpy(&v, &bits, sizeof(v));
  } else if constexpr (sizeof(v) == 32) {
    load32_once(p, needed, v.bits.lo, v.bits.hi);
  } else {
    if (needed) v = load<V>(p);
  }
  return v;
}

// load() and store() of what the kernel does not touch again.
template <int V, typename T>
__device__ __forceinline__ Vec<T, V> load_once(const T* p) {
  if constexpr (V * sizeof(T) == 16) return {load16_once(p)};
  return load<V>(p);
}

template <int V, typename T>
__device__ __forceinline__ Vec<T, V> load_once(const T* p, bool needed) {
  return load_if<V, true>(needed, p);
}

template <typename T, int V>
__device__ __forceinline__ void store_once(T* p, const Vec<T, V>& v) {
  if constexpr (sizeof(v) == 16) {
    uint4 bits;
    memcpy(&bits, &v, sizeof(bits));
    store16_once(p, bits);
  } else if constexpr (sizeof(v) == 32) {
    store32_once(p, v.bits.lo, v.bits.hi);
  } else {
    store(p, v);
  }
}

// n / d for n >= 0, d > 0. Most numbers fit the 32-bit division, which is far shorter.
__device__ __forceinline__ int64_t quotient(int64_t n, int64_t d) {
  if (((n | d) >> 32) == 0) return static_cast<uint32_t>(n) / static_cast<uint32_t>(d);
  return n / d;
}

// Calls f with a value of a type that images are normalised to. Other types are an error.
template <typename F>
cudaError_t with_normalized(DType dtype, F&& f) {
  switch (dtype) {
    case kHalf:
      return f(__half());
    case kBFloat16:
      return f(__nv_bfloat16());
    case kFloat:
      return f(float());
    default:
      return cudaErrorInvalidValue;
  }
}

// Calls f with a value of a floating type. Other types are an error.
template <typename F>
cudaError_t with_floating(DType dtype, F&& f) {
  return dtype == kDouble ? f(double()) : with_normalized(dtype, f);
}

inline bool aligned(const void* p, int bytes) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}
inline bool aligned16(const void* p) { return aligned(p, 16); }

}  // namespace fused_mixup
