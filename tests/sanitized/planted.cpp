// Bugs on purpose, one for each thing that a sanitizer must see before its silence means anything.
#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <vector>

#define PLANTED extern "C" __attribute__((visibility("default"), noinline))

// Any element of memory that someone else allocated: a tensor's, one past its end.
PLANTED float planted_read(const float* p, int64_t i) { return p[i]; }

PLANTED void planted_write(float* p, int64_t i) { p[i] = 1; }

PLANTED int planted_signed_overflow(int a, int b) { return a + b; }

PLANTED int planted_float_cast(float f) { return int(f); }

PLANTED int planted_shift(int a, int count) { return a << count; }

PLANTED int planted_vector_index(int64_t i) {
  const std::vector<int> v(4, 1);
  return v[i];
}

// Every worker writes the same element, along the very path that the kernels' work takes.
PLANTED void planted_race(float* p) {
  torch::stable::parallel_for(0, 64, 1, [=](int64_t begin, int64_t) { p[0] = float(begin); });
}

// The same with an element for each: no race, and nothing may be reported.
PLANTED void planted_no_race(float* p) {
  torch::stable::parallel_for(0, 64, 1, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) p[i] = 1;
  });
  for (int i = 0; i < 64; ++i) p[i] += 1;
}
