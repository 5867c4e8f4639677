// Each stand-in of avx512_on_any_cpu.h as a function f(a, b, c, out) on memory, for
// test_cpu_sanitizers.py. real_instructions.cpp holds the CPU's own under the same names.
#include "avx512_on_any_cpu.h"

namespace {
template <typename V>
V get(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
template <typename V>
void put(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof(v));
}
}  // namespace

#define STAND_IN(name, value)                                             \
  extern "C" __attribute__((visibility("default"))) void stand_in_##name( \
      const void* a, const void* b, const void* c, void* out) {           \
    (void)a, (void)b, (void)c;                                            \
    put(out, value);                                                      \
  }
#define F32(p) get<__m512>(p)
#define F64(p) get<__m512d>(p)
#define I32(p) get<__m512i>(p)

STAND_IN(max_ps, _mm512_max_ps(F32(a), F32(b)))
STAND_IN(min_ps, _mm512_min_ps(F32(a), F32(b)))
STAND_IN(max_pd, _mm512_max_pd(F64(a), F64(b)))
STAND_IN(fmadd_ps, _mm512_fmadd_ps(F32(a), F32(b), F32(c)))
STAND_IN(fmadd_pd, _mm512_fmadd_pd(F64(a), F64(b), F64(c)))
STAND_IN(sqrt_ps, _mm512_sqrt_ps(F32(a)))
STAND_IN(mul_epu32, _mm512_mul_epu32(I32(a), I32(b)))
STAND_IN(cvtph_ps, _mm512_cvtph_ps(_mm256_loadu_si256(a)))
STAND_IN(cvtps_ph, _mm512_cvtps_ph(F32(a), _MM_FROUND_TO_NEAREST_INT))
STAND_IN(cvtps_epi32, _mm512_cvtps_epi32(F32(a)))
STAND_IN(cvtepi32_ps, _mm512_cvtepi32_ps(I32(a)))
STAND_IN(cvtepu16_epi32, _mm512_cvtepu16_epi32(_mm256_loadu_si256(a)))
STAND_IN(cvtepu8_epi32, _mm512_cvtepu8_epi32(_mm_loadu_si128(a)))
STAND_IN(slli_epi32, _mm512_slli_epi32(I32(a), 16))
STAND_IN(unpacklo_epi8, _mm512_unpacklo_epi8(I32(a), I32(b)))
STAND_IN(unpackhi_epi8, _mm512_unpackhi_epi8(I32(a), I32(b)))
STAND_IN(unpacklo_epi16, _mm512_unpacklo_epi16(I32(a), I32(b)))
STAND_IN(unpackhi_epi16, _mm512_unpackhi_epi16(I32(a), I32(b)))
STAND_IN(packs_epi32, _mm512_packs_epi32(I32(a), I32(b)))
STAND_IN(packus_epi16, _mm512_packus_epi16(I32(a), I32(b)))
STAND_IN(permutevar_ps, _mm512_permutevar_ps(F32(a), I32(b)))
STAND_IN(blend_by_sign, _mm512_mask_blend_ps(_mm512_movepi32_mask(I32(a)), F32(b), F32(c)))
STAND_IN(blend_by_nan,
         _mm512_mask_blend_ps(_mm512_cmp_ps_mask(F32(a), F32(b), _CMP_UNORD_Q), F32(c), F32(b)))
// No counterpart in AVX2: held against what Intel documents.
STAND_IN(cvtepi32_epi16, _mm512_cvtepi32_epi16(I32(a)))
STAND_IN(cvtusepi32_epi8, _mm512_cvtusepi32_epi8(I32(a)))
STAND_IN(test_epi64, _mm512_test_epi64_mask(I32(a), I32(b)))
