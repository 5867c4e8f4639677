// The binary cross-entropy of columns of adjacent positions: a run of positions for each class.
#pragma once

#include <memory>

#include "bce_inputs.h"
#include "loss_columns.h"

namespace fused_mixup {

// Reads the labels of the tile's positions, in the form in which the kernel compares them with a
// class.
template <typename A>
void read_labels(const BinaryInputs& in, const TilePlace& at, BinaryColumnLabels<A>& labels) {
  const TargetValues<A> values = in.values<A>(at.b);
  labels.at_own = values.own;
  labels.at_partner = values.partner;
  labels.at_both = values.both;
  for (int64_t i = 0; i < at.n; ++i) {
    const int64_t own = in.sparse->labels[at.r + i], partner = in.sparse->partner_labels[at.r + i];
    const bool valid = in.sparse->in_range(own) && in.sparse->in_range(partner);
    labels.own[i] = valid ? bits_t<A>(own) : ~bits_t<A>{0};
    labels.partner[i] = valid ? bits_t<A>(partner) : ~bits_t<A>{0};
    labels.base[i] = valid ? values.neither : A(kNaN);
  }
}

template <typename L, typename T>
class BinaryColumns {
 public:
  using A = acc_t<L>;

  explicit BinaryColumns(const BinaryInputs& in) : in_(in), work_(new Work()) {}

  // Works on a tile, and returns its Σ loss if that is asked for.
  double tile(const TilePlace& at, const BinaryOutputs<A>& out) {
    const LossTensors& tensors = in_.tensors;
    const A* w = in_.weights<A>(in_.class_weight);
    const A* q = in_.weights<A>(in_.pos_weight);
    const bool elements = in_.arguments.each_element();
    BinaryRun<L, T> run = in_.run<L, T>();
    run.n = at.n;
    run.sum = out.sum;
    run.scale = out.scale;
    if (in_.sparse) {
      read_labels(in_, at, work_->labels);
      run.labels = &work_->labels;
    }
    double sum = 0;
    for (int64_t c = 0; c < tensors.k; ++c) {
      const int64_t element = (at.b * tensors.k + c) * tensors.inner + at.s;
      run.x = tensors.logits.at<const L>(at.b, at.s) + c * tensors.logits.stride.classes;
      if (tensors.target) {
        run.dense = tensors.target->at<const T>(at.b, at.s) + c * tensors.target->stride.classes;
      }
      run.label = bits_t<A>(c);
      if (w != nullptr) run.class_weight = w[c];
      if (q != nullptr) run.pos_weight = q[c];
      if (tensors.grad)
        run.grad = tensors.grad->at<L>(at.b, at.s) + c * tensors.grad->stride.classes;
      if (out.upstream != nullptr) run.upstream = out.upstream + (elements ? element : at.r);
      if (out.loss != nullptr && elements) run.loss = out.loss + element;
      if (out.loss != nullptr && !elements) {
        run.loss = work_->few;
        run.add = c % kFew != 0;
      }
      sum += binary_kernels<L, T>().run(run);
      const bool last = c % kFew == kFew - 1 || c + 1 == tensors.k;
      if (out.loss != nullptr && !elements && last) add_few(out.loss + at.r, at.n, c < kFew);
    }
    return sum;
  }

 private:
  // Adding sums of a few terms each loses far fewer digits than one long sum.
  static constexpr int64_t kFew = 32;

  struct Work {
    BinaryColumnLabels<A> labels;
    A few[kMaxTile];
  };

  void add_few(A* loss, int64_t n, bool first) const {
    for (int64_t i = 0; i < n; ++i) loss[i] = (first ? A(0) : loss[i]) + work_->few[i];
  }

  const BinaryInputs& in_;
  std::unique_ptr<Work> work_;  // zeroed, as vectors past the end of a tile read these arrays too
};

template <typename L, typename T>
double binary_columns(const BinaryInputs& in, const BinaryOutputs<acc_t<L>>& out) {
  const int64_t tiles = count_of_tiles(in.tensors);
  BlockSums sums(tiles);
  parallel_for(0, tiles, grain_of_tiles(in.tensors), [&](int64_t begin, int64_t end) {
    BinaryColumns<L, T> columns(in);
    for (int64_t i = begin; i < end; ++i) sums[i] = columns.tile(tile_at(in.tensors, i), out);
  });
  return sums.total();
}

}  // namespace fused_mixup
