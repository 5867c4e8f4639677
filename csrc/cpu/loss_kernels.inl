// Soft-target cross-entropy of one row, for one instruction set.
//
// Forward: one sweep; the row passes through the cache in chunks, each read for its maximum and
// again, from the first-level cache, for its sums. Backward: one sweep, one read and one write.

// exp(x) for x <= 0, to about 1 ulp; 0 below the smallest normal result; NaN for NaN.
// x = n ln2 + r with |r| <= ln2/2; exp(r) = 1 + r + r² q(r), q the polynomial with the smallest
// largest relative error over that range (3e-9).
inline VF exp_nonpositive(VF x) {
  const float magic = 12582912.0f;  // 1.5·2^23: adding it leaves n in the low bits
  const VF shifted = multiply_add(x, splat(1.44269504088896341f), splat(magic));
  const VF n = shifted - magic;
  VF r = multiply_add(n, splat(-0.693145751953125f), x);  // ln2 in two parts: 16 bits and the rest
  r = multiply_add(n, splat(-1.42860682030941723e-6f), r);
  VF q = splat(0.0013814598646782108f);
  q = multiply_add(q, r, splat(0.008368716879671135f));
  q = multiply_add(q, r, splat(0.041668388045308466f));
  q = multiply_add(q, r, splat(0.16666520631709966f));
  q = multiply_add(q, r, splat(0.4999999344779652f));
  const VF e = multiply_add(q, r * r, r) + 1.0f;
  const VF power = (VF)(((VI)shifted << 23) + 0x3f800000);  // 2^n
  // The comparison is written so that NaN passes it.
  return (VF)((VI)(e * power) & ~(VI)(x < -87.33654f));
}

inline VD exp_nonpositive(VD x) {
  const double magic = 6755399441055744.0;  // 1.5·2^52
  const VD shifted = multiply_add(x, splat(1.44269504088896340736), splat(magic));
  const VD n = shifted - magic;
  VD r = multiply_add(n, splat(-6.93147180369123816490e-01), x);
  r = multiply_add(n, splat(-1.90821492927058770002e-10), r);
  VD p = splat(1.0 / 6227020800.0);  // 1/13!
  constexpr double kTerms[] = {
      1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      0.5};
  for (double term : kTerms) p = multiply_add(p, r, splat(term));
  p = multiply_add(p, r * r, r) + 1.0;
  const VD power = (VD)(((VL)shifted << 52) + 0x3ff0000000000000);
  return (VD)((VL)(p * power) & ~(VL)(x < -708.39641853226408));
}

template <typename A>
inline double lane_sum(VecOf<A> v) {
  double sum = 0;
  for (int i = 0; i < kLanes<A>; ++i) sum += v[i];
  return sum;
}

template <typename L>
inline acc_t<L> chunk_max(const L* z, int64_t n) {
  using A = acc_t<L>;
  constexpr int kStep = kLanes<A>;
  const A low = -__builtin_inf();
  VecOf<A> m0 = splat(low), m1 = m0, m2 = m0, m3 = m0;
  int64_t i = 0;
  for (; i + 4 * kStep <= n; i += 4 * kStep) {
    m0 = maximum<A>(load(z + i), m0);
    m1 = maximum<A>(load(z + i + kStep), m1);
    m2 = maximum<A>(load(z + i + 2 * kStep), m2);
    m3 = maximum<A>(load(z + i + 3 * kStep), m3);
  }
  for (; i + kStep <= n; i += kStep) m0 = maximum<A>(load(z + i), m0);
  m0 = maximum<A>(maximum<A>(m0, m1), maximum<A>(m2, m3));
  A m = low;
  for (int k = 0; k < kStep; ++k) m = m0[k] > m ? m0[k] : m;
  for (; i < n; ++i) m = to_float(z[i]) > m ? to_float(z[i]) : m;
  return m;
}

template <typename A>
struct ChunkSums {
  VecOf<A> exp[2] = {}, shifted[2] = {}, target[2] = {}, product[2] = {};

  // Moves everything into `total` and starts again from zero. Sums of a few terms added up lose
  // far fewer digits than one long sum.
  template <bool kShifted, bool kDense>
  void flush(ChunkSums& total) {
    for (int k = 0; k < 2; ++k) {
      total.exp[k] += exp[k];
      if constexpr (kShifted) total.shifted[k] += shifted[k];
      if constexpr (kDense) total.target[k] += target[k], total.product[k] += product[k];
    }
    *this = {};
  }
};

// One vector: x = z - m, into accumulator set k. Two sets hide the latency of the additions.
template <bool kShifted, bool kDense, typename A>
inline void add_vector(ChunkSums<A>& sums, int k, VecOf<A> x, VecOf<A> t) {
  sums.exp[k] += exp_nonpositive(x);
  if constexpr (kShifted) sums.shifted[k] += x;
  if constexpr (kDense) {
    sums.target[k] += t;
    // t = 0 drops its term: no 0·(-inf).
    sums.product[k] += (VecOf<A>)((BitsOf<A>)(t * x) & (BitsOf<A>)(t != 0));
  }
}

template <bool kShifted, bool kDense, typename L, typename T>
RowSums forward_row(const L* z, const T* target, int64_t k) {
  using A = acc_t<L>;
  constexpr int kStep = kLanes<A>;
  constexpr int64_t kChunk = 2048;  // 8 KiB of float: stays in the first-level cache
  RowSums row = {-__builtin_inf(), 0, 0, 0, 0};
  for (int64_t begin = 0; begin < k; begin += kChunk) {
    const int64_t n = k - begin < kChunk ? k - begin : kChunk;
    const L* zc = z + begin;
    const T* tc = kDense ? target + begin : nullptr;
    const double m = chunk_max(zc, n);
    if (m > row.max) {
      // Sums so far move to the new maximum. A maximum of -inf has nothing finite to move.
      if (row.max > -__builtin_inf()) {
        const double step = row.max - m;
        row.exp *= __builtin_exp(step);
        if (kShifted) row.shifted += double(begin) * step;
        if (kDense) row.product += row.target * step;
      }
      row.max = m;
    }
    if (row.max == -__builtin_inf()) {  // z - m would be NaN here; the terms are 0 and -inf
      for (int64_t i = 0; i < n; ++i) {
        if (to_float(zc[i]) != to_float(zc[i])) row.exp = __builtin_nan("");
        if constexpr (kDense) {
          const double t = to_float(tc[i]);
          row.target += t;
          if (t != 0) row.product += t * -__builtin_inf();
        }
      }
      if (kShifted) row.shifted = -__builtin_inf();
      continue;
    }
    const A shift = A(row.max);
    ChunkSums<A> sums, few;
    const VecOf<A> none = splat(A(0));
    int64_t i = 0;
    while (i + 2 * kStep <= n) {
      const int64_t pause = i + 32 * kStep < n - 2 * kStep + 1 ? i + 32 * kStep : n - 2 * kStep + 1;
      for (; i < pause; i += 2 * kStep) {
        // The next chunk (or row) comes in while this one is computed; past the end: harmless.
        __builtin_prefetch(zc + i + kChunk);
        VecOf<A> t0 = none, t1 = none;
        if constexpr (kDense) t0 = load(tc + i), t1 = load(tc + i + kStep);
        add_vector<kShifted, kDense, A>(few, 0, load(zc + i) - shift, t0);
        add_vector<kShifted, kDense, A>(few, 1, load(zc + i + kStep) - shift, t1);
      }
      few.template flush<kShifted, kDense>(sums);
    }
    for (; i < n; i += kStep) {
      const int64_t part = n - i < kStep ? n - i : kStep;
      VecOf<A> x = load_part<A>(zc + i, part) - shift, t = none;
      if constexpr (kDense) t = load_part<A>(tc + i, part);
      if (part < kStep) {
        // Lanes past the end: exp 0, shifted 0 (t is 0 there already).
        VecOf<A> e = exp_nonpositive(x);
        for (int64_t lane = part; lane < kStep; ++lane) e[lane] = x[lane] = 0;
        sums.exp[0] += e;
        if constexpr (kShifted) sums.shifted[0] += x;
        if constexpr (kDense) {
          sums.target[0] += t;
          sums.product[0] += (VecOf<A>)((BitsOf<A>)(t * x) & (BitsOf<A>)(t != 0));
        }
      } else {
        add_vector<kShifted, kDense, A>(sums, 0, x, t);
      }
    }
    row.exp += lane_sum<A>(sums.exp[0]) + lane_sum<A>(sums.exp[1]);
    if (kShifted) row.shifted += lane_sum<A>(sums.shifted[0]) + lane_sum<A>(sums.shifted[1]);
    if (kDense) {
      row.target += lane_sum<A>(sums.target[0]) + lane_sum<A>(sums.target[1]);
      row.product += lane_sum<A>(sums.product[0]) + lane_sum<A>(sums.product[1]);
    }
  }
  return row;
}

template <typename L, typename T>
RowSums loss_forward(const L* z, const T* target, int64_t k, bool want_shifted) {
  if (target != nullptr) {
    return want_shifted ? forward_row<true, true>(z, target, k)
                        : forward_row<false, true>(z, target, k);
  }
  return want_shifted ? forward_row<true, false>(z, target, k)
                      : forward_row<false, false>(z, target, k);
}

template <bool kDense, typename L, typename T>
void backward_row(L* grad, const L* z, const T* target, int64_t k, acc_t<L> max, acc_t<L> log_sum,
                  acc_t<L> p_scale, acc_t<L> t_scale, acc_t<L> constant) {
  using A = acc_t<L>;
  using V = VecOf<A>;
  constexpr int kStep = kLanes<A>;
  // Two subtractions, never max + log_sum in one: far from zero that sum has no low bits left.
  const auto entry = [=](V v, V t) {
    const V p = exp_nonpositive((v - max) - log_sum);
    if constexpr (!kDense) return multiply_add(p, splat(p_scale), splat(-constant));
    return p * p_scale - (t * t_scale + constant);
  };
  const auto whole = [=](int64_t i) {
    if constexpr (kDense) return entry(load(z + i), load(target + i));
    return entry(load(z + i), V{});
  };
  int64_t i = 0;
  for (; i + 2 * kStep <= k; i += 2 * kStep) {
    const V g0 = whole(i), g1 = whole(i + kStep);
    store(grad + i, g0);
    store(grad + i + kStep, g1);
  }
  for (; i < k; i += kStep) {
    const int64_t part = k - i < kStep ? k - i : kStep;
    V t = {};
    if constexpr (kDense) t = load_part<A>(target + i, part);
    store_part<A>(grad + i, entry(load_part<A>(z + i, part), t), part);
  }
}

template <typename L, typename T>
void loss_backward(L* grad, const L* z, const T* target, int64_t k, acc_t<L> max, acc_t<L> log_sum,
                   acc_t<L> p_scale, acc_t<L> t_scale, acc_t<L> constant) {
  const auto row = target != nullptr ? backward_row<true, L, T> : backward_row<false, L, T>;
  row(grad, z, target, k, max, log_sum, p_scale, t_scale, constant);
}

template <typename L, typename T>
constexpr LossKernels<L, T> loss_table() {
  return {loss_forward<L, T>, loss_backward<L, T>};
}
