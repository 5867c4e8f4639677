// What the CPU itself makes of the intrinsics in avx512_on_any_cpu.h, by their AVX2, FMA and F16C
// forms: 16 lanes of float (8 of double) as two vectors.
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

// value: of the vectors that start h bytes into 64-byte a, b and c; each half of out has so many
// bytes.
#define REAL(name, bytes, value)                                                                   \
  extern "C" __attribute__((visibility("default"))) void real_##name(const char* a, const char* b, \
                                                                     const char* c, char* out) {   \
    (void)a, (void)b, (void)c;                                                                     \
    for (int h = 0; h < 2; ++h) put(out + h * bytes, value);                                       \
  }

namespace {
inline __m256 f32(const char* p, int h) { return _mm256_loadu_ps((const float*)(p + 32 * h)); }
inline __m256d f64(const char* p, int h) { return _mm256_loadu_pd((const double*)(p + 32 * h)); }
inline __m256i i32(const char* p, int h) {
  return _mm256_loadu_si256((const __m256i*)(p + 32 * h));
}
inline __m128i i16(const char* p, int h) { return _mm_loadu_si128((const __m128i*)(p + 16 * h)); }
inline __m128i i8(const char* p, int h) { return _mm_loadl_epi64((const __m128i*)(p + 8 * h)); }
inline void put(char* p, __m256 v) { _mm256_storeu_ps((float*)p, v); }
inline void put(char* p, __m256d v) { _mm256_storeu_pd((double*)p, v); }
inline void put(char* p, __m256i v) { _mm256_storeu_si256((__m256i*)p, v); }
inline void put(char* p, __m128i v) { _mm_storeu_si128((__m128i*)p, v); }
}  // namespace

REAL(max_ps, 32, _mm256_max_ps(f32(a, h), f32(b, h)))
REAL(min_ps, 32, _mm256_min_ps(f32(a, h), f32(b, h)))
REAL(max_pd, 32, _mm256_max_pd(f64(a, h), f64(b, h)))
REAL(fmadd_ps, 32, _mm256_fmadd_ps(f32(a, h), f32(b, h), f32(c, h)))
REAL(fmadd_pd, 32, _mm256_fmadd_pd(f64(a, h), f64(b, h), f64(c, h)))
REAL(sqrt_ps, 32, _mm256_sqrt_ps(f32(a, h)))
REAL(mul_epu32, 32, _mm256_mul_epu32(i32(a, h), i32(b, h)))
REAL(cvtph_ps, 32, _mm256_cvtph_ps(i16(a, h)))
REAL(cvtps_ph, 16, _mm256_cvtps_ph(f32(a, h), _MM_FROUND_TO_NEAREST_INT))
REAL(cvtps_epi32, 32, _mm256_cvtps_epi32(f32(a, h)))
REAL(cvtepi32_ps, 32, _mm256_cvtepi32_ps(i32(a, h)))
REAL(cvtepu16_epi32, 32, _mm256_cvtepu16_epi32(i16(a, h)))
REAL(cvtepu8_epi32, 32, _mm256_cvtepu8_epi32(i8(a, h)))
REAL(slli_epi32, 32, _mm256_slli_epi32(i32(a, h), 16))
REAL(unpacklo_epi8, 32, _mm256_unpacklo_epi8(i32(a, h), i32(b, h)))
REAL(unpackhi_epi8, 32, _mm256_unpackhi_epi8(i32(a, h), i32(b, h)))
REAL(unpacklo_epi16, 32, _mm256_unpacklo_epi16(i32(a, h), i32(b, h)))
REAL(unpackhi_epi16, 32, _mm256_unpackhi_epi16(i32(a, h), i32(b, h)))
REAL(packs_epi32, 32, _mm256_packs_epi32(i32(a, h), i32(b, h)))
REAL(packus_epi16, 32, _mm256_packus_epi16(i32(a, h), i32(b, h)))
REAL(permutevar_ps, 32, _mm256_permutevar_ps(f32(a, h), i32(b, h)))
REAL(blend_by_sign, 32, _mm256_blendv_ps(f32(b, h), f32(c, h), f32(a, h)))
REAL(blend_by_nan, 32,
     _mm256_blendv_ps(f32(c, h), f32(b, h), _mm256_cmp_ps(f32(a, h), f32(b, h), _CMP_UNORD_Q)))
