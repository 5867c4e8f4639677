// Vectors of float and double for one instruction set, and how each storage type is loaded and
// stored. kernels_*.cpp include it inside the namespace of the instruction set.

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
inline V bit_load(const P* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(V));
  return v;
}

template <typename A>
inline VecOf<A> splat(A a) {
  return VecOf<A>{} + a;
}

// The larger of each pair; b where either is NaN.
template <typename A>
inline VecOf<A> maximum(VecOf<A> a, VecOf<A> b) {
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
inline V multiply_add(V a, V b, V c) {
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
template <int kBytes = 2048, typename T>
inline void fetch_ahead(const T* p) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + kBytes);
}
template <int kBytes = 2048, typename T>
inline void fetch_ahead_to_write(const T* p) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + kBytes, 1);
}

inline VF load(const float* p) { return bit_load<VF>(p); }
inline VD load(const double* p) { return bit_load<VD>(p); }
inline void store(float* p, VF v) { __builtin_memcpy(p, &v, sizeof(v)); }
inline void store(double* p, VD v) { __builtin_memcpy(p, &v, sizeof(v)); }

#if defined(FUSED_MIXUP_AVX512)

inline VF load(const Half* p) { return (VF)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline VF load(const BFloat16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return (VF)_mm512_slli_epi32(wide, 16);
}
inline VF load(const uint8_t* p) {
  return (VF)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
inline void store(Half* p, VF v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_words(BFloat16* p, VI words) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16((__m512i)words));
}
inline void store(uint8_t* p, VF v) {
  const __m512 clamped =
      _mm512_min_ps(_mm512_max_ps((__m512)v, _mm512_setzero_ps()), _mm512_set1_ps(255.0f));
  _mm_storeu_si128((__m128i*)p, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(clamped)));
}

#elif defined(FUSED_MIXUP_AVX2)

inline VF load(const Half* p) { return (VF)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
inline VF load(const BFloat16* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
  return (VF)_mm256_slli_epi32(wide, 16);
}
inline VF load(const uint8_t* p) {
  return (VF)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
inline void store(Half* p, VF v) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
inline __m128i narrow(__m256i words) {  // 8 words below 2^16 to 16 bits each
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
inline void store_words(BFloat16* p, VI words) {
  _mm_storeu_si128((__m128i*)p, narrow((__m256i)words));
}
inline void store(uint8_t* p, VF v) {
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
inline void store_words(BFloat16* p, VI words) {
  for (int i = 0; i < kLanes<float>; ++i) p[i].bits = uint16_t(words[i]);
}

#endif

inline void store(BFloat16* p, VF v) {
  const VI u = (VI)v;
  const VI rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  const VI quiet = (u >> 16) | 0x40;  // a NaN stays one: rounding could carry it into infinity
  const VI nan = (VI)(v != v);
  store_words(p, (nan & quiet) | (~nan & rounded));
}

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
