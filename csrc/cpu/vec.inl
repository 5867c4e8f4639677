// Vectors of float and double for one instruction set, and how each storage type is loaded and
// stored. kernels_*.cpp include it inside the namespace of the instruction set.

// Said of what runs for each vector. Left to itself, the compiler stops inlining where a file
// grows, and then vectors pass through memory and constants are loaded again at each call.
#define FUSED_MIXUP_INLINE inline __attribute__((always_inline))

template <typename A>
struct VectorTypes;

template <typename A>
constexpr int kLanes = kVectorBytes / sizeof(A);

typedef float VF __attribute__((vector_size(kVectorBytes)));
typedef double VD __attribute__((vector_size(kVectorBytes)));
// The bits of each vector, unsigned, as arithmetic on them may wrap.
typedef uint32_t VI __attribute__((vector_size(kVectorBytes)));
typedef uint64_t VL __attribute__((vector_size(kVectorBytes)));

template <>
struct VectorTypes<float> {
  using Value = VF;
  using Bits = VI;
};
template <>
struct VectorTypes<double> {
  using Value = VD;
  using Bits = VL;
};
template <typename A>
using VecOf = typename VectorTypes<A>::Value;
template <typename A>
using BitsOf = typename VectorTypes<A>::Bits;

template <typename V, typename P>
FUSED_MIXUP_INLINE V bit_load(const P* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(V));
  return v;
}

template <typename A>
FUSED_MIXUP_INLINE VecOf<A> splat(A a) {
  return VecOf<A>{} + a;
}

// The larger of each pair; b where either is NaN.
template <typename A>
FUSED_MIXUP_INLINE VecOf<A> maximum(VecOf<A> a, VecOf<A> b) {
#if defined(FUSED_MIXUP_AVX512)
  if constexpr (sizeof(A) == 4) return (VecOf<A>)_mm512_max_ps((__m512)a, (__m512)b);
  if constexpr (sizeof(A) == 8) return (VecOf<A>)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(FUSED_MIXUP_AVX2)
  if constexpr (sizeof(A) == 4) return (VecOf<A>)_mm256_max_ps((__m256)a, (__m256)b);
  if constexpr (sizeof(A) == 8) return (VecOf<A>)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
  return a > b ? a : b;
#endif
}

// a·b + c, fused where the instruction set has such an instruction. Blends, whose results are
// promised bit for bit, do not use it: they round product and sum one by one.
template <typename V>
FUSED_MIXUP_INLINE V multiply_add(V a, V b, V c) {
#if defined(FUSED_MIXUP_AVX512)
  if constexpr (sizeof(a[0]) == 4) return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  if constexpr (sizeof(a[0]) == 8) return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(FUSED_MIXUP_AVX2)
  if constexpr (sizeof(a[0]) == 4) return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  if constexpr (sizeof(a[0]) == 8) return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

// ------------------------------------------------------------------ load and store

// Prefetches what a stream of memory reads or writes soon, as the processor's own prefetch stops at
// the end of a page: 2 KiB ahead where each vector takes an exp (10 % faster), 1 KiB where vectors
// are blended. The distances are not tuned finer.
// Every line of the kElements that a step takes.
constexpr int kLineBytes = 64;
template <int kElements = 1, int kBytes = 2048, typename T>
FUSED_MIXUP_INLINE void fetch_ahead(const T* p) {
  const char* ahead = reinterpret_cast<const char*>(p) + kBytes;
  for (int at = 0; at < kElements * int(sizeof(T)); at += kLineBytes)
    __builtin_prefetch(ahead + at);
}
template <int kElements = 1, int kBytes = 2048, typename T>
FUSED_MIXUP_INLINE void fetch_ahead_to_write(const T* p) {
  const char* ahead = reinterpret_cast<const char*>(p) + kBytes;
  for (int at = 0; at < kElements * int(sizeof(T)); at += kLineBytes) {
    __builtin_prefetch(ahead + at, 1);
  }
}

FUSED_MIXUP_INLINE VF load(const float* p) { return bit_load<VF>(p); }
FUSED_MIXUP_INLINE VD load(const double* p) { return bit_load<VD>(p); }
FUSED_MIXUP_INLINE void store(float* p, VF v) { __builtin_memcpy(p, &v, sizeof(v)); }
FUSED_MIXUP_INLINE void store(double* p, VD v) { __builtin_memcpy(p, &v, sizeof(v)); }

#if defined(FUSED_MIXUP_AVX512)

FUSED_MIXUP_INLINE VF load(const Half* p) {
  return (VF)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
FUSED_MIXUP_INLINE VF load(const BFloat16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return (VF)_mm512_slli_epi32(wide, 16);
}
FUSED_MIXUP_INLINE VF load(const uint8_t* p) {
  return (VF)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
FUSED_MIXUP_INLINE void store(Half* p, VF v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
FUSED_MIXUP_INLINE void store_words(BFloat16* p, VI words) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)words));
}
FUSED_MIXUP_INLINE void store(uint8_t* p, VF v) {
  const __m512 clamped =
      _mm512_min_ps(_mm512_max_ps((__m512)v, _mm512_setzero_ps()), _mm512_set1_ps(255.0f));
  _mm_storeu_si128((__m128i*)p, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(clamped)));
}

#elif defined(FUSED_MIXUP_AVX2)

FUSED_MIXUP_INLINE VF load(const Half* p) {
  return (VF)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
}
FUSED_MIXUP_INLINE VF load(const BFloat16* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
  return (VF)_mm256_slli_epi32(wide, 16);
}
FUSED_MIXUP_INLINE VF load(const uint8_t* p) {
  return (VF)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
FUSED_MIXUP_INLINE void store(Half* p, VF v) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
FUSED_MIXUP_INLINE __m128i narrow(__m256i words) {  // 8 words below 2^16 to 16 bits each
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
FUSED_MIXUP_INLINE void store_words(BFloat16* p, VI words) {
  _mm_storeu_si128((__m128i*)p, narrow((__m256i)words));
}
FUSED_MIXUP_INLINE void store(uint8_t* p, VF v) {
  const __m256 clamped =
      _mm256_min_ps(_mm256_max_ps((__m256)v, _mm256_setzero_ps()), _mm256_set1_ps(255.0f));
  const __m128i words = narrow(_mm256_cvtps_epi32(clamped));
  _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(words, words));
}

#else

template <typename T>
inline VF load_each(const T* p) {
  VF v;
  for (int i = 0; i < kLanes<float>; ++i) v[i] = to_float(p[i]);
  return v;
}
template <typename T>
inline void store_each(T* p, VF v) {
  for (int i = 0; i < kLanes<float>; ++i) p[i] = from_float<T>(v[i]);
}
inline VF load(const Half* p) { return load_each(p); }
inline VF load(const BFloat16* p) { return load_each(p); }
inline VF load(const uint8_t* p) { return load_each(p); }
inline void store(Half* p, VF v) { store_each(p, v); }
inline void store(uint8_t* p, VF v) { store_each(p, v); }
FUSED_MIXUP_INLINE void store_words(BFloat16* p, VI words) {
  for (int i = 0; i < kLanes<float>; ++i) p[i].bits = uint16_t(words[i]);
}

#endif

// The bits of v, whose upper halves are those of the nearest bfloat16, but for a NaN.
FUSED_MIXUP_INLINE VI round_up(VF v) {
  const VI u = (VI)v;
  return u + 0x7fff + ((u >> 16) & 1);
}
// A NaN stays one: rounding could carry it into infinity.
FUSED_MIXUP_INLINE VI keep_nan(VF v, VI rounded) {
  const VI quiet = (VI)v | 0x400000, nan = (VI)(v != v);
  return (nan & quiet) | (~nan & rounded);
}
FUSED_MIXUP_INLINE void store(BFloat16* p, VF v) { store_words(p, keep_nan(v, round_up(v)) >> 16); }

// ------------------------------------------------------------------ two vectors at a time

// 2·kLanes elements, for kernels to which the order of elements is of no account.
template <typename A>
struct Two {
  VecOf<A> first, second;

  template <typename F>
  static Two of(const Two& a, const Two& b, const F& f) {
    return {f(a.first, b.first), f(a.second, b.second)};
  }
};

template <typename A, typename T>
FUSED_MIXUP_INLINE Two<A> load_two(const T* p) {
  return {load(p), load(p + kLanes<A>)};
}
template <typename A, typename T>
FUSED_MIXUP_INLINE void store_two(T* p, const Two<A>& v) {
  store(p, v.first);
  store(p + kLanes<A>, v.second);
}

#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
// Of bfloat16 the elements at even places, then those at odd ones: nothing is shuffled.
template <typename A>
FUSED_MIXUP_INLINE Two<A> load_two(const BFloat16* p) {
  const VI words = bit_load<VI>(p);
  return {(VF)(words << 16), (VF)(words & 0xffff0000)};
}

FUSED_MIXUP_INLINE bool any_nan(VF a, VF b) {
#if defined(FUSED_MIXUP_AVX512)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q) != 0;
#else
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_UNORD_Q)) != 0;
#endif
}

template <typename A>
FUSED_MIXUP_INLINE void store_two(BFloat16* p, const Two<A>& v) {
  VI even = round_up(v.first), odd = round_up(v.second);
  if (__builtin_expect(any_nan(v.first, v.second), false)) {
    even = keep_nan(v.first, even);
    odd = keep_nan(v.second, odd);
  }
  const VI words = (even >> 16) | (odd & 0xffff0000);
  __builtin_memcpy(p, &words, sizeof(words));
}
#endif

// ------------------------------------------------------------------ parts of a vector

// The last n < kLanes elements pass through a padded copy, so that they need no code of their own.
template <typename A, typename T>
inline VecOf<A> load_part(const T* p, int64_t n, T fill = T{}) {
  T part[kLanes<A>];
  for (int i = 0; i < kLanes<A>; ++i) part[i] = i < n ? p[i] : fill;
  return load(part);
}
template <typename A, typename T>
inline void store_part(T* p, VecOf<A> v, int64_t n) {
  T part[kLanes<A>];
  store(part, v);
  for (int64_t i = 0; i < n; ++i) p[i] = part[i];
}
