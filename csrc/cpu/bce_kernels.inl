// Binary cross-entropy of a run of adjacent logits, for one instruction set: the loss, its
// gradient, or both from one exp. With L = log(1 + e^-|x|), and q the weight of positives:
//     loss = w ((x < 0 ? -q t : 1 - t) x + (1 + (q-1) t) L)
//     d loss / d x = w ((1 + (q-1) t) σ(x) - q t)
// In neither of them x cancels against softplus(-x), or 1 against σ(-x).

enum RunTarget { kConstant, kDenseTarget, kLabels };

// kArrays: whether class_weights, pos_weights, loss or upstream may be given. Most runs have none
// of them, and then everything but the logits stays in registers.
template <RunTarget kKind, bool kLoss, bool kGrad, bool kArrays, typename L, typename T>
struct BinaryVector {
  using A = acc_t<L>;
  using V = VecOf<A>;
  using Bits = BitsOf<A>;
  const BinaryRun<L, T>& run;
  const L* const x = run.x;
  L* const grad = run.grad;
  const T* const dense = run.dense;
  const bool binarize = run.binarize;
  const V threshold = splat(run.threshold), base = splat(run.base), scale = splat(run.scale);
  const V class_weight = splat(run.class_weight), pos_weight = splat(run.pos_weight);

  // n: how many of the lanes belong to the run.
  FUSED_MIXUP_INLINE V read_or(const A* p, V otherwise, int64_t i, int64_t n) const {
    return !kArrays || p == nullptr ? otherwise : load_up_to<A>(p + i, n);
  }

  FUSED_MIXUP_INLINE V target(int64_t i, int64_t n) const {
    if constexpr (kKind == kConstant) return base;
    if constexpr (kKind == kDenseTarget) {
      const V t = load_up_to<A>(dense + i, n);
      return binarize ? select<A>((Bits)(t > threshold), splat(A(1)), V{}) : t;
    }
    if constexpr (kKind == kLabels) {
      const BinaryColumnLabels<A>& labels = *run.labels;
      const Bits label = Bits{} + run.label;
      const Bits own = (Bits)(bit_load<Bits>(labels.own + i) == label);
      const Bits partner = (Bits)(bit_load<Bits>(labels.partner + i) == label);
      const V one = select<A>(own, splat(labels.at_own), splat(labels.at_partner));
      const V hit = select<A>(own & partner, splat(labels.at_both), one);
      return select<A>(own | partner, hit, load(labels.base + i));
    }
  }

  // Writes what is asked for, for n elements from i on. Returns their losses.
  FUSED_MIXUP_INLINE V step(int64_t i, int64_t n) const {
    const V z = load_up_to<A>(x + i, n), t = target(i, n);
    const V w = read_or(run.class_weights, class_weight, i, n);
    const V q = read_or(run.pos_weights, pos_weight, i, n);
    const V qt = q * t, slope = (1 - t) + qt;
    const Bits negative = (Bits)(z < 0);
    const Exp<A> parts = exp_parts(select<A>(negative, z, -z));
    const V e = parts.factor * parts.power;
    V loss = {};
    if constexpr (kLoss) {
      loss = w * multiply_add(slope, log1p_of(e), select<A>(negative, -qt, 1 - t) * z);
      if (kArrays && run.loss != nullptr) {
        const V before = run.add ? load_up_to<A>(run.loss + i, n) : V{};
        store_up_to<A>(run.loss + i, before + loss, n);
      }
    }
    if constexpr (kGrad) {
      const V sigmoid = select<A>(negative, e, splat(A(1))) / (1 + e);
      const V by = w * (read_or(run.upstream, splat(A(1)), i, n) * scale);
      store_up_to<A>(grad + i, by * multiply_add(slope, sigmoid, -qt), n);
    }
    return loss;
  }
};

template <RunTarget kKind, bool kLoss, bool kGrad, bool kArrays, typename L, typename T>
double binary_run_of(const BinaryRun<L, T>& run) {
  using A = acc_t<L>;
  using V = VecOf<A>;
  constexpr int kStep = kLanes<A>;
  const BinaryVector<kKind, kLoss, kGrad, kArrays, L, T> vector = {run};
  double total = 0;
  int64_t i = 0;
  while (i + 2 * kStep <= run.n) {
    // Adding sums of a few terms each loses far fewer digits than one long sum.
    const int64_t last = run.n - 2 * kStep + 1;
    const int64_t end = i + 256 * kStep < last ? i + 256 * kStep : last;
    V sum0 = {}, sum1 = {};
    while (i < end) {
      const int64_t pause = i + 32 * kStep < end ? i + 32 * kStep : end;
      V few0 = {}, few1 = {};
      for (; i < pause; i += 2 * kStep) {
        fetch_ahead<2 * kStep>(run.x + i);
        if constexpr (kKind == kDenseTarget) fetch_ahead<2 * kStep>(run.dense + i);
        if constexpr (kGrad) fetch_ahead_to_write<2 * kStep>(run.grad + i);
        few0 += vector.step(i, kStep);
        few1 += vector.step(i + kStep, kStep);
      }
      sum0 += few0, sum1 += few1;
    }
    if constexpr (kLoss) total += lane_sum<A>(sum0) + lane_sum<A>(sum1);
  }
  for (; i < run.n; i += kStep) {
    const int64_t part = run.n - i < kStep ? run.n - i : kStep;
    const V losses = vector.step(i, part);
    for (int64_t j = 0; kLoss && j < part; ++j) total += losses[j];
  }
  return total;
}

template <RunTarget kKind, bool kArrays, typename L, typename T>
double binary_run_with(const BinaryRun<L, T>& run) {
  const bool loss = run.sum || run.loss != nullptr;
  const auto run_of = run.grad == nullptr ? binary_run_of<kKind, true, false, kArrays, L, T>
                      : loss              ? binary_run_of<kKind, true, true, kArrays, L, T>
                                          : binary_run_of<kKind, false, true, kArrays, L, T>;
  return run_of(run);
}

template <RunTarget kKind, typename L, typename T>
double binary_run_for(const BinaryRun<L, T>& run) {
  const bool arrays = run.class_weights != nullptr || run.pos_weights != nullptr ||
                      run.loss != nullptr || run.upstream != nullptr;
  return arrays ? binary_run_with<kKind, true>(run) : binary_run_with<kKind, false>(run);
}

// A run with one target for all elements, as the classes of a sparse target's row have but for the
// labels. Factors that all elements share are multiplied once, at the end.
//     Σ loss = w ((1 - t) Σ max(x, 0) - q t Σ min(x, 0) + (1 + (q-1) t) Σ L)
template <bool kLoss, bool kGrad, typename L, typename T>
double constant_run(const BinaryRun<L, T>& run) {
  using A = acc_t<L>;
  using V = VecOf<A>;
  using Bits = BitsOf<A>;
  constexpr int kStep = kLanes<A>;
  const A t = run.base, qt = run.pos_weight * t, slope = (1 - t) + qt;
  const A by = run.class_weight * run.scale;
  const Bits sign = Bits{} + (bits_t<A>(1) << (8 * sizeof(A) - 1));
  const V sigmoid_by = splat(by * slope), minus = splat(-(by * qt));
  const L* const x = run.x;
  L* const grad = run.grad;
  LaneSums<A> above, below, curved;
  // The exps of a block stay in the first-level cache. Two short loops overlap more of their steps
  // than one long loop, whose chain of dependent steps fills the processor's window.
  constexpr int kBlock = 64;
  static_assert(kBlock <= LogOfProduct<A>::kMost);
  V exps[kBlock];
  // Works on `vectors` vectors from element i on; the last has `lanes` lanes in the run.
  const auto block = [&](int64_t i, int vectors, int64_t lanes) {
    for (int j = 0; j < vectors; ++j) {
      fetch_ahead(x + i + j * kStep);
      if constexpr (kGrad) fetch_ahead_to_write(grad + i + j * kStep);
      const V z = load_up_to<A>(x + i + j * kStep, lanes);
      const Exp<A> parts = exp_parts((V)((Bits)z | sign));  // -|z|
      exps[j] = parts.factor * parts.power;
    }
    // Two accumulators for each sum, as an addition takes longer than an iteration.
    LogOfProduct<A> product;
    V positive[2] = {}, negative[2] = {};
    const auto take = [&](int j) __attribute__((always_inline)) {
      const V z = load_up_to<A>(x + i + j * kStep, lanes), u = exps[j];
      const Bits signs = sign_mask<A>(z);
      positive[j % 2] += (V)((Bits)z & ~signs);
      negative[j % 2] += (V)((Bits)z & signs);
      if constexpr (kGrad) {
        const V sigmoid = by_sign<A>(z, u, splat(A(1))) / (1 + u);
        store_up_to<A>(grad + i + j * kStep, multiply_add(sigmoid, sigmoid_by, minus), lanes);
      }
      return u;
    };
    int j = 0;
    for (; j + 4 <= vectors; j += 4) {
      V u[4];
      for (int k = 0; k < 4; ++k) u[k] = take(j + k);
      product.multiply(joined(joined(u[0], u[1]), joined(u[2], u[3])));
    }
    for (; j < vectors; ++j) product.multiply(take(j));
    if constexpr (kLoss) {
      above.add(positive[0] + positive[1], lanes);
      below.add(negative[0] + negative[1], lanes);
      curved.add(product.log(), lanes);
    }
  };
  int64_t i = 0;
  while (i + kStep <= run.n) {
    const int64_t left = (run.n - i) / kStep;
    const int vectors = left < kBlock ? int(left) : kBlock;
    block(i, vectors, kStep);
    i += vectors * kStep;
  }
  if (i < run.n) block(i, 1, run.n - i);
  return run.class_weight * ((1 - double(t)) * above.total() - double(qt) * below.total() +
                             double(slope) * curved.total());
}

template <typename L, typename T>
double focal_run(const BinaryRun<L, T>& run);  // bce_focal.inl

template <typename L, typename T>
double binary_run(const BinaryRun<L, T>& run) {
  if (run.gamma != 0) return focal_run(run);
  if (run.dense != nullptr) return binary_run_for<kDenseTarget>(run);
  if (run.labels != nullptr) return binary_run_for<kLabels>(run);
  if (run.class_weights != nullptr || run.pos_weights != nullptr || run.loss != nullptr ||
      run.upstream != nullptr) {
    return binary_run_with<kConstant, true>(run);
  }
  if (run.grad == nullptr) return constant_run<true, false>(run);
  return run.sum ? constant_run<true, true>(run) : constant_run<false, true>(run);
}

template <typename L, typename T>
constexpr BinaryKernels<L, T> binary_table() {
  return {binary_run<L, T>};
}
