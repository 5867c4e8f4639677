// What launches ask of the device: tickets. Counts launches.
#include "device.h"

#include "machine.h"

namespace host_cuda {
namespace {

int64_t launches = 0;
unsigned stream_ticket = 0;  // serves every stream
bool all_taken = false;

}  // namespace

namespace device {

void begin_launch() { ++launches; }
// The kernel had no chance to leave its ticket at zero.
void launch_failed() { stream_ticket = 0; }

}  // namespace device

unsigned* ticket(unsigned* spare) {
  if (all_taken) {
    *spare = 0;
    return spare;
  }
  return stream_ticket == 0 ? &stream_ticket : nullptr;  // the last kernel left it elsewhere
}

}  // namespace host_cuda

// ------------------------------------------------------------------ for the tests

extern "C" {

EXPORT int64_t host_launches() { return host_cuda::launches; }
EXPORT void host_take_all_tickets(int64_t taken) { host_cuda::all_taken = taken != 0; }
}
