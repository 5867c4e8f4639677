// The interface between the machine (machine.cpp) and the shared memory of its blocks
// (shared_memory.cpp).
#pragma once

#include <cstddef>

#include "machine.h"

namespace host_cuda {

// Whether a test leaves out the barrier, warp operation or wait of this line.
bool dropped(Site site);

namespace shared_memory {

// Prepares memory for a new launch, and for a new block: it is poisoned, with no copy in flight.
void begin_launch(size_t dynamic_size, size_t threads);
void begin_block();

// Whether all these bytes are dynamic shared memory, or all of one static variable.
bool holds(const void* at, size_t size);

}  // namespace shared_memory
}  // namespace host_cuda
