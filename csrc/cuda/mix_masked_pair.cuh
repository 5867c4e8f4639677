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
__global__ void __launch_bounds__(kMaskedThreads, kTwoRowBlocks)
    masked_pair_kernel(const __grid_constant__ MaskedParams p) {
  constexpr int U = kPlanes<V>;
  const MaskedPlace place(p, true);
  if (place.vector >= p.inner) return;
  const int64_t i = place.row;
  const int64_t j = p.pairing == kFlip ? p.batch - 1 - i : i;
  const bool alone = i == j;  // self, or the middle of an odd batch
  const Coordinates c = coordinates_of<V>(p.geo, place.vector);
  MaskedRow<T, V> a(p, i, c), b(p, j, c);
  // In place, a thread has nothing to do where neither row changes.
  if (p.in_place && !a.may_change() && !b.may_change()) return;

#pragma unroll 1  // few rounds, whose code is long
  for (uint32_t plane = place.first_plane; plane < place.end_plane; plane += U) {
    Vec<T, V> va[U], vb[U];
    Offsets at[U];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const bool active = place.has(p, plane + u);
      at[u] = offsets_of<V>(p.geo, active ? place.vector_of(p, plane + u) : place.vector);
      va[u] = vb[u] = Vec<T, V>{};
      if (active) va[u] = load<V>(src_row<T>(p, i) + at[u].src);
      // Of a row that is alone too: a copy of registers would wait for the first load.
      if (active) vb[u] = load<V>(src_row<T>(p, j) + at[u].src);
    }
    // The masks are found while the first loads are in flight.
    if (plane == place.first_plane) {
      const Pixels pixels = pixels_at<V>(p, c);
      a.find_mask(p, i, pixels);
      if (!alone) b.find_mask(p, j, pixels);
      if (alone) b = a;
    }
    // Both originals are in registers, so the order of the stores is free.
    const bool write_a = !p.in_place || a.changes();
    const bool write_b = !alone && (!p.in_place || b.changes());
#pragma unroll
    for (int u = 0; u < U; ++u) {
      if (!place.has(p, plane + u)) continue;
      T* row_a = dst_row<T>(p, i) + at[u].dst;
      T* row_b = dst_row<T>(p, j) + at[u].dst;
      if constexpr (kTransposed) {
        typename Number<T>::Acc sum[V];
        a.send_own(va[u], sum);
        b.send_partner(vb[u], sum);
        store(row_a, rounded<T, V>(sum));
        if (alone) continue;
        b.send_own(vb[u], sum);
        a.send_partner(va[u], sum);
        store(row_b, rounded<T, V>(sum));
      } else {
        if (write_a) store(row_a, a.mix(va[u], vb[u]));
        if (write_b) store(row_b, b.mix(vb[u], va[u]));
      }
    }
  }
}

template <typename T, int V, bool kTransposed>
cudaError_t launch_masked_pair(MaskedParams p, cudaStream_t stream) {
  dim3 block;
  const int64_t rows = p.pairing == kFlip ? (p.batch + 1) / 2 : p.batch;
  const int64_t blocks = set_masked_grid(&p, rows, &block);
  return launch(masked_pair_kernel<T, V, kTransposed>, blocks, block, 0, stream, p);
}

}  // namespace fused_mixup
