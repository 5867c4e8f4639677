// Which kernels have been launched (tests compare them with those that the library has), and the
// threads of a dependent launch that await the kernel in front of it.
#include <set>
#include <utility>

#include "machine.h"
#include "races.h"
#include "shared_memory.h"

namespace host_cuda {
namespace {

std::set<const void*> launched;
bool starts_early = false, early = false;
std::set<std::pair<uint32_t, uint32_t>> waited;  // block and thread

}  // namespace

void note_launch(const void* kernel) {
  launched.insert(kernel);
  early = starts_early;
  starts_early = false;
  waited.clear();
}

void next_starts_early() { starts_early = true; }

void await_earlier(Site site) {
  if (!dropped(site)) waited.insert({races::now.block, races::now.thread});
}

bool awaited() { return !early || waited.count({races::now.block, races::now.thread}) != 0; }

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
