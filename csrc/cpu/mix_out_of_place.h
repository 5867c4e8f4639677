// The walk of mix and mix_backward: N bytes read from memory and N written. One tile of all samples
// stays in the second-level cache, from where the partner is read.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "mix_runs.h"
#include "stream.h"

namespace fused_mixup {

constexpr int64_t kFewTiles = 16;  // enough for some parts for each of a machine's threads

// Which rows a row is made of. Forward: itself and its partner. Transposed (the backward): row j
// takes its own part, and the partner part of every row i whose partner is j, with row i's weight
// and box; those rows are sources[offsets[j], offsets[j+1]).
struct Sources {
  bool transposed = false;
  std::vector<int64_t> offsets;
  std::vector<int64_t> sources;
};

template <typename T>
void add_transposed(T* dst, const T* x, int64_t x_stride, int64_t inner_stride, int64_t j,
                    const std::vector<PlanRow>& rows, const Sources& from, const Tiles& tiles,
                    const Run& run, T* part, const Writer& writer) {
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
  const RunSpan own = tiles.span(run, rows[j].box);
  const T* p = values(j);
  add(p, 0, own.from, rows[j].own);
  add(p, own.to, run.length, rows[j].own);
  for (int64_t k = from.offsets[j]; k < from.offsets[j + 1]; ++k) {
    const int64_t i = from.sources[k];
    const RunSpan span = tiles.span(run, rows[i].box);
    p = values(i);
    add(p, 0, span.from, rows[i].other);
    add(p, span.from, span.to, 1.0);
    add(p, span.to, run.length, rows[i].other);
  }
  writer.write(dst, run.length,
               [&](T* to, int64_t at, int64_t n) { mix_kernels<T>().round(to, sum + at, n); });
}

// Copies a row that is not blended: its own values in as few copies as the layout allows, then the
// box.
template <typename T>
void copy_row(T* dst, const T* own, const T* partner, const Box& box, const Tiles& tiles,
              const Run* runs, int n) {
  for (int r = 0, next; r < n; r = next) {
    int64_t length = runs[r].length;
    for (next = r + 1; next < n; ++next) {
      if (runs[next].dst != runs[r].dst + length || runs[next].src != runs[r].src + length) break;
      length += runs[next].length;
    }
    std::memcpy(dst + runs[r].dst, own + runs[r].src, length * sizeof(T));
  }
  for (int r = 0; r < n; ++r) {
    const RunSpan span = tiles.span(runs[r], box);
    if (span.to <= span.from) continue;
    std::memcpy(dst + runs[r].dst + span.from, partner + runs[r].src + span.from,
                (span.to - span.from) * sizeof(T));
  }
}

// The rows of the transposed plan as those of a plan: for a permutation without boxes. Else none.
inline std::vector<PlanRow> transposed_rows(const std::vector<PlanRow>& rows, const Sources& from) {
  std::vector<PlanRow> found(rows.size());
  for (size_t j = 0; j < rows.size(); ++j) {
    if (from.offsets[j + 1] != from.offsets[j] + 1 || !rows[j].box.empty) return {};
    const int64_t i = from.sources[from.offsets[j]];
    found[j].own = rows[j].own;
    found[j].other = rows[i].other;
    found[j].partner = i;
  }
  return found;
}

template <typename T>
void mix_out_of_place(T* out, int64_t out_stride, const T* x, int64_t x_stride,
                      const Layout& layout, const std::vector<PlanRow>& rows, const Sources& from) {
  const int64_t batch = int64_t(rows.size());
  const int64_t origin[kMaxDims] = {};
  constexpr int64_t kTile = kTileBytes / sizeof(T);
  const Tiles tiles(layout, origin, kTile);
  const bool adjacent = tiles.dst_stride() == 1 && tiles.src_stride() == 1;
  // Where there are few tiles (tokens, rows of a table), threads share the samples of a tile too.
  const int64_t bytes = tiles.count() * tiles.elements() * batch * int64_t(sizeof(T));
  int64_t shares = 1, share = batch;
  if (bytes > 2 * kGrainBytes && tiles.count() < kFewTiles) {
    shares = std::min({batch, kFewTiles / tiles.count(), bytes / kGrainBytes});
    share = (batch + shares - 1) / shares;
  }
  const int64_t grain = 1 + kGrainBytes / (tiles.elements() * sizeof(T) * share + 1);
  torch::stable::parallel_for(0, tiles.count() * shares, grain, [&](int64_t begin, int64_t end) {
    alignas(64) T out_part[kTile];
    alignas(64) T own_part[kTile];
    alignas(64) T partner_part[kTile];
    Run runs[Tiles::kMaxRuns];
    const Writer writer(tiles.dst_stride() == 1 ? bytes : 0);
    for (int64_t u = begin; u < end; ++u) {
      const int n = tiles.runs_of(u / shares, runs);
      const int64_t first = u % shares * share, last = std::min(first + share, batch);
      for (int64_t i = first; i < last; ++i) {
        if (adjacent && !from.transposed && !rows[i].blends()) {
          const T* partner = x + rows[i].partner * x_stride;
          copy_row(out + i * out_stride, x + i * x_stride, partner, rows[i].box, tiles, runs, n);
          continue;
        }
        for (int r = 0; r < n; ++r) {
          const Run& run = runs[r];
          T* dst = out + i * out_stride + run.dst;
          T* target = tiles.dst_stride() == 1 ? dst : out_part;
          if (from.transposed) {
            add_transposed(target, x, x_stride, tiles.src_stride(), i, rows, from, tiles, run,
                           own_part, writer);
          } else {
            const T* own = x + i * x_stride + run.src;
            const T* partner = x + rows[i].partner * x_stride + run.src;
            if (tiles.src_stride() != 1) {
              gather(own_part, own, tiles.src_stride(), run.length);
              gather(partner_part, partner, tiles.src_stride(), run.length);
              own = own_part;
              partner = partner_part;
            }
            const RunSpan span = tiles.span(run, rows[i].box);
            if (!writer.streams()) {  // short runs feel the arithmetic of parts
              mix_run(target, own, partner, partner, rows[i], span, run.length);
            } else {
              writer.write(target, run.length, [&](T* to, int64_t at, int64_t count) {
                mix_run(to, own + at, partner + at, partner + at, rows[i], span.part(at, count),
                        count);
              });
            }
          }
          if (target != dst) scatter(dst, tiles.dst_stride(), out_part, run.length);
        }
      }
    }
  });
}

}  // namespace fused_mixup
