// Soft-target cross-entropy of adjacent positions, for one instruction set: reads vectors of
// positions, class by class, with no transposed copy.
//
// Memory is read a class at a time, in runs of n positions, into a buffer that stays in the cache,
// and every further read is from there. In memory the K values of a position may lie a power of two
// apart, and so compete for the same few lines of the cache.

// The sums of one vector of positions in a loop over the classes.
template <typename A>
struct PositionSums {
  VecOf<A> exp = {}, shifted = {}, target = {}, product = {};

  template <bool kShifted, bool kDense>
  void flush(PositionSums& total) {  // see ChunkSums::flush
    total.exp += exp;
    if constexpr (kShifted) total.shifted += shifted;
    if constexpr (kDense) total.target += target, total.product += product;
    *this = {};
  }
};

// n positions, padded to whole vectors.
template <typename A>
constexpr int64_t padded(int64_t n) {
  return (n + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
}

template <typename A, typename T>
FUSED_MIXUP_INLINE VecOf<A> load_up_to(const T* p, int64_t n) {
  return n < kLanes<A> ? load_part<A>(p, n) : load(p);
}
template <typename A, typename T>
FUSED_MIXUP_INLINE void store_up_to(T* p, VecOf<A> v, int64_t n) {
  if (n < kLanes<A>) return store_part<A>(p, v, n);
  store(p, v);
}

// What is subtracted from the logits: their maximum, or 0 while all of them are -inf, as -inf -
// -inf would be NaN.
template <typename A>
FUSED_MIXUP_INLINE VecOf<A> shift_of(VecOf<A> max) {
  return select<A>((BitsOf<A>)(max == splat(A(-__builtin_inf()))), VecOf<A>{}, max);
}

// Copies `count` classes into the buffer, and raises `most` to their maximum.
template <bool kDense, typename L, typename T>
void load_classes(const ColumnTile<L, T>& tile, int64_t begin, int64_t count, acc_t<L>* z,
                  acc_t<L>* t, acc_t<L>* most) {
  using A = acc_t<L>;
  const int64_t width = padded<A>(tile.n);
  for (int64_t c = 0; c < count; ++c) {
    const L* from = tile.z + (begin + c) * tile.z_stride;
    for (int64_t i = 0; i < tile.n; i += kLanes<A>) {
      const VecOf<A> v = load_up_to<A>(from + i, tile.n - i);
      store(z + c * width + i, v);
      store(most + i, maximum<A>(v, load(most + i)));
    }
    if constexpr (kDense) {
      const T* target = tile.target + (begin + c) * tile.target_stride;
      for (int64_t i = 0; i < tile.n; i += kLanes<A>) {
        store(t + c * width + i, load_up_to<A>(target + i, tile.n - i));
      }
    }
  }
}

// The sums of one vector of positions over the classes in the buffer, relative to `shift`. w: their
// class weights, or null.
template <bool kShifted, bool kDense, typename A>
PositionSums<A> sum_classes(A* z, const A* t, const A* w, int64_t count, int64_t width,
                            VecOf<A> shift, bool keep) {
  PositionSums<A> sums, few;
  for (int64_t c = 0; c < count;) {
    const int64_t pause = c + 32 < count ? c + 32 : count;
    for (; c < pause; ++c) {
      const VecOf<A> x = load(z + c * width) - shift;
      const Exp<A> e = exp_parts(x);
      few.exp = multiply_add(e.factor, e.power, few.exp);
      if (keep) store(z + c * width, e.factor * e.power);
      if constexpr (kShifted) few.shifted += w == nullptr ? x : term_of<A>(splat(w[c]), x);
      if constexpr (kDense) {
        VecOf<A> u = load(t + c * width);
        if (w != nullptr) u = term_of<A>(splat(w[c]), u);
        few.target += u;
        few.product += term_of<A>(u, x);
      }
    }
    few.template flush<kShifted, kDense>(sums);
  }
  return sums;
}

template <bool kShifted, bool kDense, typename L, typename T>
void forward_columns(const ColumnTile<L, T>& tile, acc_t<L>* buffer, int64_t chunk, bool keep,
                     ColumnSums<acc_t<L>>& out, ColumnLabels<acc_t<L>>* labels) {
  using A = acc_t<L>;
  using V = VecOf<A>;
  const int64_t width = padded<A>(tile.n);
  A* const z = buffer;
  A* const t = buffer + chunk * width;
  A most[kMaxTile];
  double weight = 0;  // Σ w over the classes so far
  for (int64_t i = 0; i < width; i += kLanes<A>) {
    store(most + i, splat(A(-__builtin_inf())));
    store(out.max + i, splat(A(-__builtin_inf())));
    A* const sums[] = {out.exp, out.shifted, out.target, out.product};
    for (A* sum : sums) store(sum + i, V{});
  }
  for (int64_t begin = 0; begin < tile.k; begin += chunk) {
    const int64_t count = tile.k - begin < chunk ? tile.k - begin : chunk;
    const A* w = tile.class_weight == nullptr ? nullptr : tile.class_weight + begin;
    load_classes<kDense>(tile, begin, count, z, t, most);
    if (labels != nullptr) rank_columns_from(z, width, begin, count, tile.n, labels, 2);
    for (int64_t i = 0; i < width; i += kLanes<A>) {
      const V before = load(out.max + i), now = load(most + i);
      const V shift = shift_of<A>(now);
      const PositionSums<A> sums =
          sum_classes<kShifted, kDense, A>(z + i, t + i, w, count, width, shift, keep);
      V exp = load(out.exp + i), shifted = load(out.shifted + i);
      V target = load(out.target + i), product = load(out.product + i);
      if (begin != 0) {
        // Sums over -inf alone have nothing finite to move.
        const BitsOf<A> finite = (BitsOf<A>)(before != splat(A(-__builtin_inf())));
        const V by = select<A>(finite, before - now, V{});
        const Exp<A> e = exp_parts(by);
        exp *= e.factor * e.power;
        if constexpr (kShifted) shifted += by * A(weight);
        if constexpr (kDense) product += target * by;
      }
      store(out.max + i, now);
      store(out.exp + i, exp + sums.exp);
      if constexpr (kShifted) store(out.shifted + i, shifted + sums.shifted);
      if constexpr (kDense) {
        store(out.target + i, target + sums.target);
        store(out.product + i, product + sums.product);
      }
    }
    if (w == nullptr) weight += double(count);
    for (int64_t c = 0; w != nullptr && c < count; ++c) weight += w[c];
  }
  for (int64_t i = 0; i < width; i += kLanes<A>) {
    const V max = load(out.max + i);
    // NaN where the maximum is infinite: a row of -inf alone has no distribution, as in PyTorch.
    store(out.log_sum + i, log_of(load(out.exp + i)) + (max - max));
  }
}

template <typename L, typename T>
void columns_forward(const ColumnTile<L, T>& tile, acc_t<L>* buffer, int64_t chunk,
                     bool want_shifted, bool keep, ColumnSums<acc_t<L>>& sums,
                     ColumnLabels<acc_t<L>>* labels) {
  const bool dense = tile.target != nullptr;
  const auto forward =
      want_shifted ? dense ? forward_columns<true, true, L, T> : forward_columns<true, false, L, T>
      : dense      ? forward_columns<false, true, L, T>
                   : forward_columns<false, false, L, T>;
  forward(tile, buffer, chunk, keep, sums, labels);
}

// Writes the gradient of a tile. probability(c, i): of class c at the vector of positions i, up to
// a factor that p_scale contains.
template <bool kDense, typename L, typename T, typename P>
inline void write_gradient(L* grad, int64_t grad_stride, const ColumnTile<L, T>& tile,
                           const ColumnScales<acc_t<L>>& scales, const P& probability) {
  using A = acc_t<L>;
  using V = VecOf<A>;
  for (int64_t c = 0; c < tile.k; ++c) {
    const V w = splat(tile.class_weight == nullptr ? A(1) : tile.class_weight[c]);
    for (int64_t i = 0; i < tile.n; i += kLanes<A>) {
      V off = load(scales.constant + i);
      if constexpr (kDense) {
        const V t = load_up_to<A>(tile.target + c * tile.target_stride + i, tile.n - i);
        off = multiply_add(t, load(scales.t_scale + i), off);
      }
      if (tile.class_weight != nullptr) off = term_of<A>(w, off);
      const V entry = multiply_add(probability(c, i), load(scales.p_scale + i), -off);
      const V kept = (V)((BitsOf<A>)entry & bit_load<BitsOf<A>>(scales.kept + i));
      store_up_to<A>(grad + c * grad_stride + i, kept, tile.n - i);
    }
  }
}

template <typename L, typename T>
void columns_finish(L* grad, int64_t grad_stride, const ColumnTile<L, T>& tile,
                    const acc_t<L>* buffer, const ColumnScales<acc_t<L>>& scales) {
  const int64_t width = padded<acc_t<L>>(tile.n);
  const auto kept = [=](int64_t c, int64_t i) { return load(buffer + c * width + i); };
  if (tile.target != nullptr) {
    write_gradient<true>(grad, grad_stride, tile, scales, kept);
  } else {
    write_gradient<false>(grad, grad_stride, tile, scales, kept);
  }
}

template <typename L, typename T>
void columns_backward(L* grad, int64_t grad_stride, const ColumnTile<L, T>& tile,
                      const ColumnSums<acc_t<L>>& sums, const ColumnScales<acc_t<L>>& scales) {
  using A = acc_t<L>;
  const auto softmax = [&](int64_t c, int64_t i) {
    const VecOf<A> z = load_up_to<A>(tile.z + c * tile.z_stride + i, tile.n - i);
    const Exp<A> e = exp_parts((z - load(sums.max + i)) - load(sums.log_sum + i));
    return e.factor * e.power;
  };
  if (tile.target != nullptr) {
    write_gradient<true>(grad, grad_stride, tile, scales, softmax);
  } else {
    write_gradient<false>(grad, grad_stride, tile, scales, softmax);
  }
}

template <typename L, typename T>
constexpr LossKernels<L, T> loss_table() {
  return {loss_forward<L, T>, loss_backward<L, T>, columns_forward<L, T>, columns_finish<L, T>,
          columns_backward<L, T>};
}
