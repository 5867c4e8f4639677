// Ranks of labels: how many classes stand before a label's class, which are those of larger logits
// and those of equal logits and a smaller index. NaN counts as larger than all, and a label whose
// own logit is NaN comes last: every comparison is one that NaN fails, then negated.

template <typename A>
inline int64_t lane_count(BitsOf<A> v) {
  int64_t count = 0;
  for (int i = 0; i < kLanes<A>; ++i) count += v[i];
  return count;
}

// How many of n logits are not below v (kBelow), or neither below v nor equal to it.
template <bool kBelow, typename L>
int64_t count_ahead(const L* z, int64_t n, acc_t<L> v) {
  using A = acc_t<L>;
  constexpr int kStep = kLanes<A>;
  const auto after = [v](VecOf<A> x) { return (BitsOf<A>)(kBelow ? x < v : x <= v); };
  // A lane that is behind v is all ones, which is -1: adding 1 counts the others.
  BitsOf<A> c0 = {}, c1 = {};
  int64_t i = 0;
  for (; i + 2 * kStep <= n; i += 2 * kStep) {
    c0 += after(load(z + i)) + 1;
    c1 += after(load(z + i + kStep)) + 1;
  }
  int64_t count = lane_count<A>(c0) + lane_count<A>(c1);
  for (; i < n; ++i) count += kBelow ? !(to_float(z[i]) < v) : !(to_float(z[i]) <= v);
  return count;
}

// Counts in the classes [begin, begin + n) of a row; z points at the first.
template <typename L>
__attribute__((noinline)) void rank_chunk(const L* z, int64_t begin, int64_t n, Ranking& ranking) {
  using A = acc_t<L>;
  for (int j = 0; j < 2; ++j) {
    if (ranking.label[j] < 0) continue;
    const A v = A(ranking.value[j]);
    int64_t split = ranking.label[j] - begin;
    split = split < 0 ? 0 : split > n ? n : split;
    ranking.ahead[j] +=
        count_ahead<true>(z, split, v) + count_ahead<false>(z + split, n - split, v);
  }
}

template <typename L>
void rank_row(const L* z, int64_t k, Ranking& ranking) {
  constexpr int64_t kChunk = 2048;  // stays in the first-level cache for the second label
  for (int64_t i = 0; i < k; i += kChunk) {
    rank_chunk(z + i, i, k - i < kChunk ? k - i : kChunk, ranking);
  }
}

// z: [k, n], the classes from `begin` on, in rows z_stride apart.
template <typename L>
void rank_columns_from(const L* z, int64_t z_stride, int64_t begin, int64_t k, int64_t n,
                       ColumnLabels<acc_t<L>>* labels, int count) {
  using A = acc_t<L>;
  using Bits = BitsOf<A>;
  constexpr int kStep = kLanes<A>;
  for (int64_t c = 0; c < k; ++c) {
    const Bits index = Bits{} + bits_t<A>(begin + c);
    for (int64_t i = 0; i < n; i += kStep) {
      const L* at = z + c * z_stride + i;
      const VecOf<A> x = n - i < kStep ? load_part<A>(at, n - i) : load(at);
      for (int j = 0; j < count; ++j) {
        const VecOf<A> v = load(labels[j].value + i);
        const Bits earlier = (Bits)(index < bit_load<Bits>(labels[j].label + i));
        const Bits behind = (Bits)(x < v) | ((Bits)(x <= v) & ~earlier);
        const Bits sum = bit_load<Bits>(labels[j].ahead + i) + behind + 1;
        __builtin_memcpy(labels[j].ahead + i, &sum, sizeof(sum));
      }
    }
  }
}

template <typename L>
void rank_columns(const L* z, int64_t z_stride, int64_t k, int64_t n,
                  ColumnLabels<acc_t<L>>* labels, int count) {
  rank_columns_from(z, z_stride, 0, k, n, labels, count);
}
