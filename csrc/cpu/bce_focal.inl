// Focal binary cross-entropy of a run of adjacent logits, for one instruction set: the loss, its
// gradient, or both. With s = softplus(-x), so that (1-σ)^γ = exp(-γ softplus(x)):
//     F(x) = (1-σ)^γ s,    F'(x) = -(1-σ)^γ (γ σ s + 1-σ)
//     loss = w (q t F(x) + (1-t) F(-x)),    d loss / d x = w (q t F'(x) - (1-t) F'(-x))
// Nothing is divided by 1-σ or σ, and nothing overflows.
//
// One loop serves every kind of target and asks for what is wanted as it goes: beside three exps
// and a log that costs little, and each further instantiation makes the compiler inline less of the
// other kernels.

template <typename L, typename T>
struct FocalVector {
  using A = acc_t<L>;
  using V = VecOf<A>;
  using Bits = BitsOf<A>;
  template <RunTarget kKind>
  using Vector = BinaryVector<kKind, true, true, true, L, T>;

  const BinaryRun<L, T>& run;
  const Vector<kConstant> constant = {run};
  const Vector<kDenseTarget> dense = {run};
  const Vector<kLabels> labels = {run};

  // n: how many of the lanes belong to the run.
  V target(int64_t i, int64_t n) const {
    if (run.dense != nullptr) return dense.target(i, n);
    return run.labels != nullptr ? labels.target(i, n) : constant.target(i, n);
  }

  V power(V s) const {  // exp(-γ s)
    const Exp<A> parts = exp_parts(-run.gamma * s);
    return parts.factor * parts.power;
  }

  // Writes what is asked for, for n elements from i on. Returns their losses.
  V step(int64_t i, int64_t n) const {
    const V z = load_up_to<A>(run.x + i, n), t = target(i, n), one = splat(A(1));
    const V w = constant.read_or(run.class_weights, constant.class_weight, i, n);
    const V q = constant.read_or(run.pos_weights, constant.pos_weight, i, n);
    const Bits negative = (Bits)(z < 0);
    const Exp<A> parts = exp_parts(select<A>(negative, z, -z));
    const V e = parts.factor * parts.power, curved = log1p_of(e);
    const V s = curved + select<A>(negative, -z, V{}), other = curved + select<A>(negative, V{}, z);
    const V present = q * t * power(other), absent = (1 - t) * power(s);
    const V loss = w * multiply_add(present, s, absent * other);
    if (run.loss != nullptr) {
      const V before = run.add ? load_up_to<A>(run.loss + i, n) : V{};
      store_up_to<A>(run.loss + i, before + loss, n);
    }
    if (run.grad == nullptr) return loss;
    const V inverse = 1 / (1 + e);
    const V sigmoid = select<A>(negative, e, one) * inverse;
    const V rest = select<A>(negative, one, e) * inverse;  // 1 - σ
    const V up = absent * multiply_add(run.gamma * rest, other, sigmoid);
    const V down = present * multiply_add(run.gamma * sigmoid, s, rest);
    const V by = w * (constant.read_or(run.upstream, one, i, n) * constant.scale);
    store_up_to<A>(run.grad + i, by * (up - down), n);
    return loss;
  }
};

template <typename L, typename T>
double focal_run(const BinaryRun<L, T>& run) {
  using A = acc_t<L>;
  constexpr int kStep = kLanes<A>;
  const FocalVector<L, T> vector = {run};
  LaneSums<A> total;
  int64_t i = 0;
  while (i + kStep <= run.n) {
    // Adding sums of a few terms each loses far fewer digits than one long sum.
    const int64_t last = run.n - kStep + 1;
    const int64_t pause = i + 32 * kStep < last ? i + 32 * kStep : last;
    VecOf<A> few = {};
    for (; i < pause; i += kStep) few += vector.step(i, kStep);
    total.add(few, kStep);
  }
  if (i < run.n) total.add(vector.step(i, run.n - i), run.n - i);
  return total.total();
}
