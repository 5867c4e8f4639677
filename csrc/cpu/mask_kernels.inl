// Masks of a line of pixels, and blending by them, for one instruction set. Products and sums are
// rounded one by one, as in mix_kernels.inl.

typedef float HF __attribute__((vector_size(kVectorBytes / 2)));
typedef int32_t VS __attribute__((vector_size(kVectorBytes)));

// The factors of both samples, m and 1 - m, in the arithmetic type. 1 - m is taken in float.
template <typename A>
struct Shares {
  VecOf<A> own, other;
};

template <typename A>
inline Shares<A> shares(const float* p) {
  if constexpr (sizeof(A) == 4) {
    const VF m = load(p);
    return {m, 1 - m};
  } else {
    const HF m = bit_load<HF>(p);
    return {__builtin_convertvector(m, VD), __builtin_convertvector(1 - m, VD)};
  }
}

template <typename A>
inline VecOf<A> blend_by(Shares<A> w, VecOf<A> own, VecOf<A> other) {
  const VecOf<A> both = own * w.own + other * w.other;
  const VecOf<A> or_own = select<A>((BitsOf<A>)(w.own == 1), own, both);
  return select<A>((BitsOf<A>)(w.own == 0), other, or_own);
}

// The shares of the last n < kLanes elements.
template <typename A>
inline Shares<A> shares_part(const float* p, int64_t n) {
  float part[kLanes<A>];
  for (int i = 0; i < kLanes<A>; ++i) part[i] = i < n ? p[i] : 1.0f;
  return shares<A>(part);
}

template <typename T>
void blend_masked(T* dst, const T* own, const T* partner, const float* m, int64_t n) {
  using A = acc_t<T>;
  constexpr int kStep = kLanes<A>;
  int64_t i = 0;
  for (; i + 2 * kStep <= n; i += 2 * kStep) {
    fetch_ahead<2 * kStep, 1024>(own + i);
    fetch_ahead<2 * kStep, 1024>(partner + i);
    const VecOf<A> x = blend_by<A>(shares<A>(m + i), load(own + i), load(partner + i));
    const VecOf<A> y =
        blend_by<A>(shares<A>(m + i + kStep), load(own + i + kStep), load(partner + i + kStep));
    store(dst + i, x);
    store(dst + i + kStep, y);
  }
  for (; i < n; i += kStep) {
    const int64_t part = n - i < kStep ? n - i : kStep;
    const VecOf<A> x = load_part<A>(own + i, part), y = load_part<A>(partner + i, part);
    store_part<A>(dst + i, blend_by<A>(shares_part<A>(m + i, part), x, y), part);
  }
}

template <typename T>
void blend_masked_pair(T* a, T* b, const float* ma, const float* mb, int64_t n) {
  using A = acc_t<T>;
  constexpr int kStep = kLanes<A>;
  int64_t i = 0;
  for (; i + 2 * kStep <= n; i += 2 * kStep) {
    fetch_ahead<2 * kStep, 1024>(a + i);
    fetch_ahead<2 * kStep, 1024>(b + i);
    const VecOf<A> x = load(a + i), y = load(b + i);
    const VecOf<A> u = load(a + i + kStep), v = load(b + i + kStep);
    store(a + i, blend_by<A>(shares<A>(ma + i), x, y));
    store(a + i + kStep, blend_by<A>(shares<A>(ma + i + kStep), u, v));
    store(b + i, blend_by<A>(shares<A>(mb + i), y, x));
    store(b + i + kStep, blend_by<A>(shares<A>(mb + i + kStep), v, u));
  }
  for (; i < n; i += kStep) {
    const int64_t part = n - i < kStep ? n - i : kStep;
    const VecOf<A> x = load_part<A>(a + i, part), y = load_part<A>(b + i, part);
    store_part<A>(a + i, blend_by<A>(shares_part<A>(ma + i, part), x, y), part);
    store_part<A>(b + i, blend_by<A>(shares_part<A>(mb + i, part), y, x), part);
  }
}

template <typename T>
void accumulate_masked(acc_t<T>* sum, const T* src, const float* m, int64_t n, bool complement) {
  using A = acc_t<T>;
  constexpr int kStep = kLanes<A>;
  for (int64_t i = 0; i < n; i += kStep) {
    const int64_t part = n - i < kStep ? n - i : kStep;
    const bool whole = part == kStep;
    const Shares<A> both = whole ? shares<A>(m + i) : shares_part<A>(m + i, part);
    const VecOf<A> w = complement ? both.other : both.own;
    const VecOf<A> x = whole ? load(src + i) : load_part<A>(src + i, part);
    const VecOf<A> term = select<A>((BitsOf<A>)(w == 0), VecOf<A>{}, x * w);
    if (whole) {
      store(sum + i, load(sum + i) + term);
    } else {
      store_part<A>(sum + i, load_part<A>(sum + i, part) + term, part);
    }
  }
}

template <typename T>
constexpr MaskedKernels<T> masked_table() {
  return {blend_masked<T>, blend_masked_pair<T>, accumulate_masked<T>};
}

// ------------------------------------------------------------------ masks of a line

// dst[i] = f(i) for n elements, a vector at a time; f loads what it needs by load_at().
template <typename F>
inline void fill_line(float* dst, int64_t n, F f) {
  constexpr int kStep = kLanes<float>;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) store(dst + i, f([i](const float* p) { return load(p + i); }));
  if (i == n) return;
  const int64_t part = n - i;
  store_part<float>(dst + i, f([i, part](const float* p) { return load_part<float>(p + i, part); }),
                    part);
}

void separable_line(float* m, const float* r, const float* columns, int64_t stride, int rank,
                    int64_t n) {
  const float r0 = r[0], r1 = rank > 1 ? r[1] : 0, r2 = rank > 2 ? r[2] : 0,
              r3 = rank > 3 ? r[3] : 0;
  const float *c1 = columns + stride, *c2 = c1 + stride, *c3 = c2 + stride;
  switch (rank) {
    case 1:
      return fill_line(m, n, [=](auto at) { return at(columns) * r0; });
    case 2:
      return fill_line(m, n, [=](auto at) { return at(columns) * r0 + at(c1) * r1; });
    case 3:
      return fill_line(m, n,
                       [=](auto at) { return (at(columns) * r0 + at(c1) * r1) + at(c2) * r2; });
    default:
      return fill_line(m, n, [=](auto at) {
        return ((at(columns) * r0 + at(c1) * r1) + at(c2) * r2) + at(c3) * r3;
      });
  }
}

void finish_line(float* m, int64_t n, int32_t code, float threshold) {
  const VF none = {}, all = splat(1.0f);
  switch (code & kMaskFunction) {
    case kThreshold:
      fill_line(m, n, [=](auto at) { return select<float>((VI)(at(m) > threshold), all, none); });
      break;
    case kParity:
      fill_line(m, n, [=](auto at) {
        return __builtin_convertvector(__builtin_convertvector(at(m), VS) & 1, VF);
      });
      break;
    case kSigmoid:
      fill_line(m, n, [=](auto at) {
        const VF x = -at(m);
        const Exp<float> e = exp_parts(select<float>((VI)(x > 88.0f), splat(88.0f), x));
        return 1 / (1 + e.factor * e.power);
      });
      break;
  }
  if (code & kInvert) fill_line(m, n, [=](auto at) { return 1 - at(m); });
}

void interpolate_lines(float* m, const float* top, const float* bottom, float weight, int64_t n) {
  const float rest = 1 - weight;
  fill_line(m, n, [=](auto at) { return at(top) * rest + at(bottom) * weight; });
}

// m as a whole number of 2^-24; values outside [0, 1] and NaN are kept inside.
inline VS whole_masks(VF m) {
  const VF kept = select<float>((VI)(m < 1), select<float>((VI)(m > 0), m, VF{}), splat(1.0f));
  const VF scaled = select<float>((VI)(m == m), kept, VF{}) * kMaskScale;
  // Adding 2^23 rounds to a whole number; the values above it are whole already.
  const VF rounded = (scaled + 8388608.0f) - 8388608.0f;
  return __builtin_convertvector(select<float>((VI)(scaled < 8388608.0f), rounded, scaled), VS);
}

int64_t sum_line(const float* m, int64_t n) {
  constexpr int kStep = kLanes<float>;
  constexpr int64_t kBlock = 64 * kStep;  // 64 whole numbers up to 2^24 fit into 31 bits
  int64_t total = 0;
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t end = i + kBlock < n ? i + kBlock : n;
    VS sum = {};
    for (int64_t k = i; k < end; k += kStep) {
      const bool whole = k + kStep <= end;
      sum += whole_masks(whole ? load(m + k) : load_part<float>(m + k, end - k));
    }
    for (int lane = 0; lane < kStep; ++lane) total += sum[lane];
  }
  return total;
}

constexpr MaskKernels mask_table() {
  return {separable_line, finish_line, interpolate_lines, sum_line};
}
