// C entry point to the kernel of draw_plan, run on the host (see cuda_host.h).
#include "../../csrc/cuda/plan.cuh"

using namespace fused_mixup;

extern "C" {

// Every member is 8 bytes wide, so that ctypes lays it out alike.
struct HostPlan {
  int64_t* state;
  const double* settings;      // [6], read by the kernel, or null
  const double* setting_args;  // [6], passed with the launch, or null
  const int64_t* labels;
  const int32_t* given;
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
  a.partner = h->partner;
  a.weight = h->weight;
  a.blend = h->blend;
  a.box = h->box;
  return draw_plan(a);
}
}
