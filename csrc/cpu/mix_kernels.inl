// Blending, for one instruction set. Products and sum are rounded one by one (this is compiled
// with -ffp-contract=off), so that float32 equals eager PyTorch bit for bit; half types and uint8
// are rounded once, at the end.

// f(vector of own, vector of partner) -> vector, over n elements.
template <typename T, typename F>
inline void map2(T* dst, const T* a, const T* b, const T* ahead, int64_t n, F f) {
  using A = acc_t<T>;
  constexpr int kStep = kLanes<A>;
  constexpr int kLine = 64 / sizeof(T);
  int64_t i = 0;
  // Four vectors in flight: the loads of all come before the first store.
  for (; i + 4 * kStep <= n; i += 4 * kStep) {
    // The processor foresees lines of the run it is in, not that another row comes next.
    for (int k = 0; k < 4 * kStep; k += kLine) __builtin_prefetch(ahead + i + k);
    const VecOf<A> r0 = f(load(a + i), load(b + i));
    const VecOf<A> r1 = f(load(a + i + kStep), load(b + i + kStep));
    const VecOf<A> r2 = f(load(a + i + 2 * kStep), load(b + i + 2 * kStep));
    const VecOf<A> r3 = f(load(a + i + 3 * kStep), load(b + i + 3 * kStep));
    store(dst + i, r0);
    store(dst + i + kStep, r1);
    store(dst + i + 2 * kStep, r2);
    store(dst + i + 3 * kStep, r3);
  }
  for (; i + kStep <= n; i += kStep) store(dst + i, f(load(a + i), load(b + i)));
  if (i < n) {
    store_part<A>(dst + i, f(load_part<A>(a + i, n - i), load_part<A>(b + i, n - i)), n - i);
  }
}

#if defined(FUSED_MIXUP_AVX2)
// 32 bytes to floats 2^23 + v: their bits are 0x4B000000 + v. Which byte lies in which lane does
// not matter: packing undoes it.
inline void load_biased(const uint8_t* p, __m256* v) {
  const __m256i bytes = _mm256_loadu_si256((const __m256i*)p);
  const __m256i zero = _mm256_setzero_si256(), bias = _mm256_set1_epi16(0x4B00);
  const __m256i low = _mm256_unpacklo_epi8(bytes, zero), high = _mm256_unpackhi_epi8(bytes, zero);
  v[0] = (__m256)_mm256_unpacklo_epi16(low, bias);
  v[1] = (__m256)_mm256_unpackhi_epi16(low, bias);
  v[2] = (__m256)_mm256_unpacklo_epi16(high, bias);
  v[3] = (__m256)_mm256_unpackhi_epi16(high, bias);
}

// 2^23·w is exact, and so is what is added to it in an FMA: v·w is rounded once, as everywhere.
struct ByteWeight {
  __m256 weight, bias;

  explicit ByteWeight(float w) : weight(_mm256_set1_ps(w)), bias(_mm256_set1_ps(w * 8388608.0f)) {}
  __m256 times(__m256 biased) const { return _mm256_fmsub_ps(biased, weight, bias); }
  // Packing clamps to a byte, but only what fits 32 bits before.
  static bool fits(float w) { return w >= -1e6f && w <= 1e6f; }
};

// 32 bytes u·a + v·b.
inline void store_blended(uint8_t* dst, const __m256* u, const ByteWeight& a, const __m256* v,
                          const ByteWeight& b) {
  __m256i words[4];
  for (int k = 0; k < 4; ++k) {
    words[k] = _mm256_cvtps_epi32(_mm256_add_ps(a.times(u[k]), b.times(v[k])));
  }
  const __m256i low = _mm256_packs_epi32(words[0], words[1]);
  const __m256i high = _mm256_packs_epi32(words[2], words[3]);
  _mm256_storeu_si256((__m256i*)dst, _mm256_packus_epi16(low, high));
}

// Whole vectors of bytes with two thirds of the instructions of map2; how many elements that were.
inline int64_t blend_bytes(uint8_t* dst, const uint8_t* a, const uint8_t* b, const uint8_t* ahead,
                           int64_t n, float w0, float w1) {
  if (!ByteWeight::fits(w0) || !ByteWeight::fits(w1)) return 0;
  const ByteWeight own(w0), other(w1);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    __builtin_prefetch(ahead + i);
    __m256 u[4], v[4];
    load_biased(a + i, u);
    load_biased(b + i, v);
    store_blended(dst + i, u, own, v, other);
  }
  return i;
}

// The same for blend_pair.
inline int64_t blend_byte_pairs(uint8_t* a, uint8_t* b, int64_t n, float a0, float a1, float b0,
                                float b1) {
  if (!ByteWeight::fits(a0) || !ByteWeight::fits(a1)) return 0;
  if (!ByteWeight::fits(b0) || !ByteWeight::fits(b1)) return 0;
  const ByteWeight own_a(a0), other_a(a1), own_b(b0), other_b(b1);
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    fetch_ahead<1024>(a + i);
    fetch_ahead<1024>(b + i);
    __m256 u[4], v[4];
    load_biased(a + i, u);
    load_biased(b + i, v);
    store_blended(a + i, u, own_a, v, other_a);
    store_blended(b + i, v, own_b, u, other_b);
  }
  return i;
}
#endif

template <typename T>
void blend(T* dst, const T* own, const T* partner, const T* ahead, int64_t n, acc_t<T> w0,
           acc_t<T> w1) {
  using V = VecOf<acc_t<T>>;
  if (w0 == 1 && w1 == 0) {
    if (dst != own) __builtin_memmove(dst, own, n * sizeof(T));
  } else if (w0 == 0 && w1 == 0) {
    __builtin_memset(dst, 0, n * sizeof(T));
  } else if (w1 == 0) {
    map2(dst, own, own, ahead, n, [=](V a, V) { return a * w0; });
  } else if (w0 == 0) {
    map2(dst, partner, partner, ahead, n, [=](V b, V) { return b * w1; });
  } else {
    int64_t done = 0;
#if defined(FUSED_MIXUP_AVX2)
    if constexpr (sizeof(T) == 1) done = blend_bytes(dst, own, partner, ahead, n, w0, w1);
#endif
    map2(dst + done, own + done, partner + done, ahead + done, n - done,
         [=](V a, V b) { return a * w0 + b * w1; });
  }
}

template <typename T>
void blend_pair(T* a, T* b, int64_t n, acc_t<T> a0, acc_t<T> a1, acc_t<T> b0, acc_t<T> b1) {
  using A = acc_t<T>;
  constexpr int kStep = kLanes<A>;
  int64_t i = 0;
#if defined(FUSED_MIXUP_AVX2)
  if constexpr (sizeof(T) == 1) i = blend_byte_pairs(a, b, n, a0, a1, b0, b1);
#endif
  for (; i + 2 * kStep <= n; i += 2 * kStep) {
    fetch_ahead<1024>(a + i);
    fetch_ahead<1024>(b + i);
    const VecOf<A> x = load(a + i), y = load(b + i);
    const VecOf<A> u = load(a + i + kStep), v = load(b + i + kStep);
    store(a + i, x * a0 + y * a1);
    store(a + i + kStep, u * a0 + v * a1);
    store(b + i, y * b0 + x * b1);
    store(b + i + kStep, v * b0 + u * b1);
  }
  for (; i < n; i += kStep) {
    const int64_t part = n - i < kStep ? n - i : kStep;
    const VecOf<A> x = load_part<A>(a + i, part), y = load_part<A>(b + i, part);
    store_part<A>(a + i, x * a0 + y * a1, part);
    store_part<A>(b + i, y * b0 + x * b1, part);
  }
}

template <typename T>
void blend_chain(T* const* rows, int64_t n, const acc_t<T>* own, const acc_t<T>* other) {
  using A = acc_t<T>;
  constexpr int kStep = kLanes<A>;
  T* const r[] = {rows[0], rows[1], rows[2], rows[3], rows[4]};
  int64_t i = 0;
  for (; i + 2 * kStep <= n; i += 2 * kStep) {
    for (T* row : r) fetch_ahead<1024>(row + i);
    VecOf<A> x = load(r[0] + i), u = load(r[0] + i + kStep);
    for (int k = 0; k < kChainRows; ++k) {
      const VecOf<A> y = load(r[k + 1] + i), v = load(r[k + 1] + i + kStep);
      store(r[k] + i, x * own[k] + y * other[k]);
      store(r[k] + i + kStep, u * own[k] + v * other[k]);
      x = y;
      u = v;
    }
  }
  for (; i < n; i += kStep) {
    const int64_t part = n - i < kStep ? n - i : kStep;
    VecOf<A> x = load_part<A>(r[0] + i, part);
    for (int k = 0; k < kChainRows; ++k) {
      const VecOf<A> y = load_part<A>(r[k + 1] + i, part);
      store_part<A>(r[k] + i, x * own[k] + y * other[k], part);
      x = y;
    }
  }
}

template <typename T>
void accumulate(acc_t<T>* sum, const T* src, int64_t n, acc_t<T> w) {
  using A = acc_t<T>;
  constexpr int kStep = kLanes<A>;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    const VecOf<A> term = load(src + i) * w;
    store(sum + i, load(sum + i) + term);
  }
  if (i < n) {
    const VecOf<A> term = load_part<A>(src + i, n - i) * w;
    store_part<A>(sum + i, load_part<A>(sum + i, n - i) + term, n - i);
  }
}

template <typename T>
void round(T* dst, const acc_t<T>* sum, int64_t n) {
  using A = acc_t<T>;
  constexpr int kStep = kLanes<A>;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) store(dst + i, load(sum + i));
  if (i < n) store_part<A>(dst + i, load_part<A>(sum + i, n - i), n - i);
}

// A number of channels known to the compiler becomes shuffles of whole vectors.
template <int kChannels, typename T>
void split_known(T* __restrict dst, int64_t stride, const T* __restrict src, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    for (int c = 0; c < kChannels; ++c) dst[c * stride + i] = src[i * kChannels + c];
  }
}

template <typename T>
void split(T* dst, int64_t stride, const T* src, int64_t n, int64_t channels) {
  if (channels == 3) return split_known<3>(dst, stride, src, n);
  if (channels == 4) return split_known<4>(dst, stride, src, n);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < n; ++i) dst[c * stride + i] = src[i * channels + c];
  }
}

template <typename T>
constexpr MixKernels<T> mix_table() {
  return {blend<T>, blend_pair<T>, blend_chain<T>, accumulate<T>, round<T>, split<T>};
}
