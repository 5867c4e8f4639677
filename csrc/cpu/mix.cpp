// mix_, mix, mix_out, mix_backward, paste_ on the CPU.
//
// In place: each element is read once and written once (2N bytes), for any pairing. A tile of
// columns is walked row by row along the cycles of the pairing, so that a row is still in the
// first-level cache when it serves as its neighbour's partner; one tile of one row is saved.
// Out of place: the tile of the whole batch stays in the second-level cache, where the partner is
// found. Only the boxes are touched where no row blends.
#include <cstring>

#include "binding.h"
#include "kernels.h"
#include "walk.h"

namespace fused_mixup {
namespace {

struct Bits128 {
  uint64_t bits[2];
};

constexpr int64_t kTileBytes = 16384;
constexpr int64_t kGrainBytes = 1 << 16;  // less work than this is not worth another thread

// T moves as bits only, or has kernels to blend it.
template <typename T>
constexpr bool kBlendable = !std::is_same_v<T, Bits128>;

std::vector<Row> rows_of(int64_t batch, int pairing, const OptionalTensor& partner,
                         const Tensor* blend, const Tensor& box, const int64_t* extent) {
  STD_TORCH_CHECK(pairing != kTensor || (partner && partner->numel() == batch));
  STD_TORCH_CHECK(box.size(0) == batch && (!blend || blend->size(0) == batch));
  const int spatial = spatial_of(box);
  const int32_t* indices = partner ? static_cast<const int32_t*>(partner->data_ptr()) : nullptr;
  const double* weights = blend ? static_cast<const double*>(blend->data_ptr()) : nullptr;
  const int32_t* boxes = static_cast<const int32_t*>(box.data_ptr());
  const int64_t weight_stride = blend ? blend->stride(0) : 0;
  const int64_t box_stride = box.stride(0);
  std::vector<Row> rows(batch);
  for (int64_t i = 0; i < batch; ++i) {
    Row& row = rows[i];
    if (weights) {
      row.own = weights[i * weight_stride];
      row.other = weights[i * weight_stride + 1];
    }
    row.box = box_of_row(boxes + i * box_stride, extent, spatial);
    row.partner = partner_of(pairing, indices, i, batch);
  }
  return rows;
}

template <typename T>
void gather(T* out, const T* p, int64_t stride, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = p[i * stride];
}

template <typename T>
void scatter(T* p, int64_t stride, const T* in, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i * stride] = in[i];
}

// dst = the mix of a run of one row; all contiguous, dst may be own. ahead: the run read next.
template <typename T>
void mix_run(T* dst, const T* own, const T* partner, const T* ahead, const Row& row, Cut cut,
             int64_t n) {
  if constexpr (kBlendable<T>) {
    if (row.blends() || dst != own) {
      using A = acc_t<T>;
      const auto blend = mix_kernels<T>().blend;
      const A w0 = A(row.own), w1 = A(row.other);
      if (cut.lo > 0) blend(dst, own, partner, ahead, cut.lo, w0, w1);
      if (cut.hi < n) {
        const int64_t at = cut.hi;
        blend(dst + at, own + at, partner + at, ahead + at, n - at, w0, w1);
      }
    }
  }
  if (cut.hi > cut.lo && dst != partner) {
    std::memcpy(dst + cut.lo, partner + cut.lo, (cut.hi - cut.lo) * sizeof(T));
  }
}

template <typename T>
void swap_run(T* a, T* b, int64_t n) {
  std::swap_ranges(a, a + n, b);
}

// Two rows that are each other's partner, with the same part of the run in both boxes.
template <typename T>
void mix_pair(T* a, T* b, const Row& row_a, const Row& row_b, Cut cut, int64_t n) {
  if constexpr (kBlendable<T>) {
    if (row_a.blends() || row_b.blends()) {
      using A = acc_t<T>;
      const auto pair = mix_kernels<T>().blend_pair;
      const A w[] = {A(row_a.own), A(row_a.other), A(row_b.own), A(row_b.other)};
      if (cut.lo > 0) pair(a, b, cut.lo, w[0], w[1], w[2], w[3]);
      if (cut.hi < n) pair(a + cut.hi, b + cut.hi, n - cut.hi, w[0], w[1], w[2], w[3]);
    }
  }
  if (cut.hi > cut.lo) swap_run(a + cut.lo, b + cut.lo, cut.hi - cut.lo);
}

// In the arithmetic type: a tiny λ is 0 there, and drops its term.
template <typename T>
bool nonzero_weights(const Row& row) {
  if constexpr (kBlendable<T>) return acc_t<T>(row.own) != 0 && acc_t<T>(row.other) != 0;
  return true;
}

// What one step does to the runs of one tile. saved: the tile of the row that a cycle started with.
template <typename T>
struct InPlace {
  static constexpr int64_t kTile = kTileBytes / sizeof(T);

  T* x;
  int64_t batch_stride;
  const std::vector<Row>& rows;
  const Tiles& tiles;
  bool blends;
  alignas(64) T saved[kTile];
  alignas(64) T own_part[kTile];
  alignas(64) T partner_part[kTile];

  void step(const Step& step, int64_t ahead, const Run* runs, int n) {
    for (int r = 0; r < n; ++r) {
      T* keep = saved + r * tiles.piece();
      tiles.dst_stride() == 1 ? adjacent(step, ahead, runs[r], keep) : apart(step, runs[r], keep);
    }
  }

  void adjacent(const Step& step, int64_t ahead, const Run& run, T* keep) {
    const Row& row = rows[step.row];
    T* own = x + step.row * batch_stride + run.dst;
    T* partner = x + row.partner * batch_stride + run.dst;
    const Cut cut = tiles.cut(run, row.box);
    if (step.kind != Step::kPair) {
      if (step.kind == Step::kSave) std::memcpy(keep, own, run.length * sizeof(T));
      const T* source = step.kind == Step::kSaved ? keep : partner;
      const T* next = x + ahead * batch_stride + run.dst;
      mix_run(own, own, source, next, row, cut, run.length);
      return;
    }
    const Row& partner_row = rows[row.partner];
    const Cut other = tiles.cut(run, partner_row.box);
    const bool same_cut = cut.lo == other.lo && cut.hi == other.hi;
    if (same_cut && (!blends || (nonzero_weights<T>(row) && nonzero_weights<T>(partner_row)))) {
      mix_pair(own, partner, row, partner_row, cut, run.length);
    } else {
      std::memcpy(keep, own, run.length * sizeof(T));
      mix_run(own, own, partner, partner, row, cut, run.length);
      mix_run(partner, partner, keep, keep, partner_row, other, run.length);
    }
  }

  // Innermost elements apart in memory: through contiguous copies of the run.
  void apart(const Step& step, const Run& run, T* keep) {
    const Row& row = rows[step.row];
    const int64_t stride = tiles.dst_stride();
    T* own = x + step.row * batch_stride + run.dst;
    T* partner = x + row.partner * batch_stride + run.dst;
    gather(own_part, own, stride, run.length);
    gather(partner_part, partner, stride, run.length);
    if (step.kind == Step::kPair || step.kind == Step::kSave) {
      std::memcpy(keep, own_part, run.length * sizeof(T));
    }
    const T* source = step.kind == Step::kSaved ? keep : partner_part;
    mix_run(own_part, own_part, source, source, row, tiles.cut(run, row.box), run.length);
    scatter(own, stride, own_part, run.length);
    if (step.kind != Step::kPair) return;
    const Row& partner_row = rows[row.partner];
    const Cut other = tiles.cut(run, partner_row.box);
    mix_run(partner_part, partner_part, keep, keep, partner_row, other, run.length);
    scatter(partner, stride, partner_part, run.length);
  }
};

template <typename T>
void mix_in_place(T* x, int64_t batch_stride, const Layout& whole, int spatial,
                  const std::vector<Row>& rows) {
  const std::vector<Step> steps = in_place_order(rows);
  if (steps.empty()) return;
  const std::vector<int64_t> ahead = rows_ahead(steps, rows);
  const bool blends = std::any_of(rows.begin(), rows.end(), [](auto& r) { return r.blends(); });
  int64_t origin[kMaxDims] = {};
  const Layout layout = blends ? whole : crop_to_boxes(whole, rows, spatial, origin);
  const Tiles tiles(layout, origin, InPlace<T>::kTile);
  const int64_t count = tiles.count(), step_count = int64_t(steps.size());
  // Pairs depend on no other step: each is walked along its samples, in long runs of memory. A
  // cycle is walked tile by tile, so that a row is still in cache when it is its neighbour's
  // partner.
  const bool independent = std::all_of(steps.begin(), steps.end(), [&](const Step& s) {
    return s.kind == Step::kPair || rows[s.row].partner == s.row;
  });
  const int64_t work = independent ? count * step_count : count;
  const int64_t bytes = tiles.elements() * int64_t(sizeof(T)) * (independent ? 1 : step_count);
  torch::stable::parallel_for(0, work, 1 + kGrainBytes / bytes, [&](int64_t begin, int64_t end) {
    InPlace<T> mix{x, batch_stride, rows, tiles, blends, {}, {}, {}};
    Run runs[Tiles::kMaxRuns];
    for (int64_t w = begin; w < end; ++w) {
      const int n = tiles.runs_of(w % count, runs);
      const int64_t first = independent ? w / count : 0;
      const int64_t last = independent ? first + 1 : step_count;
      for (int64_t s = first; s < last; ++s) {
        mix.step(steps[s], independent ? steps[s].row : ahead[s], runs, n);
      }
    }
  });
}

// Out of place. Forward: sources of row i are its partner. Transposed (the backward): row j takes
// its own part, and the partner part of every row i whose partner is j, with row i's weight and
// box; the list of those rows is sources[offsets[j], offsets[j+1]).
struct Sources {
  bool transposed = false;
  std::vector<int64_t> offsets;
  std::vector<int64_t> sources;
};

template <typename T>
void add_transposed(T* dst, const T* x, int64_t x_stride, int64_t inner_stride, int64_t j,
                    const std::vector<Row>& rows, const Sources& from, const Tiles& tiles,
                    const Run& run, T* part) {
  using A = acc_t<T>;
  constexpr int64_t kTile = kTileBytes / sizeof(T);
  alignas(64) A sum[kTile];
  const auto accumulate = mix_kernels<T>().accumulate;
  const auto values = [&](int64_t i) {
    const T* p = x + i * x_stride + run.src;
    if (inner_stride == 1) return p;
    gather(part, p, inner_stride, run.length);
    return static_cast<const T*>(part);
  };
  const auto add = [&](const T* p, int64_t begin, int64_t end, double w) {
    if (end > begin && A(w) != 0) accumulate(sum + begin, p + begin, end - begin, A(w));
  };
  std::fill_n(sum, run.length, A(0));
  const Cut own = tiles.cut(run, rows[j].box);
  const T* p = values(j);
  add(p, 0, own.lo, rows[j].own);
  add(p, own.hi, run.length, rows[j].own);
  for (int64_t k = from.offsets[j]; k < from.offsets[j + 1]; ++k) {
    const int64_t i = from.sources[k];
    const Cut cut = tiles.cut(run, rows[i].box);
    p = values(i);
    add(p, 0, cut.lo, rows[i].other);
    add(p, cut.lo, cut.hi, 1.0);
    add(p, cut.hi, run.length, rows[i].other);
  }
  mix_kernels<T>().round(dst, sum, run.length);
}

template <typename T>
void mix_out_of_place(T* out, int64_t out_stride, const T* x, int64_t x_stride,
                      const Layout& layout, const std::vector<Row>& rows, const Sources& from) {
  const int64_t batch = int64_t(rows.size());
  const int64_t origin[kMaxDims] = {};
  constexpr int64_t kTile = kTileBytes / sizeof(T);
  const Tiles tiles(layout, origin, kTile);
  const int64_t grain = 1 + kGrainBytes / (tiles.elements() * sizeof(T) * batch + 1);
  torch::stable::parallel_for(0, tiles.count(), grain, [&](int64_t begin, int64_t end) {
    alignas(64) T out_part[kTile];
    alignas(64) T own_part[kTile];
    alignas(64) T partner_part[kTile];
    Run runs[Tiles::kMaxRuns];
    for (int64_t t = begin; t < end; ++t) {
      const int n = tiles.runs_of(t, runs);
      for (int64_t i = 0; i < batch; ++i) {
        for (int r = 0; r < n; ++r) {
          const Run& run = runs[r];
          T* dst = out + i * out_stride + run.dst;
          T* target = tiles.dst_stride() == 1 ? dst : out_part;
          if (from.transposed) {
            add_transposed(target, x, x_stride, tiles.src_stride(), i, rows, from, tiles, run,
                           own_part);
          } else {
            const T* own = x + i * x_stride + run.src;
            const T* partner = x + rows[i].partner * x_stride + run.src;
            if (tiles.src_stride() != 1) {
              gather(own_part, own, tiles.src_stride(), run.length);
              gather(partner_part, partner, tiles.src_stride(), run.length);
              own = own_part;
              partner = partner_part;
            }
            mix_run(target, own, partner, partner, rows[i], tiles.cut(run, rows[i].box),
                    run.length);
          }
          if (target != dst) scatter(dst, tiles.dst_stride(), out_part, run.length);
        }
      }
    }
  });
}

// Calls f with a null pointer of the type that stores `dtype`.
template <typename F>
void dispatch_dtype(ScalarType dtype, const F& f) {
  switch (dtype) {
    case ScalarType::Float:
      return f(static_cast<float*>(nullptr));
    case ScalarType::Double:
      return f(static_cast<double*>(nullptr));
    case ScalarType::Half:
      return f(static_cast<Half*>(nullptr));
    case ScalarType::BFloat16:
      return f(static_cast<BFloat16*>(nullptr));
    case ScalarType::Byte:
      return f(static_cast<uint8_t*>(nullptr));
    default:
      STD_TORCH_CHECK(false, "fused_mixup: dtype that cannot be blended");
  }
}

// The same by size alone, where values only move.
template <typename F>
void dispatch_size(size_t bytes, const F& f) {
  switch (bytes) {
    case 1:
      return f(static_cast<uint8_t*>(nullptr));
    case 2:
      return f(static_cast<Half*>(nullptr));
    case 4:
      return f(static_cast<float*>(nullptr));
    case 8:
      return f(static_cast<double*>(nullptr));
    case 16:
      return f(static_cast<Bits128*>(nullptr));
    default:
      STD_TORCH_CHECK(false, "fused_mixup: element size that cannot be moved");
  }
}

bool any_box(const std::vector<Row>& rows) {
  return std::any_of(rows.begin(), rows.end(), [](const Row& row) { return !row.box.empty; });
}

const int64_t* extent_of(const Tensor& x, const Tensor& box) {
  return x.sizes().data() + x.dim() - spatial_of(box);
}

void run_in_place(const Tensor& x, const std::vector<Row>& rows, const Tensor& box, bool bits) {
  const int spatial = any_box(rows) ? spatial_of(box) : 0;
  const Layout layout = layout_of(x, x, spatial);
  const auto run = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    mix_in_place(static_cast<T*>(x.data_ptr()), x.stride(0), layout, spatial, rows);
  };
  bits ? dispatch_size(x.element_size(), run) : dispatch_dtype(x.scalar_type(), run);
}

void run_out_of_place(const Tensor& out, const Tensor& x, const std::vector<Row>& rows,
                      const Tensor& box, const Sources& from) {
  const Layout layout = layout_of(out, x, any_box(rows) ? spatial_of(box) : 0);
  dispatch_dtype(x.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    mix_out_of_place(static_cast<T*>(out.data_ptr()), out.stride(0),
                     static_cast<const T*>(x.data_ptr()), x.stride(0), layout, rows, from);
  });
}

void mix_(Tensor x, OptionalTensor partner, Tensor blend, Tensor box, int64_t pairing) {
  if (x.numel() == 0) return;
  const auto rows = rows_of(x.size(0), int(pairing), partner, &blend, box, extent_of(x, box));
  run_in_place(x, rows, box, false);
}

void paste_(Tensor x, OptionalTensor partner, Tensor box, int64_t pairing) {
  if (x.numel() == 0) return;
  const auto rows = rows_of(x.size(0), int(pairing), partner, nullptr, box, extent_of(x, box));
  run_in_place(x, rows, box, true);
}

void mix_out(Tensor x, OptionalTensor partner, Tensor blend, Tensor box, int64_t pairing,
             Tensor out) {
  if (x.numel() == 0) return;
  const auto rows = rows_of(x.size(0), int(pairing), partner, &blend, box, extent_of(x, box));
  run_out_of_place(out, x, rows, box, {});
}

Tensor mix(Tensor x, OptionalTensor partner, Tensor blend, Tensor box, int64_t pairing) {
  Tensor out = torch::stable::empty_like(x);
  mix_out(x, partner, blend, box, pairing, out);
  return out;
}

Tensor mix_backward(Tensor grad, OptionalTensor partner, OptionalTensor sources,
                    OptionalTensor offsets, Tensor blend, Tensor box, int64_t pairing) {
  Tensor out = torch::stable::empty_like(grad);
  if (grad.numel() == 0) return out;
  const int64_t batch = grad.size(0);
  const auto rows = rows_of(batch, int(pairing), partner, &blend, box, extent_of(grad, box));
  STD_TORCH_CHECK(pairing != kTensor || (sources && sources->numel() == batch && offsets &&
                                         offsets->numel() == batch + 1));
  Sources from;
  from.transposed = true;
  from.offsets.resize(batch + 1);
  from.sources.resize(batch);
  for (int64_t j = 0; j < batch; ++j) {
    if (pairing == kTensor) {
      from.offsets[j + 1] = static_cast<const int32_t*>(offsets->data_ptr())[j + 1];
      from.sources[j] = static_cast<const int32_t*>(sources->data_ptr())[j];
    } else {
      from.offsets[j + 1] = j + 1;
      from.sources[rows[j].partner] = j;
    }
  }
  run_out_of_place(out, grad, rows, box, from);
  return out;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(fused_mixup, CPU, m) {
  m.impl("mix_", TORCH_BOX(&fused_mixup::mix_));
  m.impl("mix", TORCH_BOX(&fused_mixup::mix));
  m.impl("mix_out", TORCH_BOX(&fused_mixup::mix_out));
  m.impl("mix_backward", TORCH_BOX(&fused_mixup::mix_backward));
  m.impl("paste_", TORCH_BOX(&fused_mixup::paste_));
}
