// The interface between the machine (machine.cpp) and the barrier of its clusters
// (cluster_barrier.cpp). A launch without clusters has clusters of one block.
#pragma once

#include <cstddef>
#include <string>

#include "machine.h"

namespace host_cuda {
namespace clusters {

// Prepares for a cluster of `blocks` blocks. A thread is numbered within its cluster.
void begin(unsigned blocks, size_t threads_per_block);
// Says which thread runs from here on.
void enter(size_t thread);
// Whether all threads have arrived at the barrier where this one waits; then it has passed it.
bool passes(size_t thread);
// What is wrong with a cluster whose threads have all ended, or "".
std::string fault_at_end();

// Leaves the running thread until it passes the barrier: the machine's part.
void wait(Site site);

}  // namespace clusters
}  // namespace host_cuda
