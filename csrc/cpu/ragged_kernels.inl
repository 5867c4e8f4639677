// Blends parts of lines, for one instruction set. float and double take the second product and the
// sum in one rounding where there is such an instruction, as PyTorch's add(alpha=) does: they equal
// `x.mul(w0).add(y, alpha=w1)` bit for bit. Other types are rounded as in mix_kernels.inl.

template <typename T>
constexpr bool kIsBytes = sizeof(T) == 1;

// Mixes one step of elements; kStep is how many.
template <typename T>
struct RaggedBlend {
  using A = acc_t<T>;
  using V = VecOf<A>;
  static constexpr int64_t kStep = 2 * kLanes<A>;

  V w0, w1;

  RaggedBlend(A own, A other) : w0(splat(own)), w1(splat(other)) {}

  V of(V a, V b) const {
    if constexpr (sizeof(T) >= 4) return multiply_add(b, w1, a * w0);
    return a * w0 + b * w1;
  }
  void step(T* dst, const T* a, const T* b) const {
    const auto f = [&](V x, V y) { return of(x, y); };
    store_two(dst, Two<A>::of(load_two<A>(a), load_two<A>(b), f));
  }
  // n < kStep elements.
  void part(T* dst, const T* a, const T* b, int64_t n) const {
    for (; n > 0; n -= kLanes<A>, dst += kLanes<A>, a += kLanes<A>, b += kLanes<A>) {
      const int64_t count = n < kLanes<A> ? n : kLanes<A>;
      store_part<A>(dst, of(load_part<A>(a, count), load_part<A>(b, count)), count);
    }
  }
};

template <typename T>
struct RaggedBlendPair {
  using A = acc_t<T>;
  static constexpr int64_t kStep = 2 * kLanes<A>;

  RaggedBlend<T> first, second;

  RaggedBlendPair(A a0, A a1, A b0, A b1) : first(a0, a1), second(b0, b1) {}

  void step(T* dst_a, T* dst_b, const T* a, const T* b) const {
    using V = VecOf<A>;
    const Two<A> x = load_two<A>(a), y = load_two<A>(b);
    store_two(dst_a, Two<A>::of(x, y, [&](V u, V v) { return first.of(u, v); }));
    store_two(dst_b, Two<A>::of(y, x, [&](V u, V v) { return second.of(u, v); }));
  }
  void part(T* dst_a, T* dst_b, const T* a, const T* b, int64_t n) const {
    first.part(dst_a, a, b, n);
    second.part(dst_b, b, a, n);
  }
};

#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
// Whole vectors of bytes, for weights that ByteWeight::fits().
struct ByteBlend : RaggedBlend<uint8_t> {
  static constexpr int64_t kStep = kVectorBytes;
  const ByteWeight own, other;

  ByteBlend(float w0, float w1) : RaggedBlend<uint8_t>(w0, w1), own(w0), other(w1) {}

  void step(uint8_t* dst, const uint8_t* a, const uint8_t* b) const {
    const Bytes bytes_a = bit_load<Bytes>(a), bytes_b = bit_load<Bytes>(b);
    Bytes words[2];
    for (int half = 0; half < 2; ++half) {
      words[half] = blended({bytes_a, half}, own, {bytes_b, half}, other);
    }
    store_packed(dst, words);
  }
};

struct ByteBlendPair : RaggedBlendPair<uint8_t> {
  static constexpr int64_t kStep = kVectorBytes;
  const ByteWeight own_a, other_a, own_b, other_b;

  ByteBlendPair(float a0, float a1, float b0, float b1)
      : RaggedBlendPair<uint8_t>(a0, a1, b0, b1), own_a(a0), other_a(a1), own_b(b0), other_b(b1) {}

  void step(uint8_t* dst_a, uint8_t* dst_b, const uint8_t* a, const uint8_t* b) const {
    const Bytes bytes_a = bit_load<Bytes>(a), bytes_b = bit_load<Bytes>(b);
    Bytes words_a[2], words_b[2];
    for (int half = 0; half < 2; ++half) {
      const BiasedBytes u(bytes_a, half), v(bytes_b, half);
      words_a[half] = blended(u, own_a, v, other_a);
      words_b[half] = blended(v, own_b, u, other_b);
    }
    store_packed(dst_a, words_a);
    store_packed(dst_b, words_b);
  }
};
#endif

// f(i) for steps that cover n >= kStep elements; the last one may begin inside the one before, as
// what it mixes again comes from sources that nobody writes.
template <int64_t kStep, typename F>
inline void each_step(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) f(i);
  if (i < n) f(n - kStep);
}

// dst = src. Runs are a part of a line, so short that the call of memcpy shows.
template <typename T>
inline void copy_run(T* dst, const T* src, int64_t n) {
  constexpr int64_t kStep = kVectorBytes / sizeof(T);
  if (n < kStep) {
    if (n > 0) __builtin_memcpy(dst, src, n * sizeof(T));
    return;
  }
  each_step<kStep>(n, [&](int64_t i) {
    const VI bits = bit_load<VI>(src + i);
    __builtin_memcpy(dst + i, &bits, sizeof(bits));
  });
}

template <typename T>
inline void copy_sides(const RaggedLines<T>& lines, int64_t line, int64_t n) {
  T* dst = lines.dst + line * lines.dst_step;
  const T* src = lines.src + line * lines.src_step;
  const int64_t after = lines.left + n;
  copy_run(dst, src, lines.left);
  copy_run(dst + after, src + after, lines.right);
}

template <typename T>
void ragged_paste(const RaggedLines<T>& own, const T* partner, int64_t partner_step, int64_t lines,
                  int64_t n) {
  for (int64_t line = 0; line < lines; ++line) {
    copy_sides(own, line, n);
    copy_run(own.dst + line * own.dst_step + own.left, partner + line * partner_step, n);
  }
}

template <typename T, typename Blend>
void blend_lines(const RaggedLines<T>& own, const T* partner, int64_t partner_step, int64_t lines,
                 int64_t n, const Blend& blend) {
  using Narrow = RaggedBlend<T>;  // ByteBlend takes more elements in a step
  for (int64_t line = 0; line < lines; ++line) {
    copy_sides(own, line, n);
    T* dst = own.dst + line * own.dst_step + own.left;
    const T* a = own.src + line * own.src_step + own.left;
    const T* b = partner + line * partner_step;
    if (n >= Blend::kStep) {
      each_step<Blend::kStep>(n, [&](int64_t i) { blend.step(dst + i, a + i, b + i); });
    } else if (n >= Narrow::kStep) {
      each_step<Narrow::kStep>(n, [&](int64_t i) { blend.Narrow::step(dst + i, a + i, b + i); });
    } else {
      blend.part(dst, a, b, n);
    }
  }
}

template <typename T, typename Blend>
void blend_line_pairs(const RaggedLines<T>& a, const RaggedLines<T>& b, int64_t lines, int64_t n,
                      const Blend& blend) {
  using Narrow = RaggedBlendPair<T>;
  for (int64_t line = 0; line < lines; ++line) {
    copy_sides(a, line, n);
    copy_sides(b, line, n);
    T* dst_a = a.dst + line * a.dst_step + a.left;
    T* dst_b = b.dst + line * b.dst_step + b.left;
    const T* src_a = a.src + line * a.src_step + a.left;
    const T* src_b = b.src + line * b.src_step + b.left;
    if (n >= Blend::kStep) {
      each_step<Blend::kStep>(
          n, [&](int64_t i) { blend.step(dst_a + i, dst_b + i, src_a + i, src_b + i); });
    } else if (n >= Narrow::kStep) {
      each_step<Narrow::kStep>(
          n, [&](int64_t i) { blend.Narrow::step(dst_a + i, dst_b + i, src_a + i, src_b + i); });
    } else {
      blend.part(dst_a, dst_b, src_a, src_b, n);
    }
  }
}

template <typename T>
void ragged_blend(const RaggedLines<T>& own, const T* partner, int64_t partner_step, int64_t lines,
                  int64_t n, acc_t<T> w0, acc_t<T> w1) {
  if (w0 == 0 || w1 == 0) {
    for (int64_t line = 0; line < lines; ++line) {
      copy_sides(own, line, n);
      const T* src = own.src + line * own.src_step + own.left;
      const T* other = partner + line * partner_step;
      blend<T>(own.dst + line * own.dst_step + own.left, src, other, src, n, w0, w1);
    }
    return;
  }
#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
  if constexpr (kIsBytes<T>) {
    if (ByteWeight::fits(w0) && ByteWeight::fits(w1)) {
      return blend_lines(own, partner, partner_step, lines, n, ByteBlend(w0, w1));
    }
  }
#endif
  blend_lines(own, partner, partner_step, lines, n, RaggedBlend<T>(w0, w1));
}

template <typename T>
void ragged_blend_pair(const RaggedLines<T>& a, const RaggedLines<T>& b, int64_t lines, int64_t n,
                       acc_t<T> a0, acc_t<T> a1, acc_t<T> b0, acc_t<T> b1) {
#if defined(FUSED_MIXUP_AVX2) || defined(FUSED_MIXUP_AVX512)
  if constexpr (kIsBytes<T>) {
    if (ByteWeight::fits(a0) && ByteWeight::fits(a1) && ByteWeight::fits(b0) &&
        ByteWeight::fits(b1)) {
      return blend_line_pairs(a, b, lines, n, ByteBlendPair(a0, a1, b0, b1));
    }
  }
#endif
  blend_line_pairs(a, b, lines, n, RaggedBlendPair<T>(a0, a1, b0, b1));
}

template <typename T>
constexpr RaggedKernels<T> ragged_table() {
  return {ragged_blend<T>, ragged_paste<T>, ragged_blend_pair<T>};
}
