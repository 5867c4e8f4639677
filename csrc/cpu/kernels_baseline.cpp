// The inner loops for the instructions that every CPU of the platform has (SSE2, NEON), and the
// choice between the tables at run time.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

#define FUSED_MIXUP_ISA "baseline"

namespace fused_mixup {

namespace baseline {
namespace {
constexpr int kVectorBytes = 16;
#include "kernels.inl"
}  // namespace
}  // namespace baseline

#if defined(__x86_64__)
namespace avx2 {
const Kernels& kernel_table();
}
namespace avx512 {
const Kernels& kernel_table();
}
#endif

namespace {

const Kernels& choose() {
  const char* asked = std::getenv("FUSED_MIXUP_CPU");
  const auto wanted = [asked](const char* name) {
    return asked == nullptr || *asked == 0 || std::strcmp(asked, name) == 0;
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (wanted("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return avx512::kernel_table();
  }
  if ((wanted("avx2") || wanted("avx512")) && __builtin_cpu_supports("avx2") &&
      __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    return avx2::kernel_table();
  }
#endif
  (void)wanted;
  return baseline::table;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace fused_mixup
