// exp, log and log1p on vectors, and other operations of the losses.

// exp(x) = factor · power to about 1 ulp for x <= 88 (double: 709), with power 0 for x <= -88
// (float) or -709 (double); NaN for NaN. The result has two parts, as the last product can often be
// fused with an addition.
//     x = n ln2 + r with |r| <= ln2/2:  factor = exp(r) = 1 + r + r² q(r), power = 2^n
// with q the polynomial with the smallest largest relative error.
template <typename A>
struct Exp {
  VecOf<A> factor, power;
};

#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
// 2^(j/4) for j = 4n + k, as bits. The table, once in each 16 bytes, holds the bits of 2^(k/4) less
// k·2^21; adding j·2^21 restores those and adds n to the exponent.
FUSED_MIXUP_INLINE VF quarter_powers(VI j) {
  constexpr uint32_t kPowers[] = {0x3f800000, 0x3f9837f0 - (1 << 21), 0x3fb504f3 - (2 << 21),
                                  0x3fd744fd - (3 << 21)};
  VI table;
  for (int i = 0; i < kLanes<float>; ++i) table[i] = kPowers[i % 4];
#if defined(FUSED_MIXUP_AVX512)
  const VI powers = (VI)_mm512_permutevar_ps((__m512)table, (__m512i)j);
#else
  const VI powers = (VI)_mm256_permutevar_ps((__m256)table, (__m256i)j);
#endif
  return (VF)(powers + (j << 21));
}

// n counts quarters, so that |r| <= ln2/8: a table lookup allows a shorter polynomial (5e-9). The
// multiplication units limit the losses, as two threads of a core share them.
FUSED_MIXUP_INLINE Exp<float> exp_parts(VF x) {
  const VF kept = maximum<float>(splat(-88.0f), x);  // in this order NaN is kept
  const float magic = 12582912.0f;                   // 1.5·2^23: leaves j in the low bits
  const VF shifted = multiply_add(kept, splat(4 * 1.44269504088896341f), splat(magic));
  const VF r = multiply_add(shifted - magic, splat(-0.693147180559945f / 4), kept);
  const VF r2 = r * r;
  const VF low = multiply_add(splat(0.16672113935074262f), r, splat(0.5000002046239395f));
  const VF q = multiply_add(splat(0.041641710242622754f), r2, low);
  return {multiply_add(q, r2, r + 1.0f), quarter_powers((VI)shifted)};
}
#else
// The polynomial is accurate to 3e-9.
FUSED_MIXUP_INLINE Exp<float> exp_parts(VF x) {
  const VF kept = maximum<float>(splat(-88.0f), x);  // in this order NaN is kept
  const float magic = 12582912.0f;                   // 1.5·2^23: leaves n in the low bits
  const VF shifted = multiply_add(kept, splat(1.44269504088896341f), splat(magic));
  const VF n = shifted - magic;
  // ln2 is one number: the error of r, n·1e-8, is large only where the result is negligible. The
  // length of the chain of dependent steps limits this loop.
  const VF r = multiply_add(n, splat(-0.693147180559945f), kept);
  // By halves (Estrin): a shorter chain of dependent steps than one power after the other.
  const VF r2 = r * r;
  const VF low = multiply_add(splat(0.16666520631709966f), r, splat(0.4999999344779652f));
  const VF middle = multiply_add(splat(0.008368716879671135f), r, splat(0.041668388045308466f));
  const VF high = multiply_add(splat(0.0013814598646782108f), r2, middle);
  const VF q = multiply_add(high, r2, low);
  // n = -127 makes all bits of the power 0.
  return {multiply_add(q, r2, r + 1.0f), (VF)(((VI)shifted << 23) + 0x3f800000)};
}
#endif

FUSED_MIXUP_INLINE Exp<double> exp_parts(VD x) {
  const VD kept = maximum<double>(splat(-709.0), x);
  const double magic = 6755399441055744.0;  // 1.5·2^52
  const VD shifted = multiply_add(kept, splat(1.44269504088896340736), splat(magic));
  const VD n = shifted - magic;
  VD r = multiply_add(n, splat(-6.93147180369123816490e-01), kept);
  r = multiply_add(n, splat(-1.90821492927058770002e-10), r);
  VD p = splat(1.0 / 6227020800.0);  // 1/13!
  constexpr double kTerms[] = {
      1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      0.5};
  for (double term : kTerms) p = multiply_add(p, r, splat(term));
  return {multiply_add(p, r * r, r) + 1.0, (VD)(((VL)shifted << 52) + 0x3ff0000000000000)};
}

template <typename A>
inline double lane_sum(VecOf<A> v) {
  double sum = 0;
  for (int i = 0; i < kLanes<A>; ++i) sum += v[i];
  return sum;
}

// The sum of each lane over many vectors, in double. add() takes the first `lanes` lanes alone.
template <typename A>
struct LaneSums {
  double sums[kLanes<A>] = {};

  void add(VecOf<A> v, int64_t lanes) {
    for (int i = 0; i < kLanes<A>; ++i) sums[i] += i < lanes ? double(v[i]) : 0.0;
  }
  double total() const {
    double all = 0;
    for (double sum : sums) all += sum;
    return all;
  }
};

// atanh(s) = s + s³ P(s²) for |s| <= 1/3, as twice P: the polynomial with the smallest largest
// error (4e-10 of the result for float, 5e-18 for double).
FUSED_MIXUP_INLINE VF twice_atanh(VF s) {
  const VF t = s * s;
  VF p = splat(0.232243292240233488f);
  constexpr float kTerms[] = {0.217065758008803726f, 0.285923579943028377f, 0.399997063319297174f,
                              0.666666673205274125f};
  for (float term : kTerms) p = multiply_add(p, t, splat(term));
  return multiply_add(p * t, s, s + s);
}

FUSED_MIXUP_INLINE VD twice_atanh(VD s) {
  const VD t = s * s;
  VD p = splat(0.161640456119435322);
  constexpr double kTerms[] = {0.0880073848614467388, 0.120010728095907125, 0.133141442096549362,
                               0.153855700649586231,  0.181817894361328582, 0.22222222717427863,
                               0.285714285671087572,  0.400000000000145827, 0.666666666666666586};
  for (double term : kTerms) p = multiply_add(p, t, splat(term));
  return multiply_add(p * t, s, s + s);
}

// log(1 + u) for u in [0, 1], to about 2 ulp; NaN for NaN. 1 + u is never computed, as it loses the
// low bits of a small u.
FUSED_MIXUP_INLINE VF log1p_of(VF u) {
  // u + u² q(u), q the polynomial with the smallest largest error (5e-9), by halves as in
  // exp_parts(): no division, and a chain of dependent steps half as long.
  const VF u2 = u * u, u4 = u2 * u2;
  const VF q01 = multiply_add(splat(0.333332373462f), u, splat(-0.499999995222f));
  const VF q23 = multiply_add(splat(0.199567079523f), u, splat(-0.249967599083f));
  const VF q45 = multiply_add(splat(0.130333642382f), u, splat(-0.163651528692f));
  const VF q67 = multiply_add(splat(0.0493099734345f), u, splat(-0.0913941377401f));
  const VF q89 = multiply_add(splat(0.0028016419928f), u, splat(-0.0171842669824f));
  const VF low = multiply_add(q23, u2, q01), middle = multiply_add(q67, u2, q45);
  const VF q = multiply_add(multiply_add(q89, u4, middle), u4, low);
  return multiply_add(q, u2, u);
}

FUSED_MIXUP_INLINE VD log1p_of(VD u) { return twice_atanh(u / (u + 2)); }

// log(x) for normal x, to about 2 ulp; NaN for NaN and infinity, and any value for smaller x.
// x = 2^n f with f in [√½, √2).
FUSED_MIXUP_INLINE VF log_of(VF x) {
  const VI bits = (VI)x - 0x3f3504f3;  // less the bits of √½: the upper nine bits are n
  const VF f = (VF)((bits & 0x7fffff) + 0x3f3504f3);
  // n + 127 as the low bits of 2^23: a float without a conversion.
  const VF count = (VF)(((bits + 0x3f800000) >> 23) + 0x4b000000) - (8388608.0f + 127.0f);
  const VF small = twice_atanh((f - 1) / (f + 1));
  const VF result = multiply_add(count, splat(0.693359375f),
                                 multiply_add(count, splat(-2.12194440054690581e-4f), small));
  return result + (x - x);
}

FUSED_MIXUP_INLINE VD log_of(VD x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_log(x[i]);
  return x;
}

// mask ? a : b; lanes of the mask are all ones or zeros.
template <typename A>
FUSED_MIXUP_INLINE VecOf<A> select(BitsOf<A> mask, VecOf<A> a, VecOf<A> b) {
  return mask ? a : b;
}

// All ones where v has a sign, -0 and such NaNs too.
template <typename A>
FUSED_MIXUP_INLINE BitsOf<A> sign_mask(VecOf<A> v) {
  using Signed = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  typedef Signed S __attribute__((vector_size(kVectorBytes)));
  return (BitsOf<A>)((S)v >> (8 * sizeof(A) - 1));
}

// sign_mask(v) ? a : b.
template <typename A>
FUSED_MIXUP_INLINE VecOf<A> by_sign(VecOf<A> v, VecOf<A> a, VecOf<A> b) {
#if defined(FUSED_MIXUP_AVX512)
  if constexpr (sizeof(A) == 4) {
    const auto negative = _mm512_movepi32_mask((__m512i)v);
    return (VecOf<A>)_mm512_mask_blend_ps(negative, (__m512)b, (__m512)a);
  }
  if constexpr (sizeof(A) == 8) return select<A>(sign_mask<A>(v), a, b);
#elif defined(FUSED_MIXUP_AVX2)
  if constexpr (sizeof(A) == 4) return (VecOf<A>)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)v);
  if constexpr (sizeof(A) == 8) {
    return (VecOf<A>)_mm256_blendv_pd((__m256d)b, (__m256d)a, (__m256d)v);
  }
#else
  return select<A>(sign_mask<A>(v), a, b);
#endif
}

// a·b, and 0 where either is 0: no 0·inf.
template <typename A>
FUSED_MIXUP_INLINE VecOf<A> term_of(VecOf<A> a, VecOf<A> b) {
  return (VecOf<A>)((BitsOf<A>)(a * b) & (BitsOf<A>)(a != 0) & (BitsOf<A>)(b != 0));
}

// (1 + a) (1 + b) - 1 for a, b >= 0. Nothing cancels: small a and b keep their digits.
template <typename V>
FUSED_MIXUP_INLINE V joined(V a, V b) {
  return multiply_add(a, b, a + b);
}

// Σ log(1 + u) for u in [0, 1] as the log of Π (1 + u), with a third of the operations. A sum of n
// terms that are not negative has an error of n roundings at most, and of far fewer as a rule.
template <typename A>
struct LogOfProduct {
  static constexpr int kMost = 120;  // factors; a product of more could overflow
  VecOf<A> beyond = {};              // the product less 1

  void multiply(VecOf<A> u) { beyond = joined(beyond, u); }

  VecOf<A> log() const {
    const VecOf<A> product = beyond + 1;
    return log_of(product) + (beyond - (product - 1)) / product;  // what adding 1 rounded away
  }
};
