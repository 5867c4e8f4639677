// Which kernels have been launched: tests compare them with those that the library has.
#include <set>

#include "machine.h"

namespace host_cuda {
namespace {

std::set<const void*> launched;

}  // namespace

void note_launch(const void* kernel) { launched.insert(kernel); }

}  // namespace host_cuda

extern "C" {

// Writes the addresses of kernels launched so far, and returns how many there are.
EXPORT int64_t host_launched(const void** out, int64_t room) {
  int64_t count = 0;
  for (const void* kernel : host_cuda::launched) {
    if (count < room) out[count] = kernel;
    ++count;
  }
  return count;
}

EXPORT void host_forget_launched() { host_cuda::launched.clear(); }
}
