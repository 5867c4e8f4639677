// mix_samples on the CPU: samples that lie apart in memory, mixed straight into a batch. Each is
// read once as itself and once, from the cache, as a partner; the batch is written once.
//
// A tile of columns is walked sample by sample along the pairing, so that a sample is still in the
// second-level cache when it serves as its neighbour's partner. Inside a tile, runs that follow
// each other in memory are blended or copied as one stretch; the lines of a box come after, from
// the partner.
#include <algorithm>

#include "mix_binding.h"
#include "mix_runs.h"

namespace fused_mixup {
namespace {

constexpr int64_t kMaxChannels = 64;  // that are taken apart stretch by stretch

// How samples lie, all alike, beside the batch. Where channels come last in the samples and not in
// the batch (images as a decoder gives them), the layout is that of the other dims, and each of
// its elements stands for `channels` neighbours.
struct SampleLayout {
  Layout layout;
  int64_t channels = 1;
  int64_t channel_stride = 0;  // in the batch
};

SampleLayout sample_layout(const Tensor& out, const Tensor& sample, int spatial) {
  const int ndim = int(sample.dim());
  const int64_t* size = sample.sizes().data();
  const int64_t* src = sample.strides().data();
  const int64_t* dst = out.strides().data() + 1;
  SampleLayout found;
  found.layout = make_layout(size, dst, src, ndim, spatial);
  for (int k = 0; k < ndim - spatial; ++k) {
    if (size[k] == 1 || size[k] > kMaxChannels || src[k] != 1 || dst[k] == 1) continue;
    int64_t rest[3][kMaxDims];
    int n = 0;
    for (int j = 0; j < ndim; ++j) {
      if (j == k) continue;
      rest[0][n] = size[j];
      rest[1][n] = dst[j];
      rest[2][n++] = src[j];
    }
    const Layout pixels = make_layout(rest[0], rest[1], rest[2], n, spatial);
    const int inner = pixels.ndim - 1;
    if (inner >= 0 && pixels.src_stride[inner] == size[k] && pixels.dst_stride[inner] == 1) {
      return {pixels, size[k], dst[k]};
    }
  }
  return found;
}

// The first n rows, each followed by its partner where that is not in the order yet.
std::vector<int64_t> partner_order(const std::vector<Row>& rows, int64_t n) {
  std::vector<int64_t> order;
  order.reserve(n);
  std::vector<uint8_t> done(n, 0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i; j < n && !done[j]; j = rows[j].partner) {
      done[j] = 1;
      order.push_back(j);
    }
  }
  return order;
}

// A line of a box: offsets from the stretch that it lies in.
struct Paste {
  int64_t dst, src, length;
};

template <typename T>
struct Collate {
  using A = acc_t<T>;
  static constexpr int64_t kTile = kTileBytes / sizeof(T);

  T* out;
  int64_t out_stride;
  const std::vector<const T*>& samples;
  const std::vector<Row>& rows;
  const Tiles& tiles;
  int64_t channels, channel_stride;
  // The lines of seen_box in the runs that start at `seen`.
  const Run* seen;
  Box seen_box;
  int pasted;
  Paste pastes[Tiles::kMaxRuns];
  alignas(64) T own_part[kTile];
  alignas(64) T partner_part[kTile];

  bool adjacent() const { return tiles.dst_stride() == 1 && tiles.src_stride() == channels; }

  // dst = src, n elements of the layout, from the strides of a sample to those of the batch.
  void put(T* dst, const T* src, int64_t n) const {
    if (!adjacent()) {
      const int64_t to = tiles.dst_stride(), from = tiles.src_stride();
      for (int64_t i = 0; i < n; ++i) dst[i * to] = src[i * from];
    } else if (channels > 1) {
      mix_kernels<T>().split(dst, channel_stride, src, n, channels);
    } else {
      std::memcpy(dst, src, n * sizeof(T));
    }
  }

  void blend(T* dst, const T* own, const T* partner, const T* ahead, const Row& row, int64_t n) {
    const auto kernel = mix_kernels<T>().blend;
    const A w0 = A(row.own), w1 = A(row.other);
    if (!adjacent()) {
      gather(own_part, own, tiles.src_stride(), n);
      gather(partner_part, partner, tiles.src_stride(), n);
      kernel(own_part, own_part, partner_part, partner_part, n, w0, w1);
      scatter(dst, tiles.dst_stride(), own_part, n);
    } else if (channels > 1) {
      kernel(own_part, own, partner, ahead, n * channels, w0, w1);
      put(dst, own_part, n);
    } else {
      kernel(dst, own, partner, ahead, n, w0, w1);
    }
  }

  // Runs [first, last) of one row, one stretch of `length` elements. next: the row after.
  void stretch(int64_t i, int64_t next, const Run* first, const Run* last, int64_t length) {
    const Row& row = rows[i];
    const T* own = samples[i] + first->src;
    const T* partner = samples[row.partner] + first->src;
    T* dst = out + i * out_stride + first->dst;
    if (row.blends()) {
      blend(dst, own, partner, samples[next] + first->src, row, length);
    } else {
      put(dst, own, length);
    }
    if (row.box.empty) return;
    see_box(row.box, first, last);
    for (int k = 0; k < pasted; ++k) {
      const Paste& p = pastes[k];
      put(dst + p.dst, partner + p.src, p.length);
    }
  }

  // Fills pastes with the lines of a box in these runs; most often it is the row's before.
  void see_box(const Box& box, const Run* first, const Run* last) {
    if (seen == first && box == seen_box) return;
    seen = first;
    seen_box = box;
    pasted = 0;
    for (const Run* run = first; run < last; ++run) {
      const Cut cut = tiles.cut(*run, box);
      if (cut.hi <= cut.lo) continue;
      pastes[pasted++] = {run->dst - first->dst + cut.lo * tiles.dst_stride(),
                          run->src - first->src + cut.lo * tiles.src_stride(), cut.hi - cut.lo};
    }
  }

  void tile(int64_t t, const std::vector<int64_t>& order) {
    Run runs[Tiles::kMaxRuns];
    const int n = tiles.runs_of(t, runs);
    const int64_t count = int64_t(order.size());
    seen = nullptr;
    for (int first = 0, last; first < n; first = last) {
      int64_t length = runs[first].length;
      for (last = first + 1; last < n && continues(runs[last - 1], runs[last]); ++last) {
        length += runs[last].length;
      }
      for (int64_t k = 0; k < count; ++k) {
        // The next row's own samples came as this one's partner.
        const int64_t next = order[std::min(k + 2, count - 1)];
        stretch(order[k], next, runs + first, runs + last, length);
      }
    }
  }

  bool continues(const Run& a, const Run& b) const {
    return adjacent() && b.dst == a.dst + a.length && b.src == a.src + a.length * channels;
  }
};

bool same_sizes(const Tensor& a, const Tensor& b) {
  return a.dim() == b.dim() && std::equal(a.sizes().begin(), a.sizes().end(), b.sizes().begin());
}

bool same_strides(const Tensor& a, const Tensor& b) {
  for (int64_t k = 0; k < a.dim(); ++k) {
    if (a.size(k) > 1 && a.stride(k) != b.stride(k)) return false;
  }
  return true;
}

// Samples of one batch come from one pipeline and lie alike; those that do not are copied first.
void make_alike(std::vector<Tensor>& samples) {
  const bool alike = std::all_of(samples.begin(), samples.end(),
                                 [&](const Tensor& s) { return same_strides(s, samples[0]); });
  if (alike) return;
  for (Tensor& s : samples) s = torch::stable::contiguous(s);
}

void mix_samples(std::vector<Tensor> samples, OptionalTensor partner, Tensor blend, Tensor box,
                 int64_t pairing, Tensor out) {
  if (out.numel() == 0) return;
  if (out.is_contiguous()) on_large_pages(out);
  const int64_t batch = int64_t(samples.size()), count = out.size(0);
  STD_TORCH_CHECK(count <= batch && out.dim() == samples[0].dim() + 1);
  for (const Tensor& s : samples) {
    STD_TORCH_CHECK(same_sizes(s, samples[0]) && s.scalar_type() == out.scalar_type() &&
                    s.is_cpu());
  }
  STD_TORCH_CHECK(
      std::equal(samples[0].sizes().begin(), samples[0].sizes().end(), out.sizes().begin() + 1));
  make_alike(samples);
  const int64_t* extent = samples[0].sizes().data() + samples[0].dim() - spatial_of(box);
  const auto rows = rows_of(batch, int(pairing), partner, &blend, box, extent);
  const auto order = partner_order(rows, count);
  const auto like = sample_layout(out, samples[0], any_box(rows) ? spatial_of(box) : 0);
  dispatch_dtype(out.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    std::vector<const T*> data(batch);
    for (int64_t i = 0; i < batch; ++i) data[i] = static_cast<const T*>(samples[i].data_ptr());
    const int64_t origin[kMaxDims] = {};
    const Tiles tiles(like.layout, origin, Collate<T>::kTile / like.channels);
    const int64_t bytes = tiles.elements() * like.channels * int64_t(sizeof(T)) * count;
    T* first = static_cast<T*>(out.data_ptr());
    torch::stable::parallel_for(0, tiles.count(), 1 + kGrainBytes / bytes,
                                [&](int64_t begin, int64_t end) {
                                  Collate<T> collate{first,
                                                     out.stride(0),
                                                     data,
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
                                  for (int64_t t = begin; t < end; ++t) collate.tile(t, order);
                                });
  });
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CPU, m) {
  m.impl("mix_samples", TORCH_BOX(&fused_mixup::mix_samples));
}
