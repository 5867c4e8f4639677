// Soft-target cross-entropy of one row of adjacent classes, for one instruction set.
//
// Forward: one sweep, one read. Backward: one sweep, one read and one write.
//
// kShifted, kDense: whether to take those sums of RowSums. kWeighted: whether the sums that are
// taken have class weights.

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
  VecOf<A> exp[2] = {}, shifted[2] = {}, target[2] = {}, product[2] = {}, weight[2] = {};

  // Moves everything into `total` and starts again from zero. Adding sums of a few terms each loses
  // far fewer digits than one long sum.
  template <bool kShifted, bool kDense, bool kWeighted>
  void flush(ChunkSums& total) {
    for (int k = 0; k < 2; ++k) {
      total.exp[k] += exp[k];
      if constexpr (kShifted) total.shifted[k] += shifted[k];
      if constexpr (kShifted && kWeighted) total.weight[k] += weight[k];
      if constexpr (kDense) total.target[k] += target[k], total.product[k] += product[k];
    }
    *this = {};
  }
};

// Adds one vector, x = z - m, to accumulator set k. Two sets hide the latency of the additions.
template <bool kShifted, bool kDense, bool kWeighted, typename A>
FUSED_MIXUP_INLINE void add_vector(ChunkSums<A>& sums, int k, VecOf<A> x, VecOf<A> t, VecOf<A> w) {
  const Exp<A> e = exp_parts(x);
  sums.exp[k] = multiply_add(e.factor, e.power, sums.exp[k]);
  if constexpr (kShifted) sums.shifted[k] += kWeighted ? term_of<A>(w, x) : x;
  if constexpr (kShifted && kWeighted) sums.weight[k] += w;
  if constexpr (kDense) {
    if constexpr (kWeighted) t = term_of<A>(w, t);
    sums.target[k] += t;
    // t = 0 drops its term: no 0·(-inf).
    sums.product[k] += (VecOf<A>)((BitsOf<A>)(t * x) & (BitsOf<A>)(t != 0));
  }
}

// Adds a chunk whose logits are all -inf (or NaN), before any other logit has been seen.
template <bool kShifted, bool kDense, bool kWeighted, typename L, typename T>
void add_lowest(RowSums& row, const L* z, const T* target, const acc_t<L>* class_weight,
                int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double w = kWeighted ? class_weight[i] : 1;
    if (to_float(z[i]) != to_float(z[i])) row.exp = __builtin_nan("");
    if (kShifted && w != 0) row.shifted += w * -__builtin_inf();
    if constexpr (kShifted && kWeighted) row.weight += w;
    if constexpr (kDense) {
      const double t = to_float(target[i]);
      if (t == 0 || w == 0) continue;
      row.target += t * w;
      row.product += t * w * -__builtin_inf();
    }
  }
}

// Adds the sums of one chunk, relative to `shift`, to `row`. Returns the chunk's maximum.
template <bool kShifted, bool kDense, bool kWeighted, typename L, typename T>
acc_t<L> add_chunk(RowSums& row, const L* z, const T* target, const acc_t<L>* class_weight,
                   int64_t n, acc_t<L> shift) {
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
      fetch_ahead<2 * kStep>(z + i);
      if constexpr (kDense) fetch_ahead<2 * kStep>(target + i);
      const V z0 = load(z + i), z1 = load(z + i + kStep);
      V t0 = none, t1 = none, w0 = none, w1 = none;
      if constexpr (kDense) t0 = load(target + i), t1 = load(target + i + kStep);
      if constexpr (kWeighted) w0 = load(class_weight + i), w1 = load(class_weight + i + kStep);
      most = maximum<A>(maximum<A>(z0, z1), most);
      add_vector<kShifted, kDense, kWeighted, A>(few, 0, z0 - shift, t0, w0);
      add_vector<kShifted, kDense, kWeighted, A>(few, 1, z1 - shift, t1, w1);
    }
    few.template flush<kShifted, kDense, kWeighted>(sums);
  }
  for (; i < n; i += kStep) {
    const int64_t part = n - i < kStep ? n - i : kStep;
    // Lanes past the end hold -inf, with exp(-inf) = 0; their t and w are 0.
    const V values = load_part<A>(z + i, part, from_float<L>(A(-__builtin_inf())));
    const V x = values - shift;
    V t = none, w = none;
    if constexpr (kDense) t = load_part<A>(target + i, part);
    if constexpr (kWeighted) w = load_part<A>(class_weight + i, part);
    most = maximum<A>(values, most);
    if constexpr (kShifted && !kWeighted) {
      sums.shifted[0] += load_part<A>(z + i, part, from_float<L>(shift)) - shift;
    }
    add_vector<kShifted && kWeighted, kDense, kWeighted, A>(sums, 0, x, t, w);
  }
  row.exp += lane_sum<A>(sums.exp[0]) + lane_sum<A>(sums.exp[1]);
  if (kShifted) row.shifted += lane_sum<A>(sums.shifted[0]) + lane_sum<A>(sums.shifted[1]);
  if (kShifted && kWeighted)
    row.weight += lane_sum<A>(sums.weight[0]) + lane_sum<A>(sums.weight[1]);
  if (!kWeighted) row.weight += double(n);
  if (kDense) {
    row.target += lane_sum<A>(sums.target[0]) + lane_sum<A>(sums.target[1]);
    row.product += lane_sum<A>(sums.product[0]) + lane_sum<A>(sums.product[1]);
  }
  A m = most[0];
  for (int k = 1; k < kStep; ++k) m = most[k] > m ? most[k] : m;
  return m;
}

// Moves the sums from one shift to another.
template <bool kShifted, bool kDense>
void move_sums(RowSums& row, double from, double to) {
  row.exp *= __builtin_exp(from - to);
  if (kShifted) row.shifted += row.weight * (from - to);
  if (kDense) row.product += row.target * (from - to);
}

// The first chunk is read for its maximum, which becomes the shift; any value near the maximum of
// the row can be one. Later chunks are summed relative to it. A chunk that goes too far beyond it
// is summed again with a new shift.
template <bool kShifted, bool kDense, bool kWeighted, typename L, typename T>
RowSums forward_row(const L* z, const T* target, const acc_t<L>* class_weight, int64_t k,
                    Ranking* ranking) {
  using A = acc_t<L>;
  constexpr int64_t kChunk = 2048;  // 8 KiB of float, which stay in the first-level cache
  constexpr A kFar = 40;            // exp(40) times a chunk is far below the largest float
  const A low = -__builtin_inf();
  RowSums row = {low, 0, 0, 0, 0, 0};
  A shift = low;
  for (int64_t begin = 0; begin < k; begin += kChunk) {
    const int64_t n = k - begin < kChunk ? k - begin : kChunk;
    const L* zc = z + begin;
    const T* tc = kDense ? target + begin : nullptr;
    const A* wc = kWeighted ? class_weight + begin : nullptr;
    if (shift == low) shift = chunk_max(zc, n);
    if (ranking != nullptr) rank_chunk(zc, begin, n, *ranking);
    if (shift == low) {  // z - shift would be NaN; all terms so far are 0 or -inf
      add_lowest<kShifted, kDense, kWeighted>(row, zc, tc, wc, n);
      continue;
    }
    const RowSums before = row;
    A m = add_chunk<kShifted, kDense, kWeighted>(row, zc, tc, wc, n, shift);
    if (m > shift + kFar) {
      row = before;
      // Sums over -inf alone have nothing finite to move.
      if (before.max > low) move_sums<kShifted, kDense>(row, shift, m);
      shift = m;
      add_chunk<kShifted, kDense, kWeighted>(row, zc, tc, wc, n, shift);
    }
    if (m > row.max) row.max = m;
  }
  if (row.max > low && A(row.max) != shift) move_sums<kShifted, kDense>(row, shift, row.max);
  return row;
}

template <typename L, typename T>
RowSums loss_forward(const L* z, const T* target, const acc_t<L>* class_weight, int64_t k,
                     bool want_shifted, Ranking* ranking) {
  const bool weighted = class_weight != nullptr;
  if (target != nullptr) {
    const auto row = want_shifted ? weighted ? forward_row<true, true, true, L, T>
                                             : forward_row<true, true, false, L, T>
                     : weighted   ? forward_row<false, true, true, L, T>
                                  : forward_row<false, true, false, L, T>;
    return row(z, target, class_weight, k, ranking);
  }
  if (!want_shifted) return forward_row<false, false, false>(z, target, class_weight, k, ranking);
  const auto row =
      weighted ? forward_row<true, false, true, L, T> : forward_row<true, false, false, L, T>;
  return row(z, target, class_weight, k, ranking);
}

template <bool kDense, bool kWeighted, typename L, typename T>
void backward_row(L* grad, const L* z, const T* target, const acc_t<L>* class_weight, int64_t k,
                  const RowScales<acc_t<L>>& scales) {
  using A = acc_t<L>;
  using V = VecOf<A>;
  constexpr int kStep = kLanes<A>;
  const A max = scales.max, log_sum = scales.log_sum, p_scale = scales.p_scale;
  const A t_scale = scales.t_scale, constant = scales.constant;
  // Two subtractions, and never z - (max + log_sum): far from zero that sum has lost its low bits.
  const auto entry = [=](V v, V t, V w) {
    const Exp<A> e = exp_parts((v - max) - log_sum);
    const V p = e.factor * e.power;
    if constexpr (!kDense && !kWeighted) return multiply_add(p, splat(p_scale), splat(-constant));
    V off = splat(constant);
    if constexpr (kDense) off += t * t_scale;
    if constexpr (kWeighted) off = term_of<A>(w, off);
    return p * p_scale - off;
  };
  const auto whole = [=](int64_t i) {
    V t = {}, w = {};
    if constexpr (kDense) t = load(target + i);
    if constexpr (kWeighted) w = load(class_weight + i);
    return entry(load(z + i), t, w);
  };
  const auto partial = [=](int64_t i, int64_t n) {
    V t = {}, w = {};
    if constexpr (kDense) t = load_part<A>(target + i, n);
    if constexpr (kWeighted) w = load_part<A>(class_weight + i, n);
    store_part<A>(grad + i, entry(load_part<A>(z + i, n), t, w), n);
  };
  int64_t i = 0;
  for (; i + 2 * kStep <= k; i += 2 * kStep) {
    fetch_ahead<2 * kStep>(z + i);
    if constexpr (kDense) fetch_ahead<2 * kStep>(target + i);
    fetch_ahead_to_write<2 * kStep>(grad + i);
    if constexpr (!kDense && !kWeighted) {
      const auto plain = [&](V v, V) { return entry(v, V{}, V{}); };
      const Two<A> two = load_two<A>(z + i);
      store_two(grad + i, Two<A>::of(two, two, plain));
    } else {
      const V g0 = whole(i), g1 = whole(i + kStep);
      store(grad + i, g0);
      store(grad + i + kStep, g1);
    }
  }
  for (; i < k; i += kStep) partial(i, k - i < kStep ? k - i : kStep);
}

template <typename L, typename T>
void loss_backward(L* grad, const L* z, const T* target, const acc_t<L>* class_weight, int64_t k,
                   const RowScales<acc_t<L>>& scales) {
  const bool weighted = class_weight != nullptr;
  const auto row = target != nullptr
                       ? weighted ? backward_row<true, true, L, T> : backward_row<true, false, L, T>
                   : weighted ? backward_row<false, true, L, T>
                              : backward_row<false, false, L, T>;
  row(grad, z, target, class_weight, k, scales);
}
