// label_ranks on the CPU: the logits are read once, for both labels.
#include "dispatch.h"
#include "loss_columns.h"
#include "loss_rows.h"

namespace fused_mixup {
namespace {

struct RankInputs {
  LossTensors tensors;
  Tensor labels[2];  // int64 [B, S], contiguous
  int count;         // how many of the two are asked for
  int32_t* ranks;    // [count, B, S]

  // Label j of row r; -1 where it is out of range.
  int64_t label(int j, int64_t r) const {
    const int64_t y = data<int64_t>(labels[j])[r];
    return uint64_t(y) < uint64_t(tensors.k) ? y : -1;
  }
};

template <typename L>
void rank_rows(const RankInputs& in) {
  const LossTensors& tensors = in.tensors;
  const int64_t rows = tensors.rows();
  parallel_for(0, rows, rows_of_block(tensors), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const L* z = tensors.logits.at<const L>(r / tensors.inner, r % tensors.inner);
      Ranking ranking = {{-1, -1}, {0, 0}, {0, 0}};
      for (int j = 0; j < in.count; ++j) {
        ranking.label[j] = in.label(j, r);
        if (ranking.label[j] >= 0) ranking.value[j] = to_float(z[ranking.label[j]]);
      }
      logit_kernels<L>().rank_row(z, tensors.k, ranking);
      for (int j = 0; j < in.count; ++j) {
        in.ranks[j * rows + r] = int32_t(ranking.label[j] < 0 ? tensors.k : ranking.ahead[j]);
      }
    }
  });
}

template <typename L>
void rank_columns(const RankInputs& in) {
  using A = acc_t<L>;
  const LossTensors& tensors = in.tensors;
  const auto work = [&](int64_t begin, int64_t end) {
    // Zeroed, as vectors past the end of a tile read these arrays too.
    const std::unique_ptr<ColumnLabels<A>[]> labels(new ColumnLabels<A>[2]());
    for (int64_t tile = begin; tile < end; ++tile) {
      const TilePlace at = tile_at(tensors, tile);
      const L* z = tensors.logits.at<const L>(at.b, at.s);
      const int64_t stride = tensors.logits.stride.classes;
      for (int j = 0; j < in.count; ++j) {
        for (int64_t i = 0; i < at.n; ++i) {
          const int64_t c = in.label(j, at.r + i);
          labels[j].label[i] = bits_t<A>(c);
          labels[j].value[i] = c < 0 ? A(0) : to_float(z[c * stride + i]);
          labels[j].ahead[i] = 0;
        }
      }
      logit_kernels<L>().rank_columns(z, stride, tensors.k, at.n, labels.get(), in.count);
      for (int j = 0; j < in.count; ++j) {
        for (int64_t i = 0; i < at.n; ++i) {
          const bool none = labels[j].label[i] == bits_t<A>(-1);
          in.ranks[j * tensors.rows() + at.r + i] =
              int32_t(none ? bits_t<A>(tensors.k) : labels[j].ahead[i]);
        }
      }
    }
  };
  parallel_for(0, count_of_tiles(tensors), grain_of_tiles(tensors), work);
}

Tensor label_ranks(Tensor logits,                    // [B, K, …]
                   Tensor labels,                    // int64 [B, …]
                   OptionalTensor partner_labels) {  // int64 [B, …]
  check_logits(logits);
  expect_positions("labels", labels, aoti_torch_dtype_int64(), logits);
  if (partner_labels) {
    expect_positions("partner_labels", *partner_labels, aoti_torch_dtype_int64(), logits);
  }
  std::vector<int64_t> shape = shape_of_rows(logits);
  const int count = partner_labels ? 2 : 1;
  shape.insert(shape.begin(), count);
  Tensor ranks = new_tensor(shape, ScalarType::Int);
  if (ranks.numel() == 0) return ranks;
  const Tensor own = as_contiguous(labels);
  const RankInputs in = {LossTensors(logits, nullptr, nullptr),
                         {own, partner_labels ? as_contiguous(*partner_labels) : own},
                         count,
                         data<int32_t>(ranks)};
  dispatch_floating(logits.scalar_type(), [&](auto tag) {
    using L = typename decltype(tag)::type;
    in.tensors.walk == Walk::kColumns ? rank_columns<L>(in) : rank_rows<L>(in);
  });
  return ranks;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("label_ranks", TORCH_BOX(&fused_mixup::label_ranks));
}
