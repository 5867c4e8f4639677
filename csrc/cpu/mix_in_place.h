// The walk of mix_ and paste_: each element is read once and written once (2N bytes), for any
// pairing. A tile of columns is walked row by row along the cycles of the pairing, so that a row is
// still in the first-level cache when it serves as its neighbour's partner; one tile of one row is
// saved. Where no row blends, only the boxes are read and written.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <memory>
#include <vector>

#include "mix_runs.h"

namespace fused_mixup {

// Does the steps of a walk in the runs of one tile. saved: the tile of the row that a cycle started
// with.
template <typename T>
struct InPlace {
  static constexpr int64_t kTile = kTileBytes / sizeof(T);
  static constexpr int kAhead = 8;  // runs between a box's line and the line that is prefetched

  T* x;
  int64_t batch_stride;
  const std::vector<PlanRow>& rows;
  const Tiles& tiles;
  alignas(64) T saved[kTile];
  alignas(64) T own_part[kTile];
  alignas(64) T partner_part[kTile];

  void step(const Step& step, int64_t ahead, const Run* runs, int n) {
    const PlanRow& row = rows[step.row];
    if (step.kind == Step::kPair && swaps(row, rows[row.partner])) {
      swap(step.row, row, runs, n);
      return;
    }
    const bool boxes = !row.box.empty || (step.kind == Step::kPair && !rows[row.partner].box.empty);
    for (int r = 0, next; r < n; r = next) {
      T* keep = saved + r * tiles.piece();
      Run run = runs[r];
      next = r + 1;
      if (tiles.dst_stride() != 1) {
        mix_strided(step, run, keep);
        continue;
      }
      // Lines that follow each other in memory are one run where no box divides them.
      for (; !boxes && next < n && runs[next].dst == run.dst + run.length; ++next) {
        run.length += runs[next].length;
      }
      if (boxes && step.kind != Step::kPair && r + kAhead < n) fetch_box(row, runs[r + kAhead]);
      mix_adjacent(step, ahead, run, keep);
    }
  }

  // Whether a pair exchanges one box, and nothing else.
  bool swaps(const PlanRow& a, const PlanRow& b) const {
    return tiles.dst_stride() == 1 && !a.blends() && !b.blends() && a.box == b.box;
  }

  void swap(int64_t i, const PlanRow& row, const Run* runs, int n) {
    T *own = x + i * batch_stride, *partner = x + row.partner * batch_stride;
    for (int r = 0; r < n; ++r) {
      const RunSpan span = tiles.span(runs[r], row.box);
      const int64_t at = runs[r].dst + span.from;
      if (span.to > span.from) swap_run(own + at, partner + at, span.to - span.from);
    }
  }

  // Whether the steps from `first` on are a chain: rows that only blend, each with the row of the
  // next step. In one pass over a chain every row is loaded once for both of its uses, and several
  // rows are fetched in parallel.
  bool is_chain(const std::vector<Step>& steps, int64_t first) const {
    if constexpr (!kBlendable<T>) return false;
    if (tiles.dst_stride() != 1 || first + kChainRows > int64_t(steps.size())) return false;
    for (int64_t s = first; s < first + kChainRows; ++s) {
      const PlanRow& row = rows[steps[s].row];
      const bool last = s + 1 == first + kChainRows;
      const auto kind = steps[s].kind;
      const bool may_save = s == first, may_use_saved = last;
      if (kind == Step::kPair || (kind == Step::kSave && !may_save) ||
          (kind == Step::kSaved && !may_use_saved)) {
        return false;
      }
      if (!row.box.empty || !nonzero_weights<T>(row)) return false;
      if (!last && row.partner != steps[s + 1].row) return false;
    }
    return true;
  }

  void chain(const Step* steps, const Run* runs, int n) {
    if constexpr (kBlendable<T>) {
      acc_t<T> own[kChainRows], other[kChainRows];
      for (int k = 0; k < kChainRows; ++k) {
        own[k] = acc_t<T>(rows[steps[k].row].own);
        other[k] = acc_t<T>(rows[steps[k].row].other);
      }
      const Step& last = steps[kChainRows - 1];
      for (int r = 0; r < n; ++r) {
        T* keep = saved + r * tiles.piece();
        T* row[kChainRows + 1];
        for (int k = 0; k < kChainRows; ++k) row[k] = x + steps[k].row * batch_stride + runs[r].dst;
        row[kChainRows] = last.kind == Step::kSaved
                              ? keep
                              : x + rows[last.row].partner * batch_stride + runs[r].dst;
        if (steps[0].kind == Step::kSave) std::memcpy(keep, row[0], runs[r].length * sizeof(T));
        mix_kernels<T>().blend_chain(row, row, runs[r].length, own, other);
      }
    }
  }

  // The lines of a box lie apart, and the processor does not foresee the next one. (The lines of a
  // pair need no prefetch: two rows at once keep memory busy.)
  void fetch_box(const PlanRow& row, const Run& run) const {
    const RunSpan span = tiles.span(run, row.box);
    const T* line = x + row.partner * batch_stride + run.dst;
    for (int64_t i = span.from; i < span.to; i += 64 / int64_t(sizeof(T)))
      __builtin_prefetch(line + i);
  }

  // Innermost elements adjacent in memory.
  void mix_adjacent(const Step& step, int64_t ahead, const Run& run, T* keep) {
    const PlanRow& row = rows[step.row];
    T* own = x + step.row * batch_stride + run.dst;
    T* partner = x + row.partner * batch_stride + run.dst;
    const RunSpan span = tiles.span(run, row.box);
    if (step.kind != Step::kPair) {
      if (step.kind == Step::kSave) std::memcpy(keep, own, run.length * sizeof(T));
      const T* source = step.kind == Step::kSaved ? keep : partner;
      const T* next = x + ahead * batch_stride + run.dst;
      mix_run(own, own, source, next, row, span, run.length);
      return;
    }
    const PlanRow& partner_row = rows[row.partner];
    const RunSpan other = tiles.span(run, partner_row.box);
    const bool same_span = span.from == other.from && span.to == other.to;
    const bool moves = !row.blends() && !partner_row.blends();
    if (same_span && (moves || (nonzero_weights<T>(row) && nonzero_weights<T>(partner_row)))) {
      mix_pair(own, partner, row, partner_row, span, run.length);
    } else {
      const RunSpan read = partner_row.blends() ? RunSpan{0, run.length} : other;
      std::memcpy(keep + read.from, own + read.from, (read.to - read.from) * sizeof(T));
      mix_run(own, own, partner, partner, row, span, run.length);
      mix_run(partner, partner, keep, keep, partner_row, other, run.length);
    }
  }

  // Innermost elements a stride apart: mixes contiguous copies of the run.
  void mix_strided(const Step& step, const Run& run, T* keep) {
    const PlanRow& row = rows[step.row];
    const int64_t stride = tiles.dst_stride();
    T* own = x + step.row * batch_stride + run.dst;
    T* partner = x + row.partner * batch_stride + run.dst;
    gather(own_part, own, stride, run.length);
    gather(partner_part, partner, stride, run.length);
    if (step.kind == Step::kPair || step.kind == Step::kSave) {
      std::memcpy(keep, own_part, run.length * sizeof(T));
    }
    const T* source = step.kind == Step::kSaved ? keep : partner_part;
    mix_run(own_part, own_part, source, source, row, tiles.span(run, row.box), run.length);
    scatter(own, stride, own_part, run.length);
    if (step.kind != Step::kPair) return;
    const PlanRow& partner_row = rows[row.partner];
    const RunSpan other = tiles.span(run, partner_row.box);
    mix_run(partner_part, partner_part, keep, keep, partner_row, other, run.length);
    scatter(partner, stride, partner_part, run.length);
  }
};

constexpr int64_t kTilesFoundOnce = 16;

template <typename T>
void mix_in_place(T* x, int64_t batch_stride, const Layout& whole, int spatial,
                  const std::vector<PlanRow>& rows) {
  const std::vector<Step> steps = in_place_order(rows);
  if (steps.empty()) return;
  const std::vector<int64_t> ahead = rows_ahead(steps, rows);
  const bool blends = std::any_of(rows.begin(), rows.end(), [](auto& r) { return r.blends(); });
  int64_t origin[kMaxDims] = {};
  const Layout layout = blends ? whole : crop_to_boxes(whole, rows, spatial, origin);
  const Tiles tiles(layout, origin, InPlace<T>::kTile);
  const int64_t count = tiles.count(), step_count = int64_t(steps.size());
  // A pair depends on no other step: it is walked along its samples, in long runs of memory. A
  // cycle is walked tile by tile, so that a row is still in the cache when it is its neighbour's
  // partner.
  const bool independent = std::all_of(steps.begin(), steps.end(), [&](const Step& s) {
    return s.kind == Step::kPair || rows[s.row].partner == s.row;
  });
  const int64_t work = independent ? count * step_count : count;
  const int64_t bytes = tiles.elements() * int64_t(sizeof(T)) * (independent ? 1 : step_count);
  // Short lines take as long to find as to exchange: of few tiles all are found once.
  std::unique_ptr<Run[]> found;
  const bool finds_once = independent && step_count > 1 && count <= kTilesFoundOnce;
  if (finds_once) {
    found.reset(new Run[count * Tiles::kMaxRuns]);  // not filled with zeros
    for (int64_t t = 0; t < count; ++t) tiles.runs_of(t, &found[t * Tiles::kMaxRuns]);
  }
  parallel_for(0, work, 1 + kGrainBytes / bytes, [&](int64_t begin, int64_t end) {
    InPlace<T> mix{x, batch_stride, rows, tiles, {}, {}, {}};
    Run here[Tiles::kMaxRuns];
    for (int64_t w = begin; w < end; ++w) {
      const int64_t tile = w % count;
      const int n = finds_once ? tiles.run_count(tile) : tiles.runs_of(tile, here);
      const Run* runs = finds_once ? &found[tile * Tiles::kMaxRuns] : here;
      const int64_t first = independent ? w / count : 0;
      const int64_t last = independent ? first + 1 : step_count;
      for (int64_t s = first; s < last; ++s) {
        if (!independent && mix.is_chain(steps, s)) {
          mix.chain(&steps[s], runs, n);
          s += kChainRows - 1;
          continue;
        }
        mix.step(steps[s], independent ? steps[s].row : ahead[s], runs, n);
      }
    }
  });
}

}  // namespace fused_mixup
