// Normalising and blending normalised values, for one instruction set. Each operation is rounded
// to float by itself (this is compiled with -ffp-contract=off), so that float32 results equal plain
// PyTorch's bit for bit.

// A block of elements as vectors. `place` is the element that a lane of the block holds.
template <typename S, typename U>
struct Block {
  static constexpr int kVectors = 2;
  static constexpr int kStep = kVectors * kLanes<float>;
  VF v[kVectors];

  static constexpr int place(int lane) { return lane; }
  explicit Block(const S* p) {
    for (int k = 0; k < kVectors; ++k) v[k] = load(p + k * kLanes<float>);
  }
  Block() = default;
  void put(U* p) const {
    for (int k = 0; k < kVectors; ++k) store(p + k * kLanes<float>, v[k]);
  }
  void put_finite(U* p) const { put(p); }
};

#if defined(FUSED_MIXUP_AVX2)
// Bytes to bfloat16: even and odd elements apart, which takes no shuffle on either side.
template <>
struct Block<uint8_t, BFloat16> {
  static constexpr int kVectors = 2;
  static constexpr int kStep = 16;
  VF v[kVectors];

  static constexpr int place(int lane) { return lane < 8 ? 2 * lane : 2 * (lane - 8) + 1; }
  explicit Block(const uint8_t* p) {
    const __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
    v[0] = (VF)_mm256_cvtepi32_ps(_mm256_and_si256(words, _mm256_set1_epi32(0xFFFF)));
    v[1] = (VF)_mm256_cvtepi32_ps(_mm256_srli_epi32(words, 16));
  }
  Block() = default;
  static VI rounded(VF f) {
    const VI u = (VI)f;
    return u + 0x7fff + ((u >> 16) & 1);
  }
  static void join(BFloat16* p, VI even, VI odd) {
    _mm256_storeu_si256((__m256i*)p, _mm256_blend_epi16((__m256i)(even >> 16), (__m256i)odd, 0xAA));
  }
  void put_finite(BFloat16* p) const { join(p, rounded(v[0]), rounded(v[1])); }
  void put(BFloat16* p) const {
    VI u[kVectors];
    for (int k = 0; k < kVectors; ++k) {
      const VI nan = (VI)(v[k] != v[k]);
      u[k] = (nan & ((VI)v[k] | 0x400000)) | (~nan & rounded(v[k]));
    }
    join(p, u[0], u[1]);
  }
};
#endif

template <typename S, typename U>
int64_t spread(float* pattern, const float* values, int64_t channels) {
  constexpr int kStep = Block<S, U>::kStep;
  const int64_t period = kStep * channels;
  for (int64_t i = 0; i < period; ++i) {
    const int64_t element = i / kStep * kStep + Block<S, U>::place(int(i % kStep));
    pattern[i] = values[element % channels];
  }
  return period;
}

// (x - mean) / std. Without division: the product with the rounded inverse, and one correction by
// the remainder, which the FMA gives exactly.
template <bool kDivide>
inline VF normalized(VF x, VF mean, VF std, VF inverse) {
  const VF difference = x - mean;
  if constexpr (kDivide) return difference / std;
  const VF quotient = difference * inverse;
  const VF remainder = multiply_add(-quotient, std, difference);
  return multiply_add(remainder, inverse, quotient);
}

template <bool kDivide, typename S, typename U>
inline Block<S, U> normalized(const Block<S, U>& x, const ChannelConstants& c, int64_t at) {
  Block<S, U> out;
  for (int k = 0; k < x.kVectors; ++k, at += kLanes<float>) {
    VF inverse = {};
    if constexpr (!kDivide) inverse = load(c.inverse + at);
    out.v[k] = normalized<kDivide>(x.v[k], load(c.mean + at), load(c.std + at), inverse);
  }
  return out;
}

// f(i, at) for each whole block, and tail(i, at, n) for the n elements after them.
template <int kStep, typename F, typename G>
inline void each_block(int64_t n, int64_t period, F f, G tail) {
  int64_t i = 0, at = 0;
  for (; i + kStep <= n; i += kStep) {
    f(i, at);
    at += kStep;
    at = at == period ? 0 : at;
  }
  if (i < n) tail(i, at, n - i);
}

// The first n elements of a block, and 0.
template <typename S, typename U>
inline Block<S, U> block_part(const S* p, int64_t n) {
  S part[Block<S, U>::kStep] = {};
  for (int64_t i = 0; i < n; ++i) part[i] = p[i];
  return Block<S, U>(part);
}
template <bool kFinite, typename S, typename U>
inline void put_part(U* p, const Block<S, U>& b, int64_t n) {
  U part[Block<S, U>::kStep];
  kFinite ? b.put_finite(part) : b.put(part);
  for (int64_t i = 0; i < n; ++i) p[i] = part[i];
}

template <bool kDivide, typename S, typename U>
void normalize_as(U* dst, const S* src, int64_t n, const ChannelConstants& c) {
  constexpr bool kFinite = sizeof(S) == 1;
  using B = Block<S, U>;
  each_block<B::kStep>(
      n, c.period,
      [&](int64_t i, int64_t at) {
        fetch_ahead<B::kStep, 1024>(src + i);
        fetch_ahead_to_write<B::kStep>(dst + i);
        const B out = normalized<kDivide>(B(src + i), c, at);
        kFinite ? out.put_finite(dst + i) : out.put(dst + i);
      },
      [&](int64_t i, int64_t at, int64_t rest) {
        put_part<kFinite>(dst + i, normalized<kDivide>(block_part<S, U>(src + i, rest), c, at),
                          rest);
      });
}

// u·a + v·b
template <typename S, typename U>
inline Block<S, U> weighed(const Block<S, U>& a, float u, const Block<S, U>& b, float v) {
  Block<S, U> out;
  for (int k = 0; k < a.kVectors; ++k) out.v[k] = a.v[k] * u + b.v[k] * v;
  return out;
}
// The same where a weight may be 0, which drops its term, infinities and NaN included.
template <typename S, typename U>
inline Block<S, U> weighed_or_dropped(const Block<S, U>& a, float u, const Block<S, U>& b,
                                      float v) {
  Block<S, U> out;
  for (int k = 0; k < a.kVectors; ++k) {
    const VF first = u == 0 ? VF{} : a.v[k] * u, second = v == 0 ? VF{} : b.v[k] * v;
    out.v[k] = first + second;
  }
  return out;
}

// kFinite: no weight is 0, and no result is a NaN that has to be kept.
template <bool kDivide, bool kFinite, typename S, typename U>
void blend_as(U* dst, const S* own, const S* other, int64_t n, const ChannelConstants& c, float u,
              float v) {
  using B = Block<S, U>;
  const auto mixed = [&](const B& a, const B& b, int64_t at) {
    const B x = normalized<kDivide>(a, c, at), y = normalized<kDivide>(b, c, at);
    return kFinite ? weighed(x, u, y, v) : weighed_or_dropped(x, u, y, v);
  };
  each_block<B::kStep>(
      n, c.period,
      [&](int64_t i, int64_t at) {
        fetch_ahead<B::kStep, 1024>(own + i);
        fetch_ahead<B::kStep, 1024>(other + i);
        const B out = mixed(B(own + i), B(other + i), at);
        kFinite ? out.put_finite(dst + i) : out.put(dst + i);
      },
      [&](int64_t i, int64_t at, int64_t rest) {
        const B a = block_part<S, U>(own + i, rest), b = block_part<S, U>(other + i, rest);
        put_part<kFinite>(dst + i, mixed(a, b, at), rest);
      });
}

template <bool kDivide, bool kFinite, typename S, typename U>
void blend_pair_as(U* dst_a, U* dst_b, const S* a, const S* b, int64_t n, const ChannelConstants& c,
                   const PairWeights& w) {
  using B = Block<S, U>;
  each_block<B::kStep>(
      n, c.period,
      [&](int64_t i, int64_t at) {
        fetch_ahead<B::kStep, 1024>(a + i);
        fetch_ahead<B::kStep, 1024>(b + i);
        const B x = normalized<kDivide>(B(a + i), c, at), y = normalized<kDivide>(B(b + i), c, at);
        const B p = weighed(x, w.own_a, y, w.other_a), q = weighed(y, w.own_b, x, w.other_b);
        kFinite ? p.put_finite(dst_a + i) : p.put(dst_a + i);
        kFinite ? q.put_finite(dst_b + i) : q.put(dst_b + i);
      },
      [&](int64_t i, int64_t at, int64_t rest) {
        const B x = normalized<kDivide>(block_part<S, U>(a + i, rest), c, at);
        const B y = normalized<kDivide>(block_part<S, U>(b + i, rest), c, at);
        put_part<kFinite>(dst_a + i, weighed(x, w.own_a, y, w.other_a), rest);
        put_part<kFinite>(dst_b + i, weighed(y, w.own_b, x, w.other_b), rest);
      });
}

// Bytes stay finite with such weights, and no weight drops a term.
inline bool moderate(float w) { return w != 0 && w > -1e9f && w < 1e9f; }

// ------------------------------------------------------------------ the choice of a division

template <typename S, typename U>
void normalize(U* dst, const S* src, int64_t n, const ChannelConstants& c) {
  if constexpr (sizeof(S) == 1) {
    if (c.exact_inverse) return normalize_as<false>(dst, src, n, c);
  }
  normalize_as<true>(dst, src, n, c);
}

template <typename S, typename U>
void blend_normalized(U* dst, const S* own, const S* other, int64_t n, const ChannelConstants& c,
                      float u, float v) {
  if constexpr (sizeof(S) == 1) {
    if (c.exact_inverse && moderate(u) && moderate(v)) {
      return blend_as<false, true>(dst, own, other, n, c, u, v);
    }
  }
  blend_as<true, false>(dst, own, other, n, c, u, v);
}

template <typename S, typename U>
void blend_normalized_pair(U* dst_a, U* dst_b, const S* a, const S* b, int64_t n,
                           const ChannelConstants& c, const PairWeights& w) {
  if constexpr (sizeof(S) == 1) {
    const bool finite =
        moderate(w.own_a) && moderate(w.other_a) && moderate(w.own_b) && moderate(w.other_b);
    if (c.exact_inverse && finite) {
      return blend_pair_as<false, true>(dst_a, dst_b, a, b, n, c, w);
    }
  }
  blend_pair_as<true, false>(dst_a, dst_b, a, b, n, c, w);
}

template <typename S, typename U>
constexpr NormalizeKernels<S, U> normalize_table() {
  return {spread<S, U>, normalize<S, U>, blend_normalized<S, U>, blend_normalized_pair<S, U>};
}

bool inverse_is_exact(float mean, float std, float inverse) {
#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
  VF byte, differs = {};
  for (int k = 0; k < kLanes<float>; ++k) byte[k] = float(k);
  for (int b = 0; b < 256; b += kLanes<float>, byte += float(kLanes<float>)) {
    const VF m = splat(mean), s = splat(std), r = splat(inverse);
    const VF quotient = normalized<true>(byte, m, s, r), product = normalized<false>(byte, m, s, r);
    // As bits: the sign of a zero counts, and no NaN passes.
    differs = (VF)((VI)differs | ((VI)quotient ^ (VI)product));
  }
  uint32_t any = 0;
  for (int k = 0; k < kLanes<float>; ++k) any |= ((VI)differs)[k];
  return any == 0;
#else
  (void)mean, (void)std, (void)inverse;
  return false;  // without an FMA the correction is not exact
#endif
}
