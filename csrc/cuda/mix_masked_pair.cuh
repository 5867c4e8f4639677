// Mix by masks where two samples are each other's partner (flip), or a sample its own (self): in
// place, out of place, and the transpose.
//
// Fused: both masks, widening, two products, sum, rounding, box, for both samples of a pair. Each
// element is read once and written once, as by the pair kernel without masks.
//
// One thread owns the same vectors of both samples and holds both originals in registers before it
// writes either. So the in-place form has no race and needs no barrier, whatever the masks.
#pragma once

#include "mix_masked_rows.cuh"

namespace fused_mixup {

template <typename T, int V, bool kTransposed>
__global__ void __launch_bounds__(kThreads, 2)
    masked_pair_kernel(const __grid_constant__ MaskedParams p) {
  constexpr int U = kPlanes<V>;
  const MaskedPlace place(p, true);
  if (place.vector >= p.inner) return;
  const int64_t i = place.row;
  const int64_t j = p.pairing == kFlip ? p.batch - 1 - i : i;
  const bool alone = i == j;  // self, or the middle of an odd batch
  MaskedRow<T, V> a(p, i), b(p, j);
  const Coordinates in_image = coordinates_of<V>(p.geo, place.vector);
#pragma unroll 1  // few rounds, whose code is long
  for (uint32_t plane = place.first_plane; plane < place.end_plane; plane += U) {
    // 1. Load what the outputs of both rows need.
    Vec<T, V> va[U], vb[U];
    Span sa[U], sb[U];
    Offsets at[U];
    bool active[U];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      active[u] = place.has(p, plane + u);
      const uint32_t v = active[u] ? place.vector_of(p, plane + u) : place.vector;
      at[u] = offsets_of<V>(p.geo, v);
      sa[u] = masked_span<V>(p, in_image, v, a.box);
      sb[u] = masked_span<V>(p, in_image, v, b.box);
      const bool any = !p.in_place || a.blends() || b.blends() || !sa[u].empty() || !sb[u].empty();
      va[u] = vb[u] = Vec<T, V>{};
      if (active[u] && any) va[u] = load<V>(src_row<T>(p, i) + at[u].src);
      if (active[u] && any && !alone) vb[u] = load<V>(src_row<T>(p, j) + at[u].src);
      if (alone) vb[u] = va[u];
    }

    // 2. The masks, while the loads are in flight.
    if (plane == place.first_plane) {
      const Pixels pixels = pixels_at<V>(p, in_image);
      a.find_mask(p, pixels);
      if (!alone) b.find_mask(p, pixels);
    }

    // 3. Mix and write. Both originals are in registers, so the order of the stores is free.
#pragma unroll
    for (int u = 0; u < U; ++u) {
      if (!active[u]) continue;
      T* row_a = dst_row<T>(p, i) + at[u].dst;
      T* row_b = dst_row<T>(p, j) + at[u].dst;
      if constexpr (kTransposed) {
        typename Number<T>::Acc sum[V];
        a.send_own(va[u], sa[u], sum);
        if (alone) {
          a.send_partner(va[u], sa[u], sum);
          store(row_a, rounded<T, V>(sum));
          continue;
        }
        b.send_partner(vb[u], sb[u], sum);
        store(row_a, rounded<T, V>(sum));
        b.send_own(vb[u], sb[u], sum);
        a.send_partner(va[u], sa[u], sum);
        store(row_b, rounded<T, V>(sum));
      } else {
        if (!p.in_place || !a.keeps() || !sa[u].empty()) store(row_a, a.mix(va[u], vb[u], sa[u]));
        if (alone) continue;
        if (!p.in_place || !b.keeps() || !sb[u].empty()) store(row_b, b.mix(vb[u], va[u], sb[u]));
      }
    }
  }
}

template <typename T, int V, bool kTransposed>
cudaError_t launch_masked_pair(MaskedParams p, cudaStream_t stream) {
  dim3 block;
  const int64_t rows = p.pairing == kFlip ? (p.batch + 1) / 2 : p.batch;
  const int64_t blocks = set_masked_grid<V>(&p, rows, &block);
  return launch(masked_pair_kernel<T, V, kTransposed>, blocks, block, 0, stream, p);
}

}  // namespace fused_mixup
