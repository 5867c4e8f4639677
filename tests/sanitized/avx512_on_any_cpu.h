// The AVX-512 intrinsics that csrc/cpu uses, in plain C++, so that the AVX-512 source runs where no
// CPU has the instructions. Semantics: Intel's intrinsics guide. stand_ins.cpp hands each of them
// to the tests, which hold them against the CPU's AVX2 and F16C instructions.
//
// <immintrin.h> must not be included beside this: the names are its own.
#pragma once

#include <cstdint>

typedef float __m512 __attribute__((vector_size(64)));
typedef double __m512d __attribute__((vector_size(64)));
typedef long long __m512i __attribute__((vector_size(64)));
typedef long long __m256i __attribute__((vector_size(32)));
typedef long long __m128i __attribute__((vector_size(16)));

#define _MM_FROUND_TO_NEAREST_INT 0
#define _CMP_UNORD_Q 3

typedef uint8_t __mmask8;
typedef uint16_t __mmask16;

namespace stand_in {

// A vector as an array of its lanes, and back.
template <typename T, int N>
struct Lanes {
  T lane[N];

  template <typename V>
  static Lanes of(const V& v) {
    static_assert(sizeof(V) == sizeof(Lanes), "as many lanes as the vector has");
    Lanes out;
    __builtin_memcpy(&out, &v, sizeof(v));
    return out;
  }
  template <typename V>
  V as() const {
    V v;
    static_assert(sizeof(V) == sizeof(Lanes), "as many lanes as the vector has");
    __builtin_memcpy(&v, this, sizeof(v));
    return v;
  }
};

inline uint32_t bits_of(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  return u;
}
inline float float_of(uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}

// By arithmetic on the value, unlike to_float() and from_float() of kernels.h, which go by bits.
inline float half_to_float(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const uint32_t sign = uint32_t(h >> 15) << 31;
  if (exponent == 31) {  // infinity; a NaN keeps its payload and becomes quiet
    return float_of(sign | 0x7f800000 | (fraction ? 0x400000 | uint32_t(fraction) << 13 : 0));
  }
  const float magnitude = exponent == 0 ? __builtin_ldexpf(float(fraction), -24)
                                        : __builtin_ldexpf(float(1024 + fraction), exponent - 25);
  return sign ? -magnitude : magnitude;
}
inline uint16_t float_to_half(float f) {
  const uint16_t sign = uint16_t(bits_of(f) >> 31 << 15);
  const double magnitude = __builtin_fabs(double(f));
  if (f != f) return uint16_t(sign | 0x7e00 | (bits_of(f) >> 13 & 0x1ff));
  if (magnitude >= 65520) return uint16_t(sign | 0x7c00);
  int exponent = magnitude < 0x1p-14 ? -14 : __builtin_ilogb(magnitude);
  // In units of the last place: exact, so that nearbyint's half-to-even is the only rounding. A
  // carry to 2048 units is the next exponent's 1024.
  const double units = __builtin_nearbyint(__builtin_ldexp(magnitude, 10 - exponent));
  return uint16_t(sign | ((exponent + 14) * 1024 + int(units)));
}
inline int32_t to_int(float f) {  // out of range and NaN: the "integer indefinite"
  const float r = __builtin_nearbyintf(f);
  return r >= -0x1p31f && r < 0x1p31f ? int32_t(r) : INT32_MIN;
}

template <typename Out, typename V, typename In, int N, typename Result, typename F>
inline Result convert(const V& v, F f) {
  const auto in = Lanes<In, N>::of(v);
  Lanes<Out, N> out;
  for (int i = 0; i < N; ++i) out.lane[i] = f(in.lane[i]);
  return out.template as<Result>();
}

// Pairs of the elements of a and b, from the low (0) or the high half (1) of each 16 bytes.
template <typename T>
inline __m512i unpack(__m512i a, __m512i b, int high) {
  constexpr int kN = 64 / sizeof(T), kHalf = 8 / sizeof(T);
  using Vector = Lanes<T, kN>;
  const Vector x = Vector::of(a), y = Vector::of(b);
  Vector out;
  for (int i = 0; i < kN / 2; ++i) {
    const int from = i / kHalf * 2 * kHalf + i % kHalf + high * kHalf;
    out.lane[2 * i] = x.lane[from];
    out.lane[2 * i + 1] = y.lane[from];
  }
  return out.template as<__m512i>();
}
// Each 16 bytes of a, then of b, as half as wide integers, which saturate.
template <typename Out, typename In>
inline __m512i pack(__m512i a, __m512i b) {
  constexpr int kN = 64 / sizeof(In), kLane = 16 / sizeof(In);
  const auto x = Lanes<In, kN>::of(a), y = Lanes<In, kN>::of(b);
  constexpr In kMost = Out(-1) < 0 ? (In(1) << (8 * sizeof(Out) - 1)) - 1 : In(Out(-1));
  constexpr In kLeast = Out(-1) < 0 ? -kMost - 1 : 0;
  Lanes<Out, 2 * kN> out;
  for (int i = 0; i < 2 * kN; ++i) {
    const int from = i / (2 * kLane) * kLane + i % kLane;
    const In v = i / kLane % 2 ? y.lane[from] : x.lane[from];
    out.lane[i] = Out(v < kLeast ? kLeast : v > kMost ? kMost : v);
  }
  return out.template as<__m512i>();
}

}  // namespace stand_in

inline __m512i _mm512_unpacklo_epi8(__m512i a, __m512i b) {
  return stand_in::unpack<uint8_t>(a, b, 0);
}
inline __m512i _mm512_unpackhi_epi8(__m512i a, __m512i b) {
  return stand_in::unpack<uint8_t>(a, b, 1);
}
inline __m512i _mm512_unpacklo_epi16(__m512i a, __m512i b) {
  return stand_in::unpack<uint16_t>(a, b, 0);
}
inline __m512i _mm512_unpackhi_epi16(__m512i a, __m512i b) {
  return stand_in::unpack<uint16_t>(a, b, 1);
}
inline __m512i _mm512_packs_epi32(__m512i a, __m512i b) {
  return stand_in::pack<int16_t, int32_t>(a, b);
}
inline __m512i _mm512_packus_epi16(__m512i a, __m512i b) {
  return stand_in::pack<uint8_t, int16_t>(a, b);
}

inline __m512 _mm512_permutevar_ps(__m512 v, __m512i index) {
  const auto at = stand_in::Lanes<uint32_t, 16>::of(index);
  __m512 out;
  for (int i = 0; i < 16; ++i) out[i] = v[i / 4 * 4 + at.lane[i] % 4];
  return out;
}
inline __mmask16 _mm512_movepi32_mask(__m512i v) {
  const auto x = stand_in::Lanes<uint32_t, 16>::of(v);
  unsigned mask = 0;
  for (int i = 0; i < 16; ++i) mask |= x.lane[i] >> 31 << i;
  return __mmask16(mask);
}
inline __mmask8 _mm512_test_epi64_mask(__m512i a, __m512i b) {
  unsigned mask = 0;
  for (int i = 0; i < 8; ++i) mask |= unsigned((a[i] & b[i]) != 0) << i;
  return __mmask8(mask);
}
inline __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int predicate) {
  if (predicate != _CMP_UNORD_Q) __builtin_trap();  // the only one that is here
  unsigned mask = 0;
  for (int i = 0; i < 16; ++i) mask |= unsigned(a[i] != a[i] || b[i] != b[i]) << i;
  return __mmask16(mask);
}
inline __m512 _mm512_mask_blend_ps(__mmask16 mask, __m512 a, __m512 b) {
  for (int i = 0; i < 16; ++i) a[i] = mask >> i & 1 ? b[i] : a[i];
  return a;
}

// The second operand where either is NaN, and where both are zeros.
inline __m512 _mm512_max_ps(__m512 a, __m512 b) {
  for (int i = 0; i < 16; ++i) b[i] = a[i] > b[i] ? a[i] : b[i];
  return b;
}
inline __m512 _mm512_min_ps(__m512 a, __m512 b) {
  for (int i = 0; i < 16; ++i) b[i] = a[i] < b[i] ? a[i] : b[i];
  return b;
}
inline __m512d _mm512_max_pd(__m512d a, __m512d b) {
  for (int i = 0; i < 8; ++i) b[i] = a[i] > b[i] ? a[i] : b[i];
  return b;
}

// One rounding, as C's fma promises on any CPU.
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  for (int i = 0; i < 16; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
}
inline __m512d _mm512_fmadd_pd(__m512d a, __m512d b, __m512d c) {
  for (int i = 0; i < 8; ++i) c[i] = __builtin_fma(a[i], b[i], c[i]);
  return c;
}

inline __m512 _mm512_sqrt_ps(__m512 v) {
  for (int i = 0; i < 16; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}
// The products of the low halves of 64-bit lanes.
inline __m512i _mm512_mul_epu32(__m512i a, __m512i b) {
  using Words = stand_in::Lanes<uint64_t, 8>;
  Words x = Words::of(a);
  const Words y = Words::of(b);
  for (int i = 0; i < 8; ++i) x.lane[i] = uint64_t(uint32_t(x.lane[i])) * uint32_t(y.lane[i]);
  return x.as<__m512i>();
}

inline __m512 _mm512_setzero_ps() { return __m512{}; }
inline __m512 _mm512_set1_ps(float f) { return __m512{} + f; }

inline __m512 _mm512_cvtph_ps(__m256i v) {
  return stand_in::convert<float, __m256i, uint16_t, 16, __m512>(v, stand_in::half_to_float);
}
inline __m256i _mm512_cvtps_ph(__m512 v, int rounding) {
  if (rounding != _MM_FROUND_TO_NEAREST_INT) __builtin_trap();  // the only one that is here
  return stand_in::convert<uint16_t, __m512, float, 16, __m256i>(v, stand_in::float_to_half);
}
inline __m512i _mm512_cvtps_epi32(__m512 v) {
  return stand_in::convert<int32_t, __m512, float, 16, __m512i>(v, stand_in::to_int);
}
inline __m512 _mm512_cvtepi32_ps(__m512i v) {
  return stand_in::convert<float, __m512i, int32_t, 16, __m512>(v,
                                                                [](int32_t i) { return float(i); });
}
inline __m512i _mm512_cvtepu16_epi32(__m256i v) {
  return stand_in::convert<uint32_t, __m256i, uint16_t, 16, __m512i>(
      v, [](uint16_t i) { return uint32_t(i); });
}
inline __m512i _mm512_cvtepu8_epi32(__m128i v) {
  return stand_in::convert<uint32_t, __m128i, uint8_t, 16, __m512i>(
      v, [](uint8_t i) { return uint32_t(i); });
}
inline __m256i _mm512_cvtepi32_epi16(__m512i v) {  // keeps the low bits
  return stand_in::convert<uint16_t, __m512i, uint32_t, 16, __m256i>(
      v, [](uint32_t i) { return uint16_t(i & 0xffff); });
}
inline __m128i _mm512_cvtusepi32_epi8(__m512i v) {  // saturates, unsigned
  return stand_in::convert<uint8_t, __m512i, uint32_t, 16, __m128i>(
      v, [](uint32_t i) { return uint8_t(i > 255 ? 255 : i); });
}
inline __m512i _mm512_slli_epi32(__m512i v, unsigned count) {
  return stand_in::convert<uint32_t, __m512i, uint32_t, 16, __m512i>(
      v, [count](uint32_t i) { return count > 31 ? 0 : i << count; });
}

inline __m256i _mm256_loadu_si256(const void* p) {
  __m256i v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
inline __m128i _mm_loadu_si128(const void* p) {
  __m128i v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
inline void _mm256_storeu_si256(void* p, __m256i v) { __builtin_memcpy(p, &v, sizeof(v)); }
inline void _mm256_stream_si256(void* p, __m256i v) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(v) != 0) __builtin_trap();  // as the CPU does
  _mm256_storeu_si256(p, v);
}
inline void _mm_storeu_si128(void* p, __m128i v) { __builtin_memcpy(p, &v, sizeof(v)); }
