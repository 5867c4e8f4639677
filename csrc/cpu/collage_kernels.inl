// Interpolating lines of pixels, for one instruction set. Products and sums are rounded one by one.

template <typename T>
void widen_line(acc_t<T>* dst, const T* src, int64_t n) {
  using A = acc_t<T>;
  int64_t i = 0;
  for (; i + kLanes<A> <= n; i += kLanes<A>) store(dst + i, load(src + i));
  if (i < n) store_part<A>(dst + i, load_part<A>(src + i, n - i), n - i);
}

// weight·value, where a weight of 0 drops the term.
template <typename A>
inline VecOf<A> term(VecOf<A> weight, VecOf<A> value) {
  const auto there = (BitsOf<A>)(weight != 0);
  return (VecOf<A>)(there & (BitsOf<A>)(weight * value));
}

template <typename A>
void interpolate_line(A* dst, const A* src, const int32_t* low, const int32_t* high, const A* own,
                      const A* other, int64_t n) {
  constexpr int kStep = kLanes<A>;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    VecOf<A> a, b;
    for (int k = 0; k < kStep; ++k) {
      a[k] = src[low[i + k]];
      b[k] = src[high[i + k]];
    }
    store(dst + i, term<A>(load(own + i), a) + term<A>(load(other + i), b));
  }
  for (; i < n; ++i) {
    const A a = own[i] == 0 ? A(0) : own[i] * src[low[i]];
    const A b = other[i] == 0 ? A(0) : other[i] * src[high[i]];
    dst[i] = a + b;
  }
}

template <typename T, typename F>
inline void round_line(T* dst, const acc_t<T>* a, const acc_t<T>* b, int64_t n, F f) {
  using A = acc_t<T>;
  constexpr int kStep = kLanes<A>;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) store(dst + i, f(load(a + i), load(b + i)));
  if (i < n) {
    store_part<A>(dst + i, f(load_part<A>(a + i, n - i), load_part<A>(b + i, n - i)), n - i);
  }
}

template <typename T>
void blend_lines(T* dst, const acc_t<T>* a, const acc_t<T>* b, int64_t n, acc_t<T> own,
                 acc_t<T> other) {
  using V = VecOf<acc_t<T>>;
  if (other == 0) return round_line(dst, a, a, n, [=](V x, V) { return x * own; });
  if (own == 0) return round_line(dst, b, b, n, [=](V x, V) { return x * other; });
  round_line(dst, a, b, n, [=](V x, V y) { return x * own + y * other; });
}

template <typename T>
constexpr CollageKernels<T> collage_table() {
  return {widen_line<T>, interpolate_line<acc_t<T>>, blend_lines<T>};
}
