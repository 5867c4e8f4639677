// In place of csrc/cpu/kernels_baseline.cpp, which also makes the choice at run time: the same
// file, told that the CPU has AVX-512, since this build carries stand-ins for its instructions.
#include <cstring>

#define __builtin_cpu_supports(feature) \
  (std::strncmp(feature, "avx512", 6) == 0 || __builtin_cpu_supports(feature))

#include "../../csrc/cpu/kernels_baseline.cpp"
