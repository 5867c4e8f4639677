// Soft-target cross-entropy of one row, for one instruction set.
//
// Forward: one sweep, one read. Backward: one sweep, one read and one write.

// exp(x) = factor · power to about 1 ulp for x <= 60, with power = 2^n a power of two and 0 from
// x = -88 (float) or -709 (double) down; NaN for NaN. In two parts, as the last product often joins
// an addition. x = n ln2 + r with |r| <= ln2/2.
template <typename A>
struct Exp {
  VecOf<A> factor, power;
};

// exp(r) = 1 + r + r² q(r), q the polynomial with the smallest largest relative error (3e-9).
inline Exp<float> exp_parts(VF x) {
  const VF kept = maximum<float>(splat(-88.0f), x);  // in this order NaN is kept
  const float magic = 12582912.0f;                   // 1.5·2^23: leaves n in the low bits
  const VF shifted = multiply_add(kept, splat(1.44269504088896341f), splat(magic));
  const VF n = shifted - magic;
  // ln2 in one part: r is off by n·1e-8, which matters only to results too small to matter. What
  // limits this loop is the length of its chain of dependent steps.
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

inline Exp<double> exp_parts(VD x) {
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
  const Exp<A> e = exp_parts(x);
  sums.exp[k] = multiply_add(e.factor, e.power, sums.exp[k]);
  if constexpr (kShifted) sums.shifted[k] += x;
  if constexpr (kDense) {
    sums.target[k] += t;
    // t = 0 drops its term: no 0·(-inf).
    sums.product[k] += (VecOf<A>)((BitsOf<A>)(t * x) & (BitsOf<A>)(t != 0));
  }
}

// A chunk whose logits are all -inf (or NaN), before any other.
template <bool kShifted, bool kDense, typename L, typename T>
void add_lowest(RowSums& row, const L* z, const T* target, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (to_float(z[i]) != to_float(z[i])) row.exp = __builtin_nan("");
    if constexpr (kDense) {
      const double t = to_float(target[i]);
      row.target += t;
      if (t != 0) row.product += t * -__builtin_inf();
    }
  }
  if (kShifted) row.shifted = -__builtin_inf();
}

// The sums of one chunk relative to `shift`, added to `row`; the chunk's maximum.
template <bool kShifted, bool kDense, typename L, typename T>
acc_t<L> add_chunk(RowSums& row, const L* z, const T* target, int64_t n, acc_t<L> shift) {
  using A = acc_t<L>;
  using V = VecOf<A>;
  constexpr int kStep = kLanes<A>;
  ChunkSums<A> sums, few;
  const V none = splat(A(0));
  V most = splat(A(-__builtin_inf()));
  int64_t i = 0;
  while (i + 2 * kStep <= n) {
    const int64_t last = n - 2 * kStep + 1;
    const int64_t pause = i + 32 * kStep < last ? i + 32 * kStep : last;
    for (; i < pause; i += 2 * kStep) {
      const V z0 = load(z + i), z1 = load(z + i + kStep);
      V t0 = none, t1 = none;
      if constexpr (kDense) t0 = load(target + i), t1 = load(target + i + kStep);
      most = maximum<A>(maximum<A>(z0, z1), most);
      add_vector<kShifted, kDense, A>(few, 0, z0 - shift, t0);
      add_vector<kShifted, kDense, A>(few, 1, z1 - shift, t1);
    }
    few.template flush<kShifted, kDense>(sums);
  }
  for (; i < n; i += kStep) {
    const int64_t part = n - i < kStep ? n - i : kStep;
    // Lanes past the end: exp(-inf) = 0; their t is 0.
    const V values = load_part<A>(z + i, part, from_float<L>(A(-__builtin_inf())));
    V x = values - shift, t = none;
    if constexpr (kDense) t = load_part<A>(target + i, part);
    most = maximum<A>(values, most);
    if constexpr (kShifted) {
      sums.shifted[0] += load_part<A>(z + i, part, from_float<L>(shift)) - shift;
    }
    add_vector<false, kDense, A>(sums, 0, x, t);
  }
  row.exp += lane_sum<A>(sums.exp[0]) + lane_sum<A>(sums.exp[1]);
  if (kShifted) row.shifted += lane_sum<A>(sums.shifted[0]) + lane_sum<A>(sums.shifted[1]);
  if (kDense) {
    row.target += lane_sum<A>(sums.target[0]) + lane_sum<A>(sums.target[1]);
    row.product += lane_sum<A>(sums.product[0]) + lane_sum<A>(sums.product[1]);
  }
  A m = most[0];
  for (int k = 1; k < kStep; ++k) m = most[k] > m ? most[k] : m;
  return m;
}

// Moves the sums over the first `count` elements from one shift to another.
template <bool kShifted, bool kDense>
void move_sums(RowSums& row, int64_t count, double from, double to) {
  row.exp *= __builtin_exp(from - to);
  if (kShifted) row.shifted += double(count) * (from - to);
  if (kDense) row.product += row.target * (from - to);
}

// The first chunk is looked through for its maximum. Later ones are summed relative to the same
// shift, which any value near the maximum can be; one that goes too far beyond is summed again.
template <bool kShifted, bool kDense, typename L, typename T>
RowSums forward_row(const L* z, const T* target, int64_t k) {
  using A = acc_t<L>;
  constexpr int64_t kChunk = 2048;  // 8 KiB of float: still in the first-level cache if read again
  constexpr A kFar = 40;            // exp(40) times a chunk is far from the largest float
  const A low = -__builtin_inf();
  RowSums row = {low, 0, 0, 0, 0};
  A shift = low;
  for (int64_t begin = 0; begin < k; begin += kChunk) {
    const int64_t n = k - begin < kChunk ? k - begin : kChunk;
    const L* zc = z + begin;
    const T* tc = kDense ? target + begin : nullptr;
    if (shift == low) shift = chunk_max(zc, n);
    if (shift == low) {  // z - shift would be NaN: all terms so far are 0 or -inf
      add_lowest<kShifted, kDense>(row, zc, tc, n);
      continue;
    }
    const RowSums before = row;
    A m = add_chunk<kShifted, kDense>(row, zc, tc, n, shift);
    if (m > shift + kFar) {
      row = before;
      // Sums of -inf chunks alone have nothing finite to move.
      if (before.max > low) move_sums<kShifted, kDense>(row, begin, shift, m);
      shift = m;
      add_chunk<kShifted, kDense>(row, zc, tc, n, shift);
    }
    if (m > row.max) row.max = m;
  }
  if (row.max > low && A(row.max) != shift) move_sums<kShifted, kDense>(row, k, shift, row.max);
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
    const Exp<A> e = exp_parts((v - max) - log_sum);
    const V p = e.factor * e.power;
    if constexpr (!kDense) return multiply_add(p, splat(p_scale), splat(-constant));
    return p * p_scale - (t * t_scale + constant);
  };
  const auto whole = [=](int64_t i) {
    if constexpr (kDense) return entry(load(z + i), load(target + i));
    return entry(load(z + i), V{});
  };
  const auto partial = [=](int64_t i, int64_t n) {
    V t = {};
    if constexpr (kDense) t = load_part<A>(target + i, n);
    store_part<A>(grad + i, entry(load_part<A>(z + i, n), t), n);
  };
  int64_t i = 0;
  for (; i + 2 * kStep <= k; i += 2 * kStep) {
    const V g0 = whole(i), g1 = whole(i + kStep);
    store(grad + i, g0);
    store(grad + i + kStep, g1);
  }
  for (; i < k; i += kStep) partial(i, k - i < kStep ? k - i : kStep);
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
