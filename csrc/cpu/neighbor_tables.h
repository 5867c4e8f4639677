// The inner loops of draw_neighbors, one table for each instruction set (kernels.h).
#pragma once

#include "../common/neighbors.h"

namespace fused_mixup {

// Labels that one sample is compared with.
struct NeighborRow {
  const double* pool;   // [D, stride]; NaN behind the last
  int64_t stride;       // whole vectors
  int64_t dims;         // D
  const double* label;  // [D], the sample's own
  NeighborLaw law;
  double nearest;  // the least squared distance
};

constexpr int64_t kNeighborBlock = 1024;  // labels whose weights are summed together

struct NeighborKernels {
  // The least squared distance in the whole pool; infinite where all are NaN.
  double (*nearest)(const NeighborRow& row);
  // The sum of the weights in [begin, end), whole vectors.
  uint64_t (*sum)(const NeighborRow& row, int64_t begin, int64_t end);
  // Each of these weights.
  void (*weights)(const NeighborRow& row, int64_t begin, int64_t end, uint64_t* weight);
};

}  // namespace fused_mixup
