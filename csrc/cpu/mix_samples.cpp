// mix_samples on the CPU: collates samples that lie apart in memory and mixes them in the same
// pass.
#include "mix_samples.h"

#include <algorithm>

#include "dispatch.h"
#include "mix_binding.h"

namespace fused_mixup {
namespace {

bool same_strides(const Tensor& a, const Tensor& b) {
  for (int64_t k = 0; k < a.dim(); ++k) {
    if (a.size(k) > 1 && a.stride(k) != b.stride(k)) return false;
  }
  return true;
}

// The samples of a batch come from one pipeline and lie alike; those that do not are copied first.
void make_alike(std::vector<Tensor>& samples) {  // […] each
  const bool alike = std::all_of(samples.begin(), samples.end(),
                                 [&](const Tensor& s) { return same_strides(s, samples[0]); });
  if (alike) return;
  for (Tensor& s : samples) s = torch::stable::contiguous(s);
}

void mix_samples(std::vector<Tensor> samples,  // B of […]
                 OptionalTensor partner,       // int32 [B]
                 Tensor blend,                 // float64 [B, 2]
                 Tensor box,                   // int32 [B, 2·D]
                 int64_t pairing,
                 Tensor out) {  // [n, …], n <= B
  expect(out.defined(), "out", "a tensor");
  if (out.numel() == 0) return;
  const int64_t batch = int64_t(samples.size()), count = out.size(0);
  expect(count <= batch && out.dim() == samples[0].dim() + 1 &&
             std::equal(out.sizes().begin() + 1, out.sizes().end(), samples[0].sizes().begin()),
         "out", "shape [n, …] for samples […], no more than there are");
  const Code code = code_of(out);
  for (const Tensor& s : samples) expect_like("samples", s, code, samples[0]);
  expect_writable("out", out);
  const auto rows = rows_of(out, batch, pairing, partner, &blend, box);
  make_alike(samples);
  for (const Tensor& s : samples) expect_apart(out, s);
  if (out.is_contiguous()) on_large_pages(out);
  const auto like = sample_layout(out, samples[0], any_box(rows) ? spatial_of(box) : 0);
  dispatch_blendable(out.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    std::vector<const T*> values(batch);
    for (int64_t i = 0; i < batch; ++i) values[i] = data<T>(samples[i]);
    const int64_t origin[kMaxDims] = {};
    const Tiles tiles(like.layout, origin, whole_lines(SampleMixer<T>::kTile / like.channels));
    const SampleOrder order = order_of<T>(rows, count);
    T* first = data<T>(out);
    const int64_t tile_bytes = tiles.elements() * like.channels * int64_t(sizeof(T));
    // f(mixer, k) for k < n, each for `tile_rows` rows of a tile.
    const auto each = [&](int64_t n, int64_t tile_rows, auto f) {
      if (n == 0 || tile_rows == 0) return;
      const int64_t grain = 1 + kGrainBytes / (tile_bytes * tile_rows);
      parallel_for(0, n, grain, [&](int64_t begin, int64_t end) {
        SampleMixer<T> mixer{first,
                             out.stride(0),
                             values,
                             rows,
                             tiles,
                             like.channels,
                             like.channel_stride,
                             nullptr,
                             {},
                             0,
                             {},
                             {},
                             {}};
        for (int64_t k = begin; k < end; ++k) f(mixer, k);
      });
    };
    const int64_t count_of_tiles = tiles.count();
    each(int64_t(order.pairs.size()) * count_of_tiles, 2, [&](auto& mixer, int64_t k) {
      mixer.mix_pair_in_tile(order.pairs[k / count_of_tiles], k % count_of_tiles);
    });
    each(count_of_tiles, int64_t(order.rest.size()),
         [&](auto& mixer, int64_t k) { mixer.mix_rows_in_tile(k, order.rest); });
  });
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("mix_samples", TORCH_BOX(&fused_mixup::mix_samples));
}
