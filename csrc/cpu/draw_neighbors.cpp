// draw_neighbors on the CPU: each sample's weights are summed in blocks, its place in the sum is
// drawn, and the block that holds it is walked again.
//
// Labels are packed into float64 once; per pair of samples it reads 8·D bytes, from the
// second-level cache as a rule. Weights are whole numbers, so that any order of summation gives the
// same bits. No thread holds more than the sums of the blocks.
#include <algorithm>
#include <limits>
#include <vector>

#include "../common/draw_arguments.h"
#include "binding.h"
#include "dispatch.h"
#include "kernels.h"

namespace fused_mixup {
namespace {

constexpr int64_t kLanesAtMost = 8;       // doubles of the widest vector
constexpr int64_t kPairsOfGrain = 16384;  // pairs that outweigh the cost of waking a thread

// [D, stride] doubles of labels [N, D].
std::vector<double> packed(const Tensor& labels, int64_t stride) {
  const int64_t n = labels.size(0), dims = labels.size(1);
  std::vector<double> out(size_t(stride * dims), std::numeric_limits<double>::quiet_NaN());
  dispatch_floating(labels.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* p = data<T>(labels);
    for (int64_t d = 0; d < dims; ++d) {
      for (int64_t j = 0; j < n; ++j) {
        out[d * stride + j] = double(to_float(p[j * labels.stride(0) + d * labels.stride(1)]));
      }
    }
  });
  return out;
}

// The sample at `place` of the running sum of weights.
int64_t sample_at(const NeighborKernels& k, const NeighborRow& row, const uint64_t* sums,
                  uint64_t place) {
  int64_t block = 0;
  for (; sums[block] <= place; ++block) place -= sums[block];
  const int64_t begin = block * kNeighborBlock;
  const int64_t end = std::min(begin + kNeighborBlock, row.stride);
  uint64_t weight[kNeighborBlock];
  k.weights(row, begin, end, weight);
  int64_t j = 0;
  for (; weight[j] <= place; ++j) place -= weight[j];
  return begin + j;
}

Tensor draw_neighbors(Tensor state,         // int64 [4]
                      Tensor settings,      // float64 [1]
                      Tensor labels,        // [B, D]
                      OptionalTensor pool,  // [N, D]
                      int64_t kernel) {
  check_draw_neighbors(state, settings, labels, pool, kernel);
  const int64_t batch = labels.size(0), dims = labels.size(1);
  const int64_t count = pool ? pool->size(0) : batch;
  Tensor partner = torch::stable::empty({batch}, ScalarType::Int);
  int32_t* found = data<int32_t>(partner);
  int64_t* words = data<int64_t>(state);
  const bool known = words[kVersionWord] == kStateVersion;
  const Stream stream(words);
  const NeighborLaw law(*data<double>(settings), int(kernel));
  const NeighborKernels& k = kernels().neighbors;

  const int64_t stride = (count + kLanesAtMost - 1) / kLanesAtMost * kLanesAtMost;
  const std::vector<double> others = packed(pool ? *pool : labels, stride);
  const std::vector<double> own = pool ? packed(labels, batch) : std::vector<double>();
  const double* mine = pool ? own.data() : others.data();
  const int64_t step = pool ? batch : stride;
  const int64_t blocks = (stride + kNeighborBlock - 1) / kNeighborBlock;
  const int64_t grain = std::max<int64_t>(kPairsOfGrain / std::max<int64_t>(count, 1), 1);
  parallel_for(0, batch, grain, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> sums(size_t(blocks), 0);
    std::vector<double> label(size_t(dims), 0.0);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t d = 0; d < dims; ++d) label[d] = mine[d * step + i];
      NeighborRow row = {others.data(), stride, dims, label.data(), law, 0.0};
      if (pool) row.nearest = k.nearest(row);
      uint64_t total = 0;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t first = b * kNeighborBlock;
        sums[b] = k.sum(row, first, std::min(first + kNeighborBlock, stride));
        total += sums[b];
      }
      const uint64_t place = neighbor_place(stream, uint32_t(i), total);
      const bool drawn = known && total > 0;
      found[i] = int32_t(drawn ? sample_at(k, row, sums.data(), place) : std::min(i, count - 1));
    }
  });
  if (known) words[kStepWord] = int64_t(uint64_t(words[kStepWord]) + 1);
  return partner;
}

}  // namespace
}  // namespace fused_mixup

STABLE_TORCH_LIBRARY_IMPL(FUSED_MIXUP_OPS, CPU, m) {
  m.impl("draw_neighbors", TORCH_BOX(&fused_mixup::draw_neighbors));
}
