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

// What one pass reads and writes: one row; a pair, each the other's partner; or a chain, in which
// each row blends with the next. In a pair or a chain a row is loaded once for both of its uses.
struct Pass {
  int64_t row[kChainRows];
  int count;
};

// Whether a row may be part of a pair or a chain: it blends, everywhere.
template <typename T>
bool only_blends(const PlanRow& row) {
  return kBlendable<T> && row.box.empty && nonzero_weights<T>(row);
}

template <typename T>
std::vector<Pass> passes_of(const std::vector<PlanRow>& rows, bool together) {
  const int64_t batch = int64_t(rows.size());
  std::vector<Pass> passes;
  passes.reserve(batch);
  std::vector<uint8_t> done(batch, 0);
  const auto add = [&](const int64_t* row, int count) {
    Pass pass{{}, count};
    for (int k = 0; k < count; ++k) done[pass.row[k] = row[k]] = 1;
    passes.push_back(pass);
  };
  // Walks along the pairing while it yields pairs and chains: the next chain starts with the row
  // that the last one has just read.
  for (int64_t i = 0; together && i < batch; ++i) {
    for (int64_t first = i;;) {
      int64_t found[kChainRows], next = first;
      int length = 0;
      while (length < kChainRows && !done[next] && only_blends<T>(rows[next]) &&
             std::find(found, found + length, next) == found + length) {
        found[length++] = next;
        next = rows[next].partner;
      }
      const bool pair = length == 2 && next == first;
      if (!pair && length < kChainRows) break;
      add(found, length);
      first = next;
    }
  }
  for (int64_t i = 0; i < batch; ++i) {
    if (!done[i]) add(&i, 1);
  }
  return passes;
}

// Makes the runs of one tile of `out`.
template <typename T>
struct OutOfPlace {
  static constexpr int64_t kTile = kTileBytes / sizeof(T);

  T* out;
  int64_t out_stride;
  const T* x;
  int64_t x_stride;
  const std::vector<PlanRow>& rows;
  const Sources& from;
  const Tiles& tiles;
  const Writer writer;
  alignas(64) T out_part[kTile];
  alignas(64) T own_part[kTile];
  alignas(64) T partner_part[kTile];

  void step(const Pass& pass, const Run* runs, int n) {
    if (pass.count == 1) return one_row(pass.row[0], runs, n);
    for (int r = 0; r < n; ++r) {
      pass.count == 2 ? pair(pass, runs[r]) : chain(pass, runs[r]);
    }
  }

 private:
  const T* source(int64_t i, const Run& run) const { return x + i * x_stride + run.src; }
  T* result(int64_t i, const Run& run) const { return out + i * out_stride + run.dst; }
  acc_t<T> own_weight(int64_t i) const { return acc_t<T>(rows[i].own); }
  acc_t<T> other_weight(int64_t i) const { return acc_t<T>(rows[i].other); }

  void pair(const Pass& pass, const Run& run) const {
    if constexpr (kBlendable<T>) {
      const int64_t i = pass.row[0], j = pass.row[1];
      const T *a = source(i, run), *b = source(j, run);
      T* const targets[] = {result(i, run), result(j, run)};
      writer.write_runs(targets, run.length, [&](T* const* to, int64_t at, int64_t count) {
        mix_kernels<T>().blend_pair(to[0], to[1], a + at, b + at, count, own_weight(i),
                                    other_weight(i), own_weight(j), other_weight(j));
      });
    }
  }

  void chain(const Pass& pass, const Run& run) const {
    if constexpr (kBlendable<T>) {
      acc_t<T> own[kChainRows], other[kChainRows];
      const T* sources[kChainRows + 1];
      T* targets[kChainRows];
      for (int k = 0; k < kChainRows; ++k) {
        own[k] = own_weight(pass.row[k]);
        other[k] = other_weight(pass.row[k]);
        sources[k] = source(pass.row[k], run);
        targets[k] = result(pass.row[k], run);
      }
      sources[kChainRows] = source(rows[pass.row[kChainRows - 1]].partner, run);
      writer.write_runs(targets, run.length, [&](T* const* to, int64_t at, int64_t count) {
        const T* here[kChainRows + 1];
        for (int k = 0; k <= kChainRows; ++k) here[k] = sources[k] + at;
        mix_kernels<T>().blend_chain(to, here, count, own, other);
      });
    }
  }

  void one_row(int64_t i, const Run* runs, int n) {
    const bool adjacent = tiles.dst_stride() == 1 && tiles.src_stride() == 1;
    if (adjacent && !from.transposed && !rows[i].blends()) {
      const T* partner = x + rows[i].partner * x_stride;
      copy_row(out + i * out_stride, x + i * x_stride, partner, rows[i].box, tiles, runs, n);
      return;
    }
    for (int r = 0; r < n; ++r) {
      const Run& run = runs[r];
      T* dst = result(i, run);
      T* target = tiles.dst_stride() == 1 ? dst : out_part;
      if (from.transposed) {
        add_transposed(target, x, x_stride, tiles.src_stride(), i, rows, from, tiles, run, own_part,
                       writer);
      } else {
        one_run(target, i, run);
      }
      if (target != dst) scatter(dst, tiles.dst_stride(), out_part, run.length);
    }
  }

  void one_run(T* target, int64_t i, const Run& run) {
    const PlanRow& row = rows[i];
    const T *own = source(i, run), *partner = source(row.partner, run);
    if (tiles.src_stride() != 1) {
      gather(own_part, own, tiles.src_stride(), run.length);
      gather(partner_part, partner, tiles.src_stride(), run.length);
      own = own_part;
      partner = partner_part;
    }
    const RunSpan span = tiles.span(run, row.box);
    if (!writer.streams()) {  // short runs feel the arithmetic of parts
      return mix_run(target, own, partner, partner, row, span, run.length);
    }
    writer.write(target, run.length, [&](T* to, int64_t at, int64_t count) {
      mix_run(to, own + at, partner + at, partner + at, row, span.part(at, count), count);
    });
  }
};

template <typename T>
void mix_out_of_place(T* out, int64_t out_stride, const T* x, int64_t x_stride,
                      const Layout& layout, const std::vector<PlanRow>& rows, const Sources& from) {
  const int64_t origin[kMaxDims] = {};
  const Tiles tiles(layout, origin, OutOfPlace<T>::kTile);
  const bool adjacent = tiles.dst_stride() == 1 && tiles.src_stride() == 1;
  const std::vector<Pass> passes = passes_of<T>(rows, adjacent && !from.transposed);
  const int64_t steps = int64_t(passes.size());
  // Where there are few tiles (tokens, rows of a table), threads share the samples of a tile too.
  const int64_t bytes = tiles.count() * tiles.elements() * int64_t(rows.size() * sizeof(T));
  int64_t shares = 1;
  if (bytes > 2 * kGrainBytes && tiles.count() < kFewTiles) {
    shares = std::min({steps, kFewTiles / tiles.count(), bytes / kGrainBytes});
  }
  const int64_t share = (steps + shares - 1) / shares;
  const int64_t grain = 1 + kGrainBytes * tiles.count() * shares / bytes;
  parallel_for(0, tiles.count() * shares, grain, [&](int64_t begin, int64_t end) {
    const int64_t adjacent_bytes = tiles.dst_stride() == 1 ? bytes : 0;
    OutOfPlace<T> mix{out, out_stride, x, x_stride, rows, from, tiles, Writer(adjacent_bytes),
                      {},  {},         {}};
    Run runs[Tiles::kMaxRuns];
    for (int64_t u = begin; u < end; ++u) {
      const int n = tiles.runs_of(u / shares, runs);
      const int64_t first = u % shares * share, last = std::min(first + share, steps);
      for (int64_t s = first; s < last; ++s) mix.step(passes[s], runs, n);
    }
  });
}

}  // namespace fused_mixup
