// The walks of the ops that mix by a mask. A tile is a part of the image; its mask is computed once
// and serves all channels and frames of the sample.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <memory>
#include <vector>

#include "masked_layout.h"
#include "masks.h"
#include "mix_out_of_place.h"

namespace fused_mixup {

template <typename T>
class MaskedMix {
 public:
  using A = acc_t<T>;
  static constexpr int64_t kTile = MaskTile::kElements;

  MaskedMix(const MaskArgs& mask, const Layout& whole, const std::vector<PlanRow>& rows)
      : mask_(mask),
        layout_(whole, mask.code != nullptr),
        rows_(rows),
        columns_(mask),
        dense_(dense_mask(mask, columns_, int64_t(rows.size()))),
        tiles_(layout_.image, kOrigin, kTile),
        adjacent_(tiles_.dst_stride() == 1 && tiles_.src_stride() == 1) {}

  // In place, for pairs: rows whose partner's partner they are.
  void in_place(T* x, int64_t batch_stride) {
    std::vector<int64_t> firsts;
    for (int64_t i = 0; i < batch(); ++i) {
      if (i <= rows_[i].partner && !(same(i) && same(rows_[i].partner))) firsts.push_back(i);
    }
    const int64_t count = tiles_.count();
    run(int64_t(firsts.size()) * count, 2, false, [&](Scratch& s, int64_t w) {
      const int64_t i = firsts[w / count], p = rows_[i].partner;
      const int n = tiles_.runs_of(w % count, s.runs);
      mix_pair(s, x + i * batch_stride, x + p * batch_stride, i, p, n);
    });
  }

  // clean: where the batch itself goes, or null.
  void out_of_place(T* out, T* clean, int64_t out_stride, const T* x, int64_t x_stride,
                    const T* other, int64_t other_stride) {
    run(tiles_.count(), batch(), true, [&](Scratch& s, int64_t t) {
      const int n = tiles_.runs_of(t, s.runs);
      for (int64_t i = 0; i < batch(); ++i) {
        const T* own = x + i * x_stride;
        mix_row(s, out + i * out_stride, own, other + rows_[i].partner * other_stride, i, n);
        if (clean) copy(s, clean + i * out_stride, own, n);
      }
    });
  }

  // out_j = own part of j, and the partner parts of the rows whose partner it is.
  void transposed(T* out, int64_t out_stride, const T* x, int64_t x_stride, const Sources& from) {
    constexpr size_t kPlanes = 16;  // summed together: each computes the masks once
    run(tiles_.count(), batch(), true, [&](Scratch& s, int64_t t) {
      const int n = tiles_.runs_of(t, s.runs);
      s.sums.resize(kPlanes * kTile);
      const auto& planes = layout_.planes;
      for (int64_t j = 0; j < batch(); ++j) {
        for (size_t first = 0; first < planes.size(); first += kPlanes) {
          const size_t last = std::min(planes.size(), first + kPlanes);
          std::fill(s.sums.begin(), s.sums.begin() + (last - first) * kTile, A(0));
          add(s, x + j * x_stride, j, false, first, last, n);
          for (int64_t k = from.offsets[j]; k < from.offsets[j + 1]; ++k) {
            const int64_t i = from.sources[k];
            add(s, x + i * x_stride, i, true, first, last, n);
          }
          for (size_t l = first; l < last; ++l) {
            round_sums(s, out + j * out_stride + planes[l].first,
                       s.sums.data() + (l - first) * kTile, n);
          }
        }
      }
    });
  }

 private:
  static constexpr int64_t kOrigin[kMaxDims] = {};
  const MaskArgs& mask_;
  const MaskedLayout layout_;
  const std::vector<PlanRow>& rows_;
  const MaskColumns columns_;
  const std::unique_ptr<float[]> dense_;
  const Tiles tiles_;
  const bool adjacent_;

  struct Scratch {
    MaskTile own, other;
    const Writer writer;
    Run runs[Tiles::kMaxRuns];
    Piece pieces[Tiles::kMaxRuns];
    alignas(64) T dst[kTile];
    alignas(64) T a[kTile];
    alignas(64) T b[kTile];
    std::vector<A> sums;
  };

  int64_t batch() const { return int64_t(rows_.size()); }
  bool masked(int64_t i) const { return (mask_.code_of(i) & kMaskForm) != 0; }
  // Whether a row is known to stay as it is.
  bool same(int64_t i) const { return !masked(i) && rows_[i].unchanged(); }

  // work(scratch, w) for each w, by several threads. each: samples that a piece of work touches.
  // streams: whether memory of its own is written.
  template <typename F>
  void run(int64_t count, int64_t each, bool streams, const F& work) {
    const int64_t planes = int64_t(layout_.planes.size());
    const bool runs = streams && tiles_.dst_stride() == 1;
    const int64_t bytes = runs ? batch() * planes * layout_.image.numel() * int64_t(sizeof(T)) : 0;
    const int64_t grain = 1 + kGrainBytes / (tiles_.elements() * planes * each * sizeof(T) + 1);
    parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
      const auto tile = [&] { return MaskTile(mask_, columns_, dense_.get()); };
      std::unique_ptr<Scratch> s(
          new Scratch{tile(), tile(), Writer(bytes), {}, {}, {}, {}, {}, {}});
      for (int64_t w = begin; w < end; ++w) work(*s, w);
    });
  }

  const float* fill(MaskTile& tile, Scratch& s, int64_t i, int n) {
    return tile.fill(i, rows_[i].box, layout_.image, tiles_, s.runs, n);
  }

  const T* gathered(T* copy, const T* p, int64_t stride, int64_t n) {
    if (stride == 1) return p;
    gather(copy, p, stride, n);
    return copy;
  }

  void mix_row(Scratch& s, T* out, const T* own, const T* partner, int64_t i, int n) {
    if (!masked(i)) return mix_blended(s, out, own, partner, i, n);
    const float* m = fill(s.own, s, i, n);
    const int count = pieces_of(s.runs, n, adjacent_, s.pieces);
    const int64_t dst_stride = tiles_.dst_stride(), src_stride = tiles_.src_stride();
    for (const auto& [dst_at, src_at] : layout_.planes) {
      for (int k = 0; k < count; ++k) {
        const Piece& p = s.pieces[k];
        T* dst = out + dst_at + p.dst;
        T* target = dst_stride == 1 ? dst : s.dst;
        const T* a = gathered(s.a, own + src_at + p.src, src_stride, p.length);
        const T* b = gathered(s.b, partner + src_at + p.src, src_stride, p.length);
        s.writer.write(target, p.length, [&](T* to, int64_t at, int64_t count) {
          masked_kernels<T>().blend(to, a + at, b + at, m + p.at + at, count);
        });
        if (target != dst) scatter(dst, dst_stride, s.dst, p.length);
      }
    }
  }

  // A row without a mask is blended, and its box pasted.
  void mix_blended(Scratch& s, T* out, const T* own, const T* partner, int64_t i, int n) {
    const int64_t dst_stride = tiles_.dst_stride(), src_stride = tiles_.src_stride();
    for (const auto& [dst_at, src_at] : layout_.planes) {
      for (int r = 0; r < n; ++r) {
        const Run& run = s.runs[r];
        T* dst = out + dst_at + run.dst;
        T* target = dst_stride == 1 ? dst : s.dst;
        const T* a = gathered(s.a, own + src_at + run.src, src_stride, run.length);
        const T* b = gathered(s.b, partner + src_at + run.src, src_stride, run.length);
        const RunSpan span = tiles_.span(run, rows_[i].box);
        s.writer.write(target, run.length, [&](T* to, int64_t at, int64_t count) {
          mix_run(to, a + at, b + at, b + at, rows_[i], span.part(at, count), count);
        });
        if (target != dst) scatter(dst, dst_stride, s.dst, run.length);
      }
    }
  }

  void mix_pair(Scratch& s, T* a, T* b, int64_t i, int64_t p, int n) {
    if (i == p) return mix_row(s, a, a, a, i, n);
    if (adjacent_ && masked(i) && masked(p)) {
      const float* ma = fill(s.own, s, i, n);
      const bool alike = dense_ != nullptr && rows_[i].box == rows_[p].box;
      const float* mb = alike ? ma : fill(s.other, s, p, n);
      const int count = pieces_of(s.runs, n, true, s.pieces);
      for (const auto& plane : layout_.planes) {
        for (int k = 0; k < count; ++k) {
          const Piece& piece = s.pieces[k];
          const int64_t at = plane.first + piece.dst;
          masked_kernels<T>().blend_pair(a + at, b + at, ma + piece.at, mb + piece.at,
                                         piece.length);
        }
      }
      return;
    }
    // The second reads the originals of the first from a copy.
    std::vector<T> kept(layout_.planes.size() * kTile);
    copy_tile(s, kept.data(), a, n);
    mix_row(s, a, a, b, i, n);
    mix_with_kept(s, b, kept.data(), p, n);
  }

  void copy_tile(Scratch& s, T* kept, const T* src, int n) {
    for (size_t l = 0; l < layout_.planes.size(); ++l) {
      T* to = kept + l * kTile;
      for (int r = 0; r < n; ++r) {
        gather(to, src + layout_.planes[l].second + s.runs[r].src, tiles_.src_stride(),
               s.runs[r].length);
        to += s.runs[r].length;
      }
    }
  }

  // Row p, in place, with a partner whose runs of this tile lie in `kept`.
  void mix_with_kept(Scratch& s, T* x, const T* kept, int64_t p, int n) {
    const float* m = masked(p) ? fill(s.own, s, p, n) : nullptr;
    const int64_t stride = tiles_.dst_stride();
    for (size_t l = 0; l < layout_.planes.size(); ++l) {
      int64_t at = 0;
      for (int r = 0; r < n; ++r) {
        const Run& run = s.runs[r];
        T* dst = x + layout_.planes[l].first + run.dst;
        const T* own = gathered(s.a, dst, stride, run.length);
        const T* partner = kept + l * kTile + at;
        if (m) {
          masked_kernels<T>().blend(s.dst, own, partner, m + at, run.length);
        } else {
          mix_run(s.dst, own, partner, partner, rows_[p], tiles_.span(run, rows_[p].box),
                  run.length);
        }
        scatter(dst, stride, s.dst, run.length);
        at += run.length;
      }
    }
  }

  void copy(Scratch& s, T* out, const T* own, int n) {
    const int count = pieces_of(s.runs, n, adjacent_, s.pieces);
    for (const auto& [dst_at, src_at] : layout_.planes) {
      for (int k = 0; k < count; ++k) {
        const Piece& p = s.pieces[k];
        T* dst = out + dst_at + p.dst;
        const T* src = own + src_at + p.src;
        if (adjacent_) {
          s.writer.copy(dst, src, p.length);
        } else {
          const T* values = gathered(s.a, src, tiles_.src_stride(), p.length);
          scatter(dst, tiles_.dst_stride(), values, p.length);
        }
      }
    }
  }

  // Adds what row i gives to itself, or to its partner, in the planes [first, last).
  void add(Scratch& s, const T* x, int64_t i, bool to_partner, size_t first, size_t last, int n) {
    const PlanRow& row = rows_[i];
    const float* m = masked(i) ? fill(s.own, s, i, n) : nullptr;
    const A weight = A(to_partner ? row.other : row.own);
    for (size_t l = first; l < last; ++l) {
      A* sum = s.sums.data() + (l - first) * kTile;
      int64_t at = 0;
      for (int r = 0; r < n; ++r) {
        const Run& run = s.runs[r];
        const T* p =
            gathered(s.a, x + layout_.planes[l].second + run.src, tiles_.src_stride(), run.length);
        if (m) {
          masked_kernels<T>().accumulate(sum + at, p, m + at, run.length, to_partner);
        } else {
          const RunSpan span = tiles_.span(run, row.box);
          const auto part = [&](int64_t begin, int64_t end, A w) {
            if (end > begin && w != 0) {
              mix_kernels<T>().accumulate(sum + at + begin, p + begin, end - begin, w);
            }
          };
          part(0, span.from, weight);
          if (to_partner) part(span.from, span.to, A(1));
          part(span.to, run.length, weight);
        }
        at += run.length;
      }
    }
  }

  void round_sums(Scratch& s, T* out, const A* sum, int n) {
    for (int r = 0; r < n; ++r) {
      const Run& run = s.runs[r];
      T* dst = out + run.dst;
      T* target = tiles_.dst_stride() == 1 ? dst : s.dst;
      s.writer.write(target, run.length, [&](T* to, int64_t at, int64_t count) {
        mix_kernels<T>().round(to, sum + at, count);
      });
      if (target != dst) scatter(dst, tiles_.dst_stride(), s.dst, run.length);
      sum += run.length;
    }
  }
};

}  // namespace fused_mixup
