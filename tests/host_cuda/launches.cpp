// Which kernels have been launched (tests compare them with those that the library has); which
// threads of a dependent launch await the kernel in front; which barrier a test leaves out.
#include <set>
#include <string>
#include <utility>

#include "machine.h"
#include "races.h"
#include "shared_memory.h"

namespace host_cuda {
namespace {

std::set<const void*> launched;
std::string dropped_file;  // the barrier or wait that a test leaves out
int dropped_line = 0;
bool starts_early = false, early = false;
std::set<std::pair<uint32_t, uint32_t>> waited;  // block and thread
// The stack of the launch, where the kernel's arguments lie.
const unsigned char* stack = nullptr;
constexpr size_t kMostStack = 8 * 1024 * 1024;

}  // namespace

void note_launch(const void* kernel) {
  launched.insert(kernel);
  early = starts_early;
  starts_early = false;
  waited.clear();
  stack = static_cast<const unsigned char*>(__builtin_frame_address(0));
}

bool dropped(Site site) {
  if (site.line != dropped_line) return false;
  const std::string file = site.file;
  return file.substr(file.find_last_of('/') + 1) == dropped_file;
}

void next_starts_early() { starts_early = true; }

void await_earlier(Site site) {
  if (!dropped(site)) waited.insert({races::now.block, races::now.thread});
}

bool awaited() { return !early || waited.count({races::now.block, races::now.thread}) != 0; }

bool may_touch(const void* at) {
  const unsigned char* p = static_cast<const unsigned char*>(at);
  return awaited() || (p >= stack && p < stack + kMostStack);
}

}  // namespace host_cuda

extern "C" {

// Leaves out the barrier, warp operation or wait at this line of this file.
EXPORT void host_drop(const char* file, int64_t line) {
  host_cuda::dropped_file = file;
  host_cuda::dropped_line = static_cast<int>(line);
}

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
