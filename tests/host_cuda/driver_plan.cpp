// C entry points to the kernels of draw_plan, draw_erasing and draw_neighbors, run on the host (see
// cuda_host.h).
#include "../../csrc/cuda/draw_erasing.cuh"
#include "../../csrc/cuda/draw_neighbors.cuh"
#include "../../csrc/cuda/plan.cuh"

using namespace fused_mixup;

extern "C" {

// Every member is 8 bytes wide, so that ctypes lays it out alike.
struct HostPlan {
  int64_t* state;
  const double* settings;      // [6], read by the kernel, or null
  const double* setting_args;  // [6], passed with the launch, or null
  const int64_t* labels;
  const int32_t *given, *sample;
  int64_t batch;
  const int64_t* sizes;
  int64_t spatial, per, pairing, correct_lam, symmetric;
  int32_t* partner;
  float* weight;
  double* blend;
  int32_t* box;
};

EXPORT int host_draw_plan(const HostPlan* h) {
  PlanArgs a = {};
  a.state = h->state;
  a.settings = h->settings;
  if (h->setting_args != nullptr) {
    for (int k = 0; k < kSettings; ++k) a.draw.setting[k] = h->setting_args[k];
  }
  for (int64_t k = 0; k < h->spatial; ++k) a.draw.size[k] = h->sizes[k];
  a.draw.spatial = static_cast<int>(h->spatial);
  a.draw.correct_lam = h->correct_lam != 0;
  a.draw.symmetric = h->symmetric != 0;
  a.batch = static_cast<int>(h->batch);
  a.per = static_cast<int>(h->per);
  a.pairing = static_cast<int>(h->pairing);
  a.labels = h->labels;
  a.given = h->given;
  a.sample = h->sample;
  a.partner = h->partner;
  a.weight = h->weight;
  a.blend = h->blend;
  a.box = h->box;
  return draw_plan(a);
}

struct HostErasing {
  int64_t* state;
  const double* settings;      // [5], read by the kernel, or null
  const double* setting_args;  // [5], passed with the launch, or null
  const float* fill;           // [filled]
  int64_t filled, batch, height, width, max_count, channels, mode, clean;
  int32_t* box;
  float* value;
  int64_t* noise;
};

EXPORT int host_draw_erasing(const HostErasing* h) {
  ErasingLaunch a = {};
  a.state = h->state;
  a.settings = h->settings;
  if (h->setting_args != nullptr) {
    for (int k = 0; k < kErasingSettings; ++k) a.draw.setting[k] = h->setting_args[k];
  }
  for (int64_t k = 0; k < h->filled; ++k) a.fill[k] = h->fill[k];
  a.filled = static_cast<int>(h->filled);
  a.batch = static_cast<int>(h->batch);
  a.draw.height = h->height;
  a.draw.width = h->width;
  a.draw.clean = h->clean;
  a.draw.max_count = static_cast<int32_t>(h->max_count);
  a.draw.channels = static_cast<int32_t>(h->channels);
  a.draw.mode = static_cast<int32_t>(h->mode);
  a.box = h->box;
  a.value = h->value;
  a.noise = h->noise;
  return draw_erasing(a);
}

struct HostNeighbors {
  int64_t* state;
  const double* settings;      // [1], read by the kernel, or null
  const double* setting_args;  // [1], passed with the launch, or null
  int64_t wide;                // labels are float64
  const void* labels;
  const void* pool;  // or null
  const int64_t* label_stride;
  const int64_t* pool_stride;
  int64_t batch, count, dims, kernel, most_blocks;
  int32_t* partner;
};

EXPORT int host_draw_neighbors(const HostNeighbors* h) {
  NeighborLaunch a = {};
  a.state = h->state;
  a.settings = h->settings;
  if (h->setting_args != nullptr) a.bandwidth = *h->setting_args;
  a.kernel = static_cast<int>(h->kernel);
  a.labels = h->labels;
  a.pool = h->pool;
  for (int d = 0; d < 2; ++d) {
    a.label_stride[d] = h->label_stride[d];
    a.pool_stride[d] = h->pool_stride[d];
  }
  a.batch = h->batch;
  a.count = h->count;
  a.dims = h->dims;
  a.partner = h->partner;
  a.most_blocks = h->most_blocks;
  return h->wide != 0 ? draw_neighbors<double>(a) : draw_neighbors<float>(a);
}
}
