// The walk of mix_ragged: images of different sizes, each mixed with its partner in one region,
// into one buffer. Each image is read once, or twice where it is pasted elsewhere, and written
// once.
//
// Two images that blend with each other in one region are walked together, and each is read once
// for both results. The work is a list of tasks, blocks of lines: lines that are copied, and lines
// of which a part is mixed.
#pragma once

#include <vector>

#include "binding.h"
#include "mix_runs.h"

namespace fused_mixup {

// Where the elements of an image lie: at plane·c + row·y + column·x.
template <typename T>
struct Places {
  T* first;
  int64_t plane, row, column;

  T* at(int64_t c, int64_t y, int64_t x) const { return first + plane * c + row * y + column * x; }
};

// The part of an image that is mixed, and where it lies in the partner.
struct Region {
  int64_t top, left, other_top, other_left, height, width;

  bool empty() const { return height <= 0 || width <= 0; }
  bool mirrors(const Region& r) const {
    return top == r.other_top && left == r.other_left && other_top == r.top &&
           other_left == r.left && height == r.height && width == r.width;
  }
};

inline int64_t at_once(const volatile int32_t* number) { return *number; }

// The elements that lie in both images, of sizes [H, W]. row: int32 [6], as in Region.
// Each number is read once: another thread may write them meanwhile.
inline Region region_of(const int32_t* row, const int64_t* size, const int64_t* other_size) {
  int64_t from[2], other_from[2], length[2];
  for (int k = 0; k < 2; ++k) {
    const int64_t own = at_once(row + k), other = at_once(row + 2 + k);
    const int64_t start = std::max<int64_t>({0, -own, -other});
    const int64_t stop =
        std::min<int64_t>({at_once(row + 4 + k), size[k] - own, other_size[k] - other});
    from[k] = own + start;
    other_from[k] = other + start;
    length[k] = stop - start;
  }
  return {from[0], from[1], other_from[0], other_from[1], length[0], length[1]};
}

// One image. Where channels come last in memory, `columns` are elements, and there is one plane.
template <typename T>
struct RaggedRow {
  Places<T> out;
  Places<const T> own, other;
  int64_t planes, rows, columns;
  Region region;
  acc_t<T> w0, w1;
  int64_t partner;

  bool adjacent() const { return out.column == 1 && own.column == 1 && other.column == 1; }
  bool pastes() const { return w0 == 0 && w1 == 1; }
  bool changes() const { return !region.empty() && !(w0 == 1 && w1 == 0); }
};

// A block of lines [first, last) of a plane of row `row`.
struct RaggedTask {
  enum Kind : uint8_t { kCopy, kMix, kMixPair };
  int64_t row, plane, first, last;
  Kind kind;
};

template <typename T>
class RaggedMixer {
 public:
  explicit RaggedMixer(const std::vector<RaggedRow<T>>& rows) : rows_(rows) {
    const int64_t count = int64_t(rows.size());
    std::vector<uint8_t> done(count, 0);
    for (int64_t i = 0; i < count; ++i) {
      // A partner follows at once: what is read of it here is still in the second-level cache.
      for (int64_t k = i; !done[k]; k = rows[k].partner) {
        const int64_t j = rows[k].partner;
        const bool pair = is_pair(k, j);
        done[k] = 1;
        add_row(k, pair ? RaggedTask::kMixPair : RaggedTask::kMix);
        if (pair) {
          done[j] = 1;
          add_sides(j);
        }
      }
    }
  }

  void run(int64_t bytes) const {
    const int64_t count = int64_t(tasks_.size());
    if (count == 0) return;
    const int64_t grain = 1 + kGrainBytes * count / std::max<int64_t>(bytes, 1);
    parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) step(tasks_[k]);
    });
  }

 private:
  static constexpr int64_t kBlock = kTileBytes / sizeof(T);  // elements of a task, or a line
  static constexpr int64_t kPart = 2048 / sizeof(T);

  bool is_pair(int64_t i, int64_t j) const {
    if (i == j || rows_[j].partner != i) return false;
    const RaggedRow<T>&a = rows_[i], &b = rows_[j];
    return !a.region.empty() && a.region.mirrors(b.region) && a.adjacent() && b.adjacent() &&
           a.planes == b.planes && a.w0 != 0 && a.w1 != 0 && b.w0 != 0 && b.w1 != 0;
  }

  void add_row(int64_t i, RaggedTask::Kind kind) {
    const RaggedRow<T>& row = rows_[i];
    if (!row.changes()) return add(i, RaggedTask::kCopy, 0, row.rows);
    add_sides(i);
    add(i, kind, row.region.top, row.region.top + row.region.height);
  }

  // The lines above and below the region.
  void add_sides(int64_t i) {
    const Region& region = rows_[i].region;
    add(i, RaggedTask::kCopy, 0, region.top);
    add(i, RaggedTask::kCopy, region.top + region.height, rows_[i].rows);
  }

  void add(int64_t i, RaggedTask::Kind kind, int64_t first, int64_t last) {
    const RaggedRow<T>& row = rows_[i];
    if (row.columns == 0) return;
    const int64_t lines = std::max<int64_t>(1, kBlock / row.columns);
    for (int64_t c = 0; c < row.planes; ++c) {
      for (int64_t y = first; y < last; y += lines) {
        tasks_.push_back({i, c, y, std::min(y + lines, last), kind});
      }
    }
  }

  void step(const RaggedTask& task) const {
    const RaggedRow<T>& row = rows_[task.row];
    if (task.kind == RaggedTask::kCopy) return copy(row, task);
    if (!row.adjacent()) return mix_strided(row, task);
    const int64_t lines = task.last - task.first, n = row.region.width;
    const RaggedLines<T> own = lines_of(row, task.plane, task.first);
    if (task.kind == RaggedTask::kMixPair) {
      const RaggedRow<T>& other = rows_[row.partner];
      const int64_t first = task.first - row.region.top + other.region.top;
      const RaggedLines<T> theirs = lines_of(other, task.plane, first);
      return ragged_kernels<T>().blend_pair(own, theirs, lines, n, row.w0, row.w1, other.w0,
                                            other.w1);
    }
    const T* partner = partner_at(row, task.plane, task.first);
    if (!row.pastes()) {
      return ragged_kernels<T>().blend(own, partner, row.other.row, lines, n, row.w0, row.w1);
    }
    ragged_kernels<T>().paste(own, partner, row.other.row, lines, n);
  }

  // Where the region's part of line y begins in the partner.
  static const T* partner_at(const RaggedRow<T>& row, int64_t plane, int64_t y) {
    const Region& r = row.region;
    return row.other.at(plane, y - r.top + r.other_top, r.other_left);
  }

  static RaggedLines<T> lines_of(const RaggedRow<T>& row, int64_t plane, int64_t y) {
    const Region& r = row.region;
    return {
        row.out.at(plane, y, 0),       row.own.at(plane, y, 0), row.out.row, row.own.row, r.left,
        row.columns - r.left - r.width};
  }

  static void copy_line(T* dst, int64_t dst_stride, const T* src, int64_t src_stride, int64_t n) {
    if (dst_stride == 1 && src_stride == 1) {
      std::memcpy(dst, src, n * sizeof(T));
      return;
    }
    for (int64_t x = 0; x < n; ++x) dst[x * dst_stride] = src[x * src_stride];
  }

  static void copy(const RaggedRow<T>& row, const RaggedTask& task) {
    const Places<T>& out = row.out;
    const Places<const T>& own = row.own;
    T* dst = out.at(task.plane, task.first, 0);
    const T* src = own.at(task.plane, task.first, 0);
    int64_t lines = task.last - task.first, n = row.columns;
    if (out.column == 1 && own.column == 1 && out.row == n && own.row == n) {
      n *= lines;
      lines = 1;
    }
    for (int64_t k = 0; k < lines; ++k) {
      copy_line(dst + k * out.row, out.column, src + k * own.row, own.column, n);
    }
  }

  static void mix_strided(const RaggedRow<T>& row, const RaggedTask& task) {
    const Region& r = row.region;
    const int64_t after = r.left + r.width;
    alignas(64) T own_part[kPart];
    alignas(64) T partner_part[kPart];
    alignas(64) T mixed[kPart];
    for (int64_t y = task.first; y < task.last; ++y) {
      T* dst = row.out.at(task.plane, y, 0);
      const T* src = row.own.at(task.plane, y, 0);
      const int64_t to = row.out.column, from = row.own.column;
      copy_line(dst, to, src, from, r.left);
      copy_line(dst + after * to, to, src + after * from, from, row.columns - after);
      const T* partner = partner_at(row, task.plane, y);
      for (int64_t x = 0; x < r.width; x += kPart) {
        const int64_t n = std::min(kPart, r.width - x), at = r.left + x;
        gather(own_part, src + at * from, from, n);
        gather(partner_part, partner + x * row.other.column, row.other.column, n);
        if (row.pastes()) {
          scatter(dst + at * to, to, partner_part, n);
          continue;
        }
        const RaggedLines<T> line = {mixed, own_part, 0, 0, 0, 0};
        ragged_kernels<T>().blend(line, partner_part, 0, 1, n, row.w0, row.w1);
        scatter(dst + at * to, to, mixed, n);
      }
    }
  }

  const std::vector<RaggedRow<T>>& rows_;
  std::vector<RaggedTask> tasks_;
};

}  // namespace fused_mixup
