// What the machine (machine.cpp) and the shared memory of its blocks (shared_memory.cpp) say to
// each other.
#pragma once

#include <cstddef>

#include "machine.h"

namespace host_cuda {

// Whether a test leaves out the barrier, warp operation or wait that stands here.
bool dropped(Site site);

namespace shared_memory {

// Memory of a new launch; and a new block's, which starts poisoned, with no copy under way.
void begin_launch(size_t dynamic_size, size_t threads);
void begin_block();

}  // namespace shared_memory
}  // namespace host_cuda
