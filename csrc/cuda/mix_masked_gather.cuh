// Mix by masks out of place, any pairing, partners from the batch or from a pool; with the clean
// batch beside the mixed one; and the transposes of roll and of a partner tensor.
//
// Each element is read once from memory and once more, as a partner's, from L2, and written once.
// Blocks are numbered with the batch fastest, so that all samples of one vector are in flight
// together and a partner's vector is in L2 when it is read again.
#pragma once

#include "mix_masked_rows.cuh"

namespace fused_mixup {

template <typename T, int V>
__global__ void __launch_bounds__(kMaskedThreads, kOneRowBlocks)
    masked_gather_kernel(const __grid_constant__ MaskedParams p) {
  constexpr int U = kPlanes<V>;
  const MaskedPlace place(p, false);
  if (place.vector >= p.inner) return;
  const int64_t i = place.row;
  const T* own_row = src_row<T>(p, i);
  const int64_t partners = p.pairing == kTensor ? p.others : p.batch;
  const T* other_row = static_cast<const T*>(p.other) +
                       partner_of(p.pairing, p.partner, i, partners) * p.other_batch_stride;
  const Coordinates c = coordinates_of<V>(p.geo, place.vector);
  MaskedRow<T, V> row(p, i, c);
  const bool need_own = p.clean != nullptr || !row.span.template full<V>();
  const bool need_other = row.may_change();

#pragma unroll 1  // few rounds, whose code is long
  for (uint32_t plane = place.first_plane; plane < place.end_plane; plane += U) {
    Vec<T, V> own[U], other[U];
    int64_t at[U];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const bool active = place.has(p, plane + u);
      const uint32_t v = active ? place.vector_of(p, plane + u) : place.vector;
      const Offsets offsets = offsets_of<V>(p.geo, v);
      int64_t from = offsets.src;
      if (p.other_apart) from = offsets_of<V>(p.other_geo, v).src;
      at[u] = offsets.dst;
      own[u] = other[u] = Vec<T, V>{};
      if (active && need_own) own[u] = load<V>(own_row + offsets.src);
      if (active && need_other) other[u] = load<V>(other_row + from);
    }
    // The mask is found while the first loads are in flight.
    if (plane == place.first_plane) row.find_mask(p, i, pixels_at<V>(p, c));
#pragma unroll
    for (int u = 0; u < U; ++u) {
      if (!place.has(p, plane + u)) continue;
      if (p.clean != nullptr) {
        store(static_cast<T*>(p.clean) + i * p.dst_batch_stride + at[u], own[u]);
      }
      store(dst_row<T>(p, i) + at[u], row.mix(own[u], other[u]));
    }
  }
}

// A mask and sums take the registers.
constexpr int kScatterPlanes = 2;

// grad_j = own part of j + the partner parts of the rows whose partner j is, summed in their order.
template <typename T, int V>
__global__ void __launch_bounds__(kMaskedThreads, kTwoRowBlocks)
    masked_scatter_kernel(const __grid_constant__ MaskedParams p) {
  constexpr int U = kScatterPlanes;
  const MaskedPlace place(p, false);
  if (place.vector >= p.inner) return;
  const int64_t j = place.row;
  int64_t begin = 0, end = 1;  // roll: j is the partner of j+1 alone
  if (p.pairing == kTensor) {
    // Clamped, as the caller's tensors must not lead out of bounds.
    begin = p.offsets[j] < 0 ? 0 : p.offsets[j];
    end = p.offsets[j + 1] > p.batch ? p.batch : p.offsets[j + 1];
  }
  const Coordinates c = coordinates_of<V>(p.geo, place.vector);
  const Pixels pixels = pixels_at<V>(p, c);
#pragma unroll 1
  for (uint32_t plane = place.first_plane; plane < place.end_plane; plane += U) {
    typename Number<T>::Acc sum[U][V] = {};
    Offsets at[U];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      // Beyond the end a thread reads its first vector, and writes nothing below.
      const bool active = place.has(p, plane + u);
      at[u] = offsets_of<V>(p.geo, active ? place.vector_of(p, plane + u) : place.vector);
    }
    // The row itself comes first: a mask's code is long, and stands here once.
#pragma unroll 1
    for (int64_t s = begin - 1; s < end; ++s) {
      int64_t i = j;
      if (s >= begin) {
        i = p.pairing == kTensor ? partner_of(kTensor, p.sources, s, p.batch)
                                 : (j + 1 == p.batch ? 0 : j + 1);
      }
      Vec<T, V> grad[U];
#pragma unroll
      for (int u = 0; u < U; ++u) grad[u] = load<V>(src_row<T>(p, i) + at[u].src);
      MaskedRow<T, V> row(p, i, c);
      row.find_mask(p, i, pixels);
#pragma unroll
      for (int u = 0; u < U; ++u) {
        if (s < begin) {
          row.send_own(grad[u], sum[u]);
        } else {
          row.send_partner(grad[u], sum[u]);
        }
      }
    }
#pragma unroll
    for (int u = 0; u < U; ++u) {
      if (place.has(p, plane + u)) store(dst_row<T>(p, j) + at[u].dst, rounded<T, V>(sum[u]));
    }
  }
}

template <typename T, int V, bool kTransposed>
cudaError_t launch_masked_gather(MaskedParams p, cudaStream_t stream) {
  dim3 block;
  const int64_t blocks = set_masked_grid(&p, p.batch, &block);
  if constexpr (kTransposed) {
    return launch(masked_scatter_kernel<T, V>, blocks, block, 0, stream, p);
  } else {
    return launch(masked_gather_kernel<T, V>, blocks, block, 0, stream, p);
  }
}

}  // namespace fused_mixup
