// The cross-entropy of columns of adjacent positions, walked in tiles of a few hundred positions
// and all their classes, so that a tile stays in the cache from its first read to its last.
#pragma once

#include <algorithm>
#include <memory>

#include "loss_inputs.h"

namespace fused_mixup {

constexpr int64_t kLeastTile = 64;  // positions: 256 adjacent bytes of float for each class
// Elements of a tile's buffer: 24 KiB of float in a first-level cache of at least 32 KiB.
constexpr int64_t kBufferInL1 = 6144;
// The most where the gradient is made from the buffer: 128 KiB of float in the second-level cache.
constexpr int64_t kBufferInL2 = 32768;

inline int64_t positions_of_tile(const LossTensors& tensors) {
  const int64_t fit = kBufferInL1 / std::max<int64_t>(tensors.k, 1) / kLeastTile * kLeastTile;
  return std::min(std::max(fit, kLeastTile), kMaxTile);
}

// Positions [s, s + n) of sample b; r = b·S + s.
struct TilePlace {
  int64_t b, s, r, n;
};

inline int64_t count_of_tiles(const LossTensors& tensors) {
  const int64_t each = positions_of_tile(tensors);
  return tensors.batch * ((tensors.inner + each - 1) / each);
}

inline TilePlace tile_at(const LossTensors& tensors, int64_t index) {
  const int64_t each = positions_of_tile(tensors), tiles = (tensors.inner + each - 1) / each;
  const int64_t b = index / tiles, s = index % tiles * each;
  return {b, s, b * tensors.inner + s, std::min(each, tensors.inner - s)};
}

inline int64_t grain_of_tiles(const LossTensors& tensors) {
  const int64_t elements = tensors.k * std::min(positions_of_tile(tensors), tensors.inner);
  return 1 + 16384 / std::max<int64_t>(elements, 1);
}

// The working memory of one thread, and the work on a tile.
template <typename L, typename T>
class Columns {
 public:
  using A = acc_t<L>;
  using Bits = bits_t<A>;

  explicit Columns(const LossInputs& in)
      : in_(in),
        kernels_(loss_kernels<L, T>()),
        whole_(in.tensors.k * positions_of_tile(in.tensors) <= kBufferInL2),
        work_(new Work()) {}  // zeroed, as vectors past the end of a tile read these arrays too

  // Writes the losses of a tile and returns their sum. With `grad` writes the gradient too, for an
  // upstream gradient of `scale`.
  double forward(const TilePlace& at, const LossOutputs<A>& out, bool grad, A scale,
                 double& ignored) {
    const bool finish = grad && whole_;
    allocate(finish);
    const ColumnTile<L, T> tile = tile_of(at);
    read_target(at, tile);
    ColumnLabels<A>* ranked = out.ranks == nullptr ? nullptr : work_->labels;
    kernels_.columns_forward(tile, buffer_.get(), chunk_, in_.wants_shifted(), finish, work_->sums,
                             ranked);
    const double loss = losses(at, out, ignored);
    if (out.stats != nullptr) write_stats(at, out.stats);
    if (out.ranks != nullptr) write_ranks(at, out.ranks);
    if (!grad) return loss;
    std::fill_n(work_->upstream, at.n, scale);
    gradient(at, tile, finish);
    return loss;
  }

  void backward(const TilePlace& at, const A* stats, const A* upstream, A factor) {
    const ColumnTile<L, T> tile = tile_of(at);
    read_target(at, tile);
    const int64_t rows = in_.tensors.rows();
    std::copy_n(stats + at.r, at.n, work_->sums.max);
    std::copy_n(stats + rows + at.r, at.n, work_->sums.log_sum);
    for (int64_t i = 0; i < at.n; ++i) {
      work_->upstream[i] = upstream == nullptr ? factor : upstream[at.r + i] * factor;
      // The stats are NaN there as well, if they belong to this target.
      const bool poisoned = in_.sparse && work_->total[i] != work_->total[i];
      work_->total[i] = poisoned ? A(kNaN) : stats[2 * rows + at.r + i];
    }
    gradient(at, tile, false);
  }

 private:
  struct Work {
    ColumnSums<A> sums;
    ColumnScales<A> scales;
    ColumnLabels<A> labels[2];
    A coefficient[2][kMaxTile];  // what each label adds to Σ w t', with its class weight
    A constant[kMaxTile], total[kMaxTile], upstream[kMaxTile];
    A entry[kMaxTile], entry_target[kMaxTile];
  };

  void allocate(bool finish) {
    if (buffer_) return;
    const int64_t each = positions_of_tile(in_.tensors), k = in_.tensors.k;
    chunk_ = finish ? k : std::min(k, std::max<int64_t>(1, kBufferInL1 / each));
    buffer_.reset(new A[2 * chunk_ * each]);
  }

  ColumnTile<L, T> tile_of(const TilePlace& at) const {
    const LossTensors& p = in_.tensors;
    const T* target = p.target ? p.target->at<const T>(at.b, at.s) : nullptr;
    return {p.logits.at<const L>(at.b, at.s),
            p.logits.stride.classes,
            target,
            p.target ? p.target->stride.classes : 0,
            in_.class_weights<A>(),
            p.k,
            at.n};
  }

  // Reads the labels, and works out their logits and coefficients, and each position's constant and
  // total.
  void read_target(const TilePlace& at, const ColumnTile<L, T>& tile) {
    Work& work = *work_;
    if (!in_.sparse) {
      const double each = in_.label_smoothing / double(tile.k);
      std::fill_n(work.constant, at.n, A(each));
      std::fill_n(work.scales.kept, at.n, ~Bits{0});
      return;
    }
    const SampleTerms terms = in_.sparse->sample(at.b);
    const A* w = tile.class_weight;
    for (int64_t i = 0; i < at.n; ++i) {
      const SparseRow row = in_.sparse->row(terms, at.r + i);
      double total = w == nullptr ? row.total : term(row.constant, in_.class_weight_sum);
      for (int j = 0; j < 2; ++j) {
        const int64_t c = row.label[j];
        double t = row.coefficient[j];
        if (w != nullptr && c >= 0) total += t = term(w[c], t);
        work.labels[j].label[i] = c < 0 ? ~Bits{0} : Bits(c);
        work.labels[j].value[i] = c < 0 ? A(0) : to_float(tile.z[c * tile.z_stride + i]);
        work.labels[j].ahead[i] = 0;
        work.coefficient[j][i] = A(t);
      }
      work.constant[i] = A(row.constant);
      work.total[i] = row.poisoned ? A(kNaN) : row.ignored ? A(0) : A(total);
      work.scales.kept[i] = row.ignored ? 0 : ~Bits{0};
    }
  }

  double losses(const TilePlace& at, const LossOutputs<A>& out, double& ignored) {
    Work& work = *work_;
    const double keep = 1.0 - in_.label_smoothing;
    const bool shifted = in_.wants_shifted(), more = in_.has_more_terms();
    double sum = 0;
    for (int64_t i = 0; i < at.n; ++i) {
      const double max = work.sums.max[i];
      double product = shifted ? term(work.constant[i], work.sums.shifted[i]) : 0;
      double loss = 0;
      if (!in_.sparse) {
        product += term(keep, work.sums.product[i]);
        const double total =
            keep * work.sums.target[i] + term(work.constant[i], in_.class_weight_sum);
        work.total[i] = A(total);
        loss = work.sums.log_sum[i] * total - product;
      } else if (work.scales.kept[i]) {
        for (int j = 0; j < 2; ++j) {
          product += term(work.coefficient[j][i], work.labels[j].value[i] - max);
        }
        loss = double(work.sums.log_sum[i]) * work.total[i] - product;
      } else {
        ignored += 1;
      }
      if (more) loss = loss_with_terms(i, loss);
      if (in_.reduction == kNone) out.loss[at.r + i] = A(loss);
      sum += loss;
    }
    return sum;
  }

  // The loss with focal terms of the labels and the z-loss; `loss` is that without. Sets the total
  // of the position too.
  __attribute__((noinline)) double loss_with_terms(int64_t i, double loss) {
    Work& work = *work_;
    if (!work.scales.kept[i]) return loss;
    double total = work.total[i];
    if (in_.sparse && in_.focal_gamma != 0) {
      loss = total = total != total ? kNaN : 0.0 * work.sums.log_sum[i];
      for (int j = 0; j < 2; ++j) {
        const FocalTerm focal = focal_term(i, j);
        loss += term(work.coefficient[j][i], focal.loss);
        total += term(work.coefficient[j][i], focal.slope);
      }
    }
    if (in_.z_loss != 0) {
      in_.add_z_loss(double(work.sums.max[i]) + work.sums.log_sum[i], loss, total);
    }
    work.total[i] = A(total);
    return loss;
  }

  FocalTerm focal_term(int64_t i, int j) const {
    const ColumnSums<A>& sums = work_->sums;
    const double value = work_->labels[j].value[i];
    return FocalTerm(in_.focal_gamma, (value - sums.max[i]) - sums.log_sum[i]);
  }

  void write_stats(const TilePlace& at, A* stats) const {
    const int64_t rows = in_.tensors.rows();
    std::copy_n(work_->sums.max, at.n, stats + at.r);
    std::copy_n(work_->sums.log_sum, at.n, stats + rows + at.r);
    std::copy_n(work_->total, at.n, stats + 2 * rows + at.r);
  }

  void write_ranks(const TilePlace& at, int32_t* ranks) const {
    for (int j = 0; j < 2; ++j) {
      const ColumnLabels<A>& labels = work_->labels[j];
      int32_t* out = ranks + j * in_.tensors.rows() + at.r;
      for (int64_t i = 0; i < at.n; ++i) {
        out[i] = int32_t(labels.label[i] == ~Bits{0} ? Bits(in_.tensors.k) : labels.ahead[i]);
      }
    }
  }

  // finish: makes the gradient from the exponentials that the forward left in the buffer.
  void gradient(const TilePlace& at, const ColumnTile<L, T>& tile, bool finish) {
    Work& work = *work_;
    ColumnScales<A>& scales = work.scales;
    const A keep = A(1.0 - in_.label_smoothing);
    for (int64_t i = 0; i < at.n; ++i) {
      scales.p_scale[i] = work.upstream[i] * work.total[i];
      scales.t_scale[i] = work.upstream[i] * keep;
      scales.constant[i] = work.upstream[i] * work.constant[i];
    }
    L* grad = in_.tensors.grad->at<L>(at.b, at.s);
    const int64_t stride = in_.tensors.grad->stride.classes;
    if (finish) {
      // p = exp / Σ exp. An infinite maximum makes it NaN, as it does log_sum.
      ColumnScales<A> divided = scales;
      for (int64_t i = 0; i < at.n; ++i) {
        divided.p_scale[i] =
            divided.p_scale[i] / work.sums.exp[i] + (work.sums.max[i] - work.sums.max[i]);
      }
      kernels_.columns_finish(grad, stride, tile, buffer_.get(), divided);
    } else {
      kernels_.columns_backward(grad, stride, tile, work.sums, scales);
    }
    if (in_.sparse) write_entries(at, tile, grad, stride);
  }

  // Computes the entries of the labels from scratch, as row_gradient() does.
  void write_entries(const TilePlace& at, const ColumnTile<L, T>& tile, L* grad, int64_t stride) {
    Work& work = *work_;
    for (int j = 0; j < 2; ++j) {
      const ColumnLabels<A>& labels = work.labels[j];
      for (int64_t i = 0; i < at.n; ++i) {
        A t = work.coefficient[j][i];
        if (labels.label[i] == work.labels[1 - j].label[i]) t += work.coefficient[1 - j][i];
        A constant = work.constant[i];
        if (tile.class_weight != nullptr && labels.label[i] != ~Bits{0}) {
          constant = A(term(tile.class_weight[labels.label[i]], constant));
        }
        if (in_.focal_gamma != 0) t = A(term(t, focal_term(i, j).slope));
        work.entry_target[i] = work.upstream[i] * (t + constant);
      }
      logit_kernels<L>().entries(work.entry, labels.value, work.sums, work.scales.p_scale,
                                 work.entry_target, at.n);
      for (int64_t i = 0; i < at.n; ++i) {
        if (labels.label[i] == ~Bits{0}) continue;
        grad[int64_t(labels.label[i]) * stride + i] =
            work.scales.kept[i] ? from_float<L>(work.entry[i]) : from_float<L>(0);
      }
    }
  }

  const LossInputs& in_;
  const LossKernels<L, T>& kernels_;
  const bool whole_;  // a tile of all classes fits the buffer
  int64_t chunk_ = 0;
  std::unique_ptr<Work> work_;
  std::unique_ptr<A[]> buffer_;
};

template <typename L, typename T>
double forward_columns(const LossInputs& in, const LossOutputs<acc_t<L>>& out, bool grad,
                       double scale, double& count) {
  const int64_t tiles = count_of_tiles(in.tensors);
  BlockSums losses(tiles), ignored(tiles);
  parallel_for(0, tiles, grain_of_tiles(in.tensors), [&](int64_t begin, int64_t end) {
    Columns<L, T> columns(in);
    for (int64_t i = begin; i < end; ++i) {
      losses[i] = columns.forward(tile_at(in.tensors, i), out, grad, acc_t<L>(scale), ignored[i]);
    }
  });
  count = double(in.tensors.rows()) - ignored.total();
  return losses.total();
}

template <typename L, typename T>
void backward_columns(const LossInputs& in, const acc_t<L>* stats, const acc_t<L>* upstream,
                      acc_t<L> factor) {
  const int64_t tiles = count_of_tiles(in.tensors);
  parallel_for(0, tiles, grain_of_tiles(in.tensors), [&](int64_t begin, int64_t end) {
    Columns<L, T> columns(in);
    for (int64_t i = begin; i < end; ++i) {
      columns.backward(tile_at(in.tensors, i), stats, upstream, factor);
    }
  });
}

}  // namespace fused_mixup
