// The kernels that take nothing but logits: ranks (label_ranks_kernels.inl), scale_, and the
// entries of labels in the gradients of columns.

template <typename L>
void scale_run(L* x, int64_t n, acc_t<L> factor) {
  using A = acc_t<L>;
  constexpr int kStep = kLanes<A>;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) store(x + i, load(x + i) * factor);
  if (i < n) store_part<A>(x + i, load_part<A>(x + i, n - i) * factor, n - i);
}

template <typename A>
void column_entries(A* out, const A* z, const ColumnSums<A>& sums, const A* p_scale, const A* t,
                    int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes<A>) {
    const Exp<A> e = exp_parts((load(z + i) - load(sums.max + i)) - load(sums.log_sum + i));
    store(out + i, e.factor * e.power * load(p_scale + i) - load(t + i));
  }
}

template <typename L>
constexpr LogitKernels<L> logit_table() {
  return {rank_row<L>, rank_columns<L>, scale_run<L>, column_entries<acc_t<L>>};
}
