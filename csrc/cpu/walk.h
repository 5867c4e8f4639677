// How mix and paste walk a batch: by tiles of columns, and inside a tile by rows, in an order that
// needs no copy of the batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/layout.h"

namespace fused_mixup {

// The row of a plan for one sample.
struct PlanRow {
  double own = 1;  // blend weights outside the box
  double other = 0;
  Box box;
  int64_t partner = 0;

  bool blends() const { return own != 1 || other != 0; }
  bool unchanged() const { return !blends() && box.empty; }
};

// One step of an in-place mix.
struct Step {
  enum Kind : uint8_t {
    kPlain,  // the partner still holds its original values
    kSave,   // likewise, and a later row needs the originals of this one: saves them first
    kSaved,  // the partner has been overwritten; its originals are in the saved tile
    kPair,   // this row and its partner mix with each other, in one step
  };
  int64_t row;
  Kind kind;
};

// For any pairing, an order in which every row reads original values, with at most one saved row at
// a time. Rows that no other row waits for go first; the rest are cycles.
inline std::vector<Step> in_place_order(const std::vector<PlanRow>& rows) {
  const int64_t batch = int64_t(rows.size());
  // A row that never reads its partner has an edge to itself, which puts no row before another.
  const auto next = [&](int64_t i) {
    return rows[i].other == 0 && rows[i].box.empty ? i : rows[i].partner;
  };
  std::vector<int32_t> waiting(batch, 0);  // rows still to read this one, itself not counted
  for (int64_t i = 0; i < batch; ++i) {
    if (next(i) != i) ++waiting[next(i)];
  }
  std::vector<Step> steps;
  steps.reserve(batch);
  std::vector<uint8_t> done(batch, 0);
  std::vector<int64_t> free;
  for (int64_t i = 0; i < batch; ++i) {
    if (waiting[i] == 0) free.push_back(i);
  }
  while (!free.empty()) {
    const int64_t i = free.back();
    free.pop_back();
    done[i] = 1;
    if (!rows[i].unchanged()) steps.push_back({i, Step::kPlain});
    const int64_t j = next(i);
    if (j != i && --waiting[j] == 0) free.push_back(j);
  }
  for (int64_t i = 0; i < batch; ++i) {
    if (done[i]) continue;
    const int64_t second = next(i);
    if (next(second) == i) {
      done[i] = done[second] = 1;
      steps.push_back({i, Step::kPair});
      continue;
    }
    steps.push_back({i, Step::kSave});
    done[i] = 1;
    for (int64_t j = second; j != i; j = next(j)) {
      done[j] = 1;
      steps.push_back({j, next(j) == i ? Step::kSaved : Step::kPlain});
    }
  }
  return steps;
}

// For each step, the row that the next step reads first.
inline std::vector<int64_t> rows_ahead(const std::vector<Step>& steps,
                                       const std::vector<PlanRow>& rows) {
  std::vector<int64_t> ahead(steps.size());
  for (size_t s = 0; s < steps.size(); ++s) {
    // The next step's own row was this step's partner, or starts another cycle.
    size_t next = s + 1;
    const bool starts = next < steps.size() && steps[next].kind == Step::kSaved;
    if (starts) ++next;
    ahead[s] = next >= steps.size() ? steps[s].row
               : starts             ? steps[next].row
                                    : rows[steps[next].row].partner;
  }
  return ahead;
}

// Shrinks the layout to the smallest region that holds every box: where no row blends, the rest is
// neither read nor written. origin[k]: where the region starts along dim k.
inline Layout crop_to_boxes(const Layout& layout, const std::vector<PlanRow>& rows, int spatial,
                            int64_t* origin) {
  int64_t start[kMaxSpatial] = {INT64_MAX, INT64_MAX, INT64_MAX};
  int64_t stop[kMaxSpatial] = {};
  for (const PlanRow& row : rows) {
    for (int k = 0; !row.box.empty && k < spatial; ++k) {
      start[k] = std::min(start[k], row.box.start[k]);
      stop[k] = std::max(stop[k], row.box.stop[k]);
    }
  }
  Layout out = layout;
  for (int k = 0; k < layout.ndim; ++k) {
    if (layout.axis[k] < 0) continue;
    origin[k] = start[layout.axis[k]] * layout.group[k];
    out.size[k] = (stop[layout.axis[k]] - start[layout.axis[k]]) * layout.group[k];
  }
  return out;
}

// A run of elements along the innermost dim of a sample, the same for every row of the batch.
struct Run {
  int64_t dst;  // offset inside the sample, in elements
  int64_t src;
  int64_t begin;  // index of its first element along the innermost dim
  int64_t length;
  int64_t coordinate[kMaxSpatial];  // along the outer dims
};

// The elements [from, to) of a run that lie in a row's box.
struct RunSpan {
  int64_t from = 0;
  int64_t to = 0;

  // What of it lies in the elements [at, at + n), counted from there.
  RunSpan part(int64_t at, int64_t n) const {
    if (to <= at || from >= at + n) return {};
    return {std::max<int64_t>(from - at, 0), std::min(to - at, n)};
  }
};

// Divides the samples of a layout into tiles of about `tile` elements, each a few runs.
class Tiles {
 public:
  static constexpr int kMaxRuns = 64;

  Tiles(const Layout& layout, const int64_t* origin, int64_t tile) : layout_(layout) {
    for (int k = 0; k < layout.ndim; ++k) origin_[k] = origin[k];
    inner_ = layout.ndim - 1;
    const int64_t length = inner_ < 0 ? 1 : layout.size[inner_];
    lines_ = length == 0 ? 0 : layout.numel() / length;
    piece_ = std::min(length, tile);
    pieces_ = length == 0 ? 0 : (length + piece_ - 1) / piece_;
    runs_ = std::max<int64_t>(1, std::min<int64_t>(kMaxRuns, piece_ == 0 ? 1 : tile / piece_));
  }

  int64_t count() const { return (lines_ * pieces_ + runs_ - 1) / runs_; }
  int64_t elements() const { return runs_ * piece_; }
  int64_t piece() const { return piece_; }
  int64_t dst_stride() const { return inner_ < 0 ? 1 : layout_.dst_stride[inner_]; }
  int64_t src_stride() const { return inner_ < 0 ? 1 : layout_.src_stride[inner_]; }

  int run_count(int64_t t) const { return int(std::min(runs_, lines_ * pieces_ - t * runs_)); }

  // Fills runs[kMaxRuns] with the runs of tile t, and returns how many there are.
  int runs_of(int64_t t, Run* runs) const {
    const int64_t first = t * runs_;
    const int n = run_count(t);
    // Divisions find the place of the first run; the others follow it.
    int64_t piece = first % pieces_, at[kMaxDims], rest = first / pieces_;
    for (int k = inner_ - 1; k >= 0; --k) {
      at[k] = rest % layout_.size[k];
      rest /= layout_.size[k];
    }
    for (int r = 0; r < n; ++r) {
      const int64_t skipped = piece * piece_;
      Run& run = runs[r];
      run = {};
      run.begin = skipped;
      run.length = inner_ < 0 ? 1 : std::min(piece_, layout_.size[inner_] - skipped);
      if (inner_ >= 0) run.begin += origin_[inner_];
      run.dst = run.begin * dst_stride();
      run.src = run.begin * src_stride();
      for (int k = inner_ - 1; k >= 0; --k) {
        const int64_t i = at[k] + origin_[k];
        run.dst += i * layout_.dst_stride[k];
        run.src += i * layout_.src_stride[k];
        const int axis = layout_.axis[k], group = int(layout_.group[k]);
        if (axis >= 0) run.coordinate[axis] = group == 1 ? i : i / group;
      }
      if (++piece < pieces_) continue;
      piece = 0;
      for (int k = inner_ - 1; k >= 0 && ++at[k] == layout_.size[k]; --k) at[k] = 0;
    }
    return n;
  }

  RunSpan span(const Run& run, const Box& box) const {
    if (box.empty) return {};
    for (int k = 0; k < inner_; ++k) {
      const int a = layout_.axis[k];
      if (a >= 0 && (run.coordinate[a] < box.start[a] || run.coordinate[a] >= box.stop[a])) {
        return {};
      }
    }
    const int a = inner_ < 0 ? -1 : layout_.axis[inner_];
    if (a < 0) return {0, run.length};
    const int64_t from = box.start[a] * layout_.group[inner_] - run.begin;
    const int64_t to = box.stop[a] * layout_.group[inner_] - run.begin;
    RunSpan span = {std::max<int64_t>(from, 0), std::min(to, run.length)};
    if (span.to <= span.from) return {};
    return span;
  }

 private:
  Layout layout_;
  int64_t origin_[kMaxDims] = {};
  int inner_;
  int64_t lines_, piece_, pieces_, runs_;
};

}  // namespace fused_mixup
