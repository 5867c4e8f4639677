// How the samples that a mask covers lie in memory.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "walk.h"

namespace fused_mixup {

// The dims of a sample, taken apart: those of the image, and where each channel and frame begins.
// Without masks the whole sample is the image.
struct MaskedLayout {
  Layout image;
  std::vector<std::pair<int64_t, int64_t>> planes;  // offsets in dst and src

  MaskedLayout(const Layout& whole, bool masks) : planes{{0, 0}} {
    if (!masks) {
      image = whole;
      return;
    }
    for (int k = 0; k < whole.ndim; ++k) {
      if (whole.axis[k] < 0) {
        add_planes(whole, k);
        continue;
      }
      const int at = image.ndim++;
      image.size[at] = whole.size[k];
      image.dst_stride[at] = whole.dst_stride[k];
      image.src_stride[at] = whole.src_stride[k];
      image.axis[at] = whole.axis[k];
      image.group[at] = whole.group[k];
    }
  }

 private:
  void add_planes(const Layout& whole, int k) {
    std::vector<std::pair<int64_t, int64_t>> more;
    more.reserve(planes.size() * whole.size[k]);
    for (const auto& [dst, src] : planes) {
      for (int64_t i = 0; i < whole.size[k]; ++i) {
        more.emplace_back(dst + i * whole.dst_stride[k], src + i * whole.src_stride[k]);
      }
    }
    planes = std::move(more);
  }
};

// Runs of a tile that follow each other in memory on both sides, as one.
struct Piece {
  int64_t dst, src, at, length;  // at: in the tile
};
inline int pieces_of(const Run* runs, int n, bool adjacent, Piece* pieces) {
  int count = 0;
  int64_t at = 0;
  for (int r = 0; r < n; ++r) {
    Piece* last = count > 0 ? &pieces[count - 1] : nullptr;
    if (adjacent && last && last->dst + last->length == runs[r].dst &&
        last->src + last->length == runs[r].src) {
      last->length += runs[r].length;
    } else {
      pieces[count++] = {runs[r].dst, runs[r].src, at, runs[r].length};
    }
    at += runs[r].length;
  }
  return count;
}

}  // namespace fused_mixup
