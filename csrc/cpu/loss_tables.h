// Arguments and results of the kernels of the cross-entropy, for rows of adjacent classes and for
// columns of adjacent positions.
#pragma once

#include "scalar_types.h"

namespace fused_mixup {

// The labels of a row whose ranks are asked for. A label of -1 has none.
struct Ranking {
  int64_t label[2];
  double value[2];   // the labels' own logits
  int64_t ahead[2];  // raised by the number of classes before the label
};

// The results of one sweep over a row of K logits. All sums are relative to the maximum. With class
// weights w, each summand but those of `exp` is multiplied by its w.
struct RowSums {
  double max;      // m = max z
  double exp;      // Σ exp(z - m)
  double shifted;  // Σ (z - m); only where asked for
  double target;   // Σ t; dense targets only
  double product;  // Σ t (z - m), terms with t = 0 dropped; dense targets only
  double weight;   // Σ 1
};

// d loss / d z = p_scale · exp((z - max) - log_sum) - w (t_scale · t + constant)
template <typename A>
struct RowScales {
  A max, log_sum, p_scale, t_scale, constant;
};

// All K classes of n adjacent positions: [K, n], in rows z_stride apart.
template <typename L, typename T>
struct ColumnTile {
  const L* z;
  int64_t z_stride;
  const T* target;  // null for a sparse target
  int64_t target_stride;
  const acc_t<L>* class_weight;  // [K] or null
  int64_t k, n;
};

// An unsigned integer as wide as A.
template <typename A>
using bits_t = std::conditional_t<sizeof(A) == 8, uint64_t, uint32_t>;

// The most positions of a tile; a multiple of every vector's lanes. Arrays with a value for each
// position have this size whatever n is, as vectors past the end read and write them too.
constexpr int64_t kMaxTile = 512;

template <typename A>
struct ColumnSums {
  A max[kMaxTile], exp[kMaxTile], log_sum[kMaxTile];
  A shifted[kMaxTile], target[kMaxTile], product[kMaxTile];  // as in RowSums
};

template <typename A>
struct ColumnScales {
  A p_scale[kMaxTile], t_scale[kMaxTile], constant[kMaxTile];
  bits_t<A> kept[kMaxTile];  // all ones, or zeros where the gradient is 0 whatever the logits
};

// One of the two labels of each position, and how many classes stand before it. A label of ~0 names
// no class.
template <typename A>
struct ColumnLabels {
  bits_t<A> label[kMaxTile];
  A value[kMaxTile];  // its logit
  bits_t<A> ahead[kMaxTile];
};

// L: type of the logits, T: type of a dense target.
template <typename L, typename T>
struct LossKernels {
  using A = acc_t<L>;
  // target: [K], or null for a sparse target. class_weight: [K] or null. ranking: may be null.
  RowSums (*forward)(const L* z, const T* target, const A* class_weight, int64_t k,
                     bool want_shifted, Ranking* ranking);
  // grad may be z.
  void (*backward)(L* grad, const L* z, const T* target, const A* class_weight, int64_t k,
                   const RowScales<A>& scales);
  // buffer: [2, chunk, n rounded up to whole vectors], for `chunk` classes at once. labels: [2], or
  // null where no ranks are asked for. keep: leaves exp(z - m) in the buffer for columns_finish();
  // then chunk >= k.
  void (*columns_forward)(const ColumnTile<L, T>& tile, A* buffer, int64_t chunk, bool want_shifted,
                          bool keep, ColumnSums<A>& sums, ColumnLabels<A>* labels);
  // The gradient from what columns_forward() kept; p_scale has been divided by Σ exp.
  void (*columns_finish)(L* grad, int64_t grad_stride, const ColumnTile<L, T>& tile,
                         const A* buffer, const ColumnScales<A>& scales);
  // The gradient from the logits; grad may be tile.z.
  void (*columns_backward)(L* grad, int64_t grad_stride, const ColumnTile<L, T>& tile,
                           const ColumnSums<A>& sums, const ColumnScales<A>& scales);
};

// The kernels that take nothing but logits.
template <typename L>
struct LogitKernels {
  using A = acc_t<L>;
  void (*rank_row)(const L* z, int64_t k, Ranking& ranking);
  // z: [k, n] as in ColumnTile, with `count` labels for each position.
  void (*rank_columns)(const L* z, int64_t z_stride, int64_t k, int64_t n, ColumnLabels<A>* labels,
                       int count);
  // x *= factor
  void (*scale)(L* x, int64_t n, A factor);
  // out = p_scale · exp((z - max) - log_sum) - t: one entry of the gradient in each of n columns.
  void (*entries)(A* out, const A* z, const ColumnSums<A>& sums, const A* p_scale, const A* t,
                  int64_t n);
};

}  // namespace fused_mixup
