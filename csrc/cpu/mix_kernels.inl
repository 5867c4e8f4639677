// Blending, for one instruction set. Products and sum are rounded one by one (this is compiled
// with -ffp-contract=off), so that float32 equals eager PyTorch bit for bit; half types and uint8
// are rounded once, at the end.

// dst = f(a, b), a vector at a time, for n elements. ahead: as in MixKernels.
template <typename T, typename F>
inline void map2(T* dst, const T* a, const T* b, const T* ahead, int64_t n, F f) {
  using A = acc_t<T>;
  constexpr int kStep = kLanes<A>;
  constexpr int kLine = 64 / sizeof(T);
  int64_t i = 0;
  // Four vectors in flight: the loads of all come before the first store.
  for (; i + 4 * kStep <= n; i += 4 * kStep) {
    // The processor foresees the next lines of this run, but not that another row follows.
    for (int k = 0; k < 4 * kStep; k += kLine) __builtin_prefetch(ahead + i + k);
    const int64_t j = i + 2 * kStep;
    const auto first = Two<A>::of(load_two<A>(a + i), load_two<A>(b + i), f);
    const auto second = Two<A>::of(load_two<A>(a + j), load_two<A>(b + j), f);
    store_two(dst + i, first);
    store_two(dst + j, second);
  }
  for (; i + kStep <= n; i += kStep) store(dst + i, f(load(a + i), load(b + i)));
  if (i < n) {
    store_part<A>(dst + i, f(load_part<A>(a + i, n - i), load_part<A>(b + i, n - i)), n - i);
  }
}

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
#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
    if constexpr (sizeof(T) == 1) done = blend_bytes(dst, own, partner, ahead, n, w0, w1);
#endif
    map2(dst + done, own + done, partner + done, ahead + done, n - done,
         [=](V a, V b) { return a * w0 + b * w1; });
  }
}

template <typename T>
void blend_pair(T* dst_a, T* dst_b, const T* a, const T* b, int64_t n, acc_t<T> a0, acc_t<T> a1,
                acc_t<T> b0, acc_t<T> b1) {
  using A = acc_t<T>;
  using V = VecOf<A>;
  constexpr int kStep = kLanes<A>;
  int64_t i = 0;
#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
  if constexpr (sizeof(T) == 1) {
    const auto pairs = a0 == b0 && a1 == b1 ? blend_byte_pairs<true> : blend_byte_pairs<false>;
    i = pairs(dst_a, dst_b, a, b, n, a0, a1, b0, b1);
  }
#endif
  for (; i + 2 * kStep <= n; i += 2 * kStep) {
    fetch_ahead<2 * kStep, 1024>(a + i);
    fetch_ahead<2 * kStep, 1024>(b + i);
    const Two<A> x = load_two<A>(a + i), y = load_two<A>(b + i);
    store_two(dst_a + i, Two<A>::of(x, y, [=](V u, V v) { return u * a0 + v * a1; }));
    store_two(dst_b + i, Two<A>::of(y, x, [=](V u, V v) { return u * b0 + v * b1; }));
  }
  for (; i + kStep <= n; i += kStep) {
    const VecOf<A> x = load(a + i), y = load(b + i);
    store(dst_a + i, x * a0 + y * a1);
    store(dst_b + i, y * b0 + x * b1);
  }
  if (i < n) {
    const VecOf<A> x = load_part<A>(a + i, n - i), y = load_part<A>(b + i, n - i);
    store_part<A>(dst_a + i, x * a0 + y * a1, n - i);
    store_part<A>(dst_b + i, y * b0 + x * b1, n - i);
  }
}

template <typename T>
void blend_chain(T* const* dst, const T* const* rows, int64_t n, const acc_t<T>* own,
                 const acc_t<T>* other) {
  using A = acc_t<T>;
  using V = VecOf<A>;
  constexpr int kStep = kLanes<A>;
  T* const to[] = {dst[0], dst[1], dst[2], dst[3]};
  const T* const r[] = {rows[0], rows[1], rows[2], rows[3], rows[4]};
  V w0[kChainRows], w1[kChainRows];
  for (int k = 0; k < kChainRows; ++k) w0[k] = splat(own[k]), w1[k] = splat(other[k]);
  int64_t i = 0;
#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
  if constexpr (sizeof(T) == 1) i = blend_byte_chain(to, r, n, own, other);
#endif
  for (; i + 2 * kStep <= n; i += 2 * kStep) {
    for (const T* row : r) fetch_ahead<2 * kStep, 1024>(row + i);
    Two<A> x = load_two<A>(r[0] + i);
    for (int k = 0; k < kChainRows; ++k) {
      const Two<A> y = load_two<A>(r[k + 1] + i);
      store_two(to[k] + i, Two<A>::of(x, y, [&](V u, V v) { return u * w0[k] + v * w1[k]; }));
      x = y;
    }
  }
  for (; i < n; i += kStep) {
    const int64_t part = n - i < kStep ? n - i : kStep;
    VecOf<A> x = load_part<A>(r[0] + i, part);
    for (int k = 0; k < kChainRows; ++k) {
      const VecOf<A> y = load_part<A>(r[k + 1] + i, part);
      store_part<A>(to[k] + i, x * own[k] + y * other[k], part);
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

// Where the compiler knows the number of channels it makes shuffles of whole vectors.
template <int kChannels, typename T>
void split_known(T* __restrict dst, int64_t stride, const T* __restrict src, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    for (int c = 0; c < kChannels; ++c) dst[c * stride + i] = src[i * kChannels + c];
  }
}

template <typename T>
void split(T* dst, int64_t stride, const T* src, int64_t n, int64_t channels) {
  if (channels == 3) {
    int64_t done = 0;
#if defined(FUSED_MIXUP_AVX2)
    if constexpr (sizeof(T) == 1) done = split_bytes(dst, stride, src, n);
#endif
    return split_known<3>(dst + done, stride, src + 3 * done, n - done);
  }
  if (channels == 4) return split_known<4>(dst, stride, src, n);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < n; ++i) dst[c * stride + i] = src[i * channels + c];
  }
}

template <typename T>
constexpr MixKernels<T> mix_table() {
  return {blend<T>, blend_pair<T>, blend_chain<T>, accumulate<T>, round<T>, split<T>};
}
