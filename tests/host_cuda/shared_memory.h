// The interface between the machine (machine.cpp) and the shared memory of its blocks
// (shared_memory.cpp).
#pragma once

#include <cstddef>

#include "machine.h"

namespace host_cuda {

// Whether a test leaves out the barrier, warp operation or wait of this line.
bool dropped(Site site);

namespace shared_memory {

// Prepares memory for a new launch of clusters of `blocks` blocks, and for a new cluster: it is
// poisoned, with no copy in flight.
void begin_launch(size_t dynamic_size, size_t threads, unsigned blocks);
void begin_cluster();

// What stands at the place of *own, this block's, in block `rank` of the cluster.
const void* of_block(const void* own, size_t rank);

// Whether all these bytes are dynamic shared memory of this block, or all of one static variable.
bool holds(const void* at, size_t size);

}  // namespace shared_memory
}  // namespace host_cuda
