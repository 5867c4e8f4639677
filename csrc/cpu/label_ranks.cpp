// label_ranks on the CPU: the logits are read once, for both labels.
#include "loss_columns.h"
#include "loss_rows.h"

namespace fused_mixup {
namespace {

struct RankInputs {
  Places places;
  Tensor labels[2];  // contiguous
  int count;         // of them
  int32_t* ranks;    // [count, B, S]

  // -1 where out of range
  int64_t label(int j, int64_t r) const {
    const int64_t y = static_cast<const int64_t*>(labels[j].data_ptr())[r];
    return uint64_t(y) < uint64_t(places.k) ? y : -1;
  }
};

template <typename L>
void rank_rows(const RankInputs& in) {
  const Places& places = in.places;
  const int64_t rows = places.rows();
  torch::stable::parallel_for(0, rows, rows_of_block(places), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const L* z = places.logits.at<const L>(r / places.inner, r % places.inner);
      Ranking ranking = {{-1, -1}, {0, 0}, {0, 0}};
      for (int j = 0; j < in.count; ++j) {
        ranking.label[j] = in.label(j, r);
        if (ranking.label[j] >= 0) ranking.value[j] = to_float(z[ranking.label[j]]);
      }
      logit_kernels<L>().rank_row(z, places.k, ranking);
      for (int j = 0; j < in.count; ++j) {
        in.ranks[j * rows + r] = int32_t(ranking.label[j] < 0 ? places.k : ranking.ahead[j]);
      }
    }
  });
}

template <typename L>
void rank_columns(const RankInputs& in) {
  using A = acc_t<L>;
  const Places& places = in.places;
  const auto work = [&](int64_t begin, int64_t end) {
    // Zeros: vectors past the end of a tile read these arrays, too.
    const std::unique_ptr<ColumnLabels<A>[]> labels(new ColumnLabels<A>[2]());
    for (int64_t tile = begin; tile < end; ++tile) {
      const TilePlace at = tile_at(places, tile);
      const L* z = places.logits.at<const L>(at.b, at.s);
      const int64_t stride = places.logits.stride.cls;
      for (int j = 0; j < in.count; ++j) {
        for (int64_t i = 0; i < at.n; ++i) {
          const int64_t c = in.label(j, at.r + i);
          labels[j].label[i] = bits_t<A>(c);
          labels[j].value[i] = c < 0 ? A(0) : to_float(z[c * stride + i]);
          labels[j].ahead[i] = 0;
        }
      }
      logit_kernels<L>().rank_columns(z, stride, places.k, at.n, labels.get(), in.count);
      for (int j = 0; j < in.count; ++j) {
        for (int64_t i = 0; i < at.n; ++i) {
          const bool none = labels[j].label[i] == bits_t<A>(-1);
          in.ranks[j * places.rows() + at.r + i] =
              int32_t(none ? bits_t<A>(places.k) : labels[j].ahead[i]);
        }
      }
    }
  };
  torch::stable::parallel_for(0, count_of_tiles(places), grain_of_tiles(places), work);
}

Tensor label_ranks(Tensor logits, Tensor labels, OptionalTensor partner_labels) {
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
  const RankInputs in = {Places(logits, nullptr, nullptr),
                         {own, partner_labels ? as_contiguous(*partner_labels) : own},
                         count,
                         static_cast<int32_t*>(ranks.data_ptr())};
  dispatch(logits.scalar_type(), logits.scalar_type(), [&](auto types) {
    using L = typename decltype(types)::Logit;
    in.places.walk == Walk::kColumns ? rank_columns<L>(in) : rank_rows<L>(in);
  });
  return ranks;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CPU, m) {
  m.impl("label_ranks", TORCH_BOX(&fused_mixup::label_ranks));
}
