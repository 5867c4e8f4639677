// A C entry point to the kernels of draw_variants, run on the host (see cuda_host.h).
#include "../../csrc/cuda/draw_variants.cuh"

using namespace fused_mixup;

extern "C" {

// Every member is 8 bytes wide, so that ctypes lays it out alike.
struct HostVariants {
  int64_t* state;
  const double* settings;      // [1 + 10·M], read by the kernel, or null
  const double* setting_args;  // the same, passed with the launch, or null
  const int64_t* labels;
  const int32_t *given, *sample;
  const int64_t* kinds;
  int64_t count, batch, height, width, rank, per, pairing, correct_lam, symmetric;
  int32_t* partner;
  float* weight;
  double* blend;
  int32_t *box, *code;
  float *threshold, *rows, *columns;
  int32_t* resize_box;
};

EXPORT int host_draw_variants(const HostVariants* h) {
  VariantLaunch a = {};
  a.state = h->state;
  a.settings = h->settings;
  a.draw.count = static_cast<int>(h->count);
  for (int k = 0; k < a.draw.count; ++k) a.draw.kind[k] = static_cast<int>(h->kinds[k]);
  if (h->setting_args != nullptr) {
    a.draw.prob = h->setting_args[0];
    for (int k = 0; k < a.draw.count; ++k) {
      for (int n = 0; n < kVariantNumbers; ++n) {
        a.draw.number[k][n] = h->setting_args[1 + kVariantNumbers * k + n];
      }
    }
  }
  a.draw.size[0] = h->height;
  a.draw.size[1] = h->width;
  a.draw.rank = static_cast<int>(h->rank);
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
  a.code = h->code;
  a.threshold = h->threshold;
  a.rows = h->rows;
  a.columns = h->columns;
  a.resize_box = h->resize_box;
  return draw_variants(a);
}
}
