// mix_patches on the CPU: N bytes written, and what is shown read once.
//
// A task takes some rows of one sample, and of them bands that lie in one row of every grid. The
// lines of a band are put together from the same pieces in all planes: first the sample's, then
// the partner's, then both are blended, a cell of the mask at a time.
#include "../common/collage_arguments.h"
#include "collage.h"
#include "dispatch.h"
#include "kernels.h"

namespace fused_mixup {
namespace {

// A part of a line and where it comes from.
struct Piece {
  int64_t x, n;
  int64_t sample;      // -1: zeros
  int64_t dy, dx;      // from the place in the result to that in the source
  int64_t offset = 0;  // elements from the place in sample 0 to that in the source
};

// What sample and index say, for all samples.
class PatchSide {
 public:
  PatchSide(const OptionalTensor& sample, const OptionalTensor& index, const Tensor& x)
      : batch_(x.size(0)), height_(x.size(x.dim() - 2)), width_(x.size(x.dim() - 1)) {
    sample_ = as_contiguous(sample);
    index_ = as_contiguous(index);
    each_ = sample && sample->dim() == 3;
    const Tensor* grid = index ? &*index : each_ ? &*sample : nullptr;
    if (!grid) return;
    rows_ = grid->size(1);
    columns_ = grid->size(2);
  }
  int64_t rows() const { return rows_; }

  // The pieces of the lines of sample i in row `row` of the grid.
  void pieces(int64_t i, int64_t row, std::vector<Piece>& found) const {
    found.clear();
    const int64_t ph = height_ / rows_, pw = width_ / columns_, count = rows_ * columns_;
    for (int64_t column = 0; column < columns_; ++column) {
      const int64_t j = row * columns_ + column, at = i * count + j;
      int64_t from = i;
      if (sample_)
        from = std::clamp<int64_t>(data<int32_t>(*sample_)[each_ ? at : i], 0, batch_ - 1);
      int64_t patch = index_ ? data<int32_t>(*index_)[at] : j;
      if (patch < 0) from = -1;
      patch = std::clamp<int64_t>(patch, 0, count - 1);
      Piece piece = {column * pw, pw, from, 0, 0};
      if (from >= 0) {
        piece.dy = (patch / columns_ - row) * ph;
        piece.dx = (patch % columns_ - column) * pw;
      }
      Piece* last = found.empty() ? nullptr : &found.back();
      if (last && last->sample == from && last->dy == piece.dy && last->dx == piece.dx) {
        last->n += pw;
      } else {
        found.push_back(piece);
      }
    }
  }

 private:
  int64_t batch_, height_, width_, rows_ = 1, columns_ = 1;
  OptionalTensor sample_, index_;
  bool each_ = false;
};

// Short runs are common, and a call takes longer than they do.
template <typename T>
void copy_run(T* dst, const T* src, int64_t n) {
  constexpr int64_t kStep = 16 / sizeof(T);
  if (n > 16 * kStep) {
    std::memcpy(dst, src, n * sizeof(T));
    return;
  }
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) __builtin_memcpy(dst + i, src + i, 16);
  for (; i < n; ++i) dst[i] = src[i];
}

// Prefetches what the next lines read: the processor foresees no run that goes on after a gap.
template <typename T>
void fetch_below(const T* src, int64_t y_stride, int64_t n) {
  constexpr int64_t kRows = 2, kMost = 2048, kLine = 64;  // bytes
  const char* next = reinterpret_cast<const char*>(src + kRows * y_stride);
  const int64_t bytes = std::min<int64_t>(n * int64_t(sizeof(T)), kMost);
  for (int64_t k = 0; k < bytes; k += kLine) __builtin_prefetch(next + k);
}

template <typename T>
class PatchMixer {
 public:
  PatchMixer(const Images<T>& out, const Images<T>& x, const PatchSide& own, const PatchSide& other,
             const float* mask, int64_t mask_rows, int64_t mask_columns, int64_t height,
             int64_t width)
      : out_(out),
        x_(x),
        own_(own),
        other_(other),
        mask_(mask),
        mask_rows_(mask_rows),
        mask_columns_(mask_columns),
        height_(height),
        width_(width),
        inner_(out.inner),
        lines_{std::vector<T>(width * inner_), std::vector<T>(width * inner_),
               std::vector<T>(width * inner_)} {}

  void mix(int64_t i, int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end;) {
      const int64_t stop = std::min(
          {end, band_end(y, own_.rows()), band_end(y, other_.rows()), band_end(y, mask_rows_)});
      find_pieces(own_, i, y, own_pieces_);
      if (mask_) {
        find_pieces(other_, i, y, other_pieces_);
        find_cells(i, y / (height_ / mask_rows_));
      }
      for (size_t p = 0; p < out_.plane.size(); ++p) {
        for (int64_t row = y; row < stop; ++row) mix_line(i, int64_t(p), row);
      }
      y = stop;
    }
  }

 private:
  struct Cell {
    int64_t x, n;
    float weight;
  };

  int64_t band_end(int64_t y, int64_t rows) const {
    const int64_t each = height_ / rows;
    return (y / each + 1) * each;
  }

  void find_pieces(const PatchSide& side, int64_t i, int64_t y, std::vector<Piece>& found) const {
    side.pieces(i, y / (height_ / side.rows()), found);
    for (Piece& piece : found) {
      piece.offset = piece.sample * x_.sample + piece.dy * x_.y + (piece.x + piece.dx) * x_.x;
    }
  }

  void find_cells(int64_t i, int64_t row) {
    cells_.clear();
    const float* m = mask_ + (i * mask_rows_ + row) * mask_columns_;
    const int64_t each = width_ / mask_columns_;
    for (int64_t c = 0; c < mask_columns_; ++c) {
      if (!cells_.empty() && cells_.back().weight == m[c]) {
        cells_.back().n += each;
      } else {
        cells_.push_back({c * each, each, m[c]});
      }
    }
  }

  // A line put together from its pieces, or the place where it lies whole.
  const T* assembled(const std::vector<Piece>& pieces, T* into, int64_t p, int64_t y) const {
    if (pieces.size() == 1 && pieces[0].sample >= 0 && x_.runs) {
      return x_.line(pieces[0].sample, p, y + pieces[0].dy);
    }
    const T* line = x_.line(0, p, y);
    for (const Piece& piece : pieces) {
      T* to = into + piece.x * inner_;
      if (piece.sample < 0) {
        std::memset(static_cast<void*>(to), 0, piece.n * inner_ * sizeof(T));
        continue;
      }
      const T* from = line + piece.offset;
      if (x_.runs) {
        fetch_below(from, x_.y, piece.n * inner_);
        copy_run(to, from, piece.n * inner_);
      } else {
        copy_pixels(to, inner_, from, x_.x, inner_, piece.n);
      }
    }
    return into;
  }

  void mix_line(int64_t i, int64_t p, int64_t y) {
    T* dst = out_.line(i, p, y);
    T* made = out_.x == inner_ ? dst : lines_[2].data();
    const T* own = assembled(own_pieces_, mask_ ? lines_[0].data() : made, p, y);
    const int64_t n = width_ * inner_;
    if (!mask_) {
      if (own != made) copy_run(made, own, n);
    } else if constexpr (!std::is_same_v<T, Bits128>) {
      using A = acc_t<T>;
      const T* other = assembled(other_pieces_, lines_[1].data(), p, y);
      const auto blend = mix_kernels<T>().blend;
      for (const Cell& cell : cells_) {
        const int64_t at = cell.x * inner_, length = cell.n * inner_;
        if (cell.weight == 1 || cell.weight == 0) {
          copy_run(made + at, (cell.weight == 1 ? own : other) + at, length);
        } else {
          blend(made + at, own + at, other + at, own + at, length, A(cell.weight),
                A(1.0f - cell.weight));
        }
      }
    }
    if (made != dst) copy_pixels(dst, out_.x, static_cast<const T*>(made), inner_, inner_, width_);
  }

  const Images<T>&out_, &x_;
  const PatchSide &own_, &other_;
  const float* mask_;
  int64_t mask_rows_, mask_columns_, height_, width_, inner_;
  std::vector<Piece> own_pieces_, other_pieces_;
  std::vector<Cell> cells_;
  std::array<std::vector<T>, 3> lines_;
};

void mix_patches(Tensor x,                      // [B, …, H, W]
                 OptionalTensor sample,         // int32 [B] or [B, gh, gw]
                 OptionalTensor index,          // int32 [B, gh, gw]
                 OptionalTensor partner,        // int32 [B] or [B, gh, gw]
                 OptionalTensor partner_index,  // int32 [B, gh, gw]
                 OptionalTensor mask,           // float32 [B, mh, mw]
                 Tensor out) {                  // [B, …, H, W]
  check_patches(x, sample, index, partner, partner_index, mask, out);
  if (out.numel() == 0) return;
  if (out.is_contiguous() || out.stride(1) == 1) on_large_pages(out);
  const int64_t batch = x.size(0), height = x.size(x.dim() - 2), width = x.size(x.dim() - 1);
  const PatchSide own(sample, index, x), other(partner, partner_index, x);
  mask = as_contiguous(mask);
  const float* m = mask ? data<float>(*mask) : nullptr;
  const int64_t rows = mask ? mask->size(1) : 1, columns = mask ? mask->size(2) : 1;
  const auto run = [&](auto tag) {
    using T = typename decltype(tag)::type;
    const ImageShape shape = image_shape({&out, &x});
    const Images<T> to(out, shape), from(x, shape);
    const int64_t row_bytes = width * shape.inner * shape.planes * int64_t(sizeof(T));
    for_image_rows(batch, height, row_bytes, [&](int64_t i, int64_t begin, int64_t end) {
      PatchMixer<T>(to, from, own, other, m, rows, columns, height, width).mix(i, begin, end);
    });
  };
  mask ? dispatch_blendable(x.scalar_type(), run) : dispatch_size(x.element_size(), run);
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("mix_patches", TORCH_BOX(&fused_mixup::mix_patches));
}
