// The barrier of a cluster, and what its blocks read of each other.
//
// Findings do not depend on the order in which blocks happen to run: a block may end, for its
// readers, if every one of its threads has waited for a barrier at which the reader arrived after
// it had read.
#include "cluster_barrier.h"

#include <algorithm>
#include <vector>

#include "races.h"
#include "shared_memory.h"

namespace host_cuda {
namespace {

// How often a thread has arrived at the barrier, and waited for it.
struct Thread {
  uint32_t arrived = 0, waited = 0;
};

unsigned blocks = 1;
size_t per_block = 0, current = 0;
std::vector<Thread> threads;
// By block: how often a reader had arrived when it last read this block's memory, or -1.
std::vector<int64_t> read_after;
int resident = 2;

void show() {
  races::now.arrived = threads[current].arrived;
  races::now.waited = threads[current].waited;
}

std::string block(size_t rank) { return "block " + std::to_string(rank) + " of the cluster"; }

}  // namespace

namespace clusters {

void begin(unsigned blocks_now, size_t threads_per_block) {
  blocks = blocks_now;
  per_block = threads_per_block;
  threads.assign(blocks * per_block, Thread());
  read_after.assign(blocks, -1);
}

void enter(size_t thread) {
  current = thread;
  show();
}

bool passes(size_t thread) {
  for (const Thread& t : threads) {
    if (t.arrived <= threads[thread].waited) return false;
  }
  ++threads[thread].waited;
  return true;
}

std::string fault_at_end() {
  for (size_t t = 0; t < threads.size(); ++t) {
    if (threads[t].arrived != threads[t].waited) return "a thread ends at the cluster's barrier";
    if (threads[t].waited <= read_after[t / per_block]) {
      return block(t / per_block) + " may end while another block still reads its shared memory";
    }
  }
  return "";
}

}  // namespace clusters

int cluster_rank() { return static_cast<int>(current / per_block); }
int cluster_blocks() { return static_cast<int>(blocks); }
int resident_clusters() { return resident; }

void cluster_arrive(Site site) {
  if (dropped(site)) return;
  Thread& me = threads[current];
  if (me.arrived != me.waited) fault("a thread arrives twice at the cluster's barrier");
  ++me.arrived;
  show();
}

void cluster_wait(Site site) {
  if (dropped(site)) return;
  const Thread& me = threads[current];
  if (me.arrived == me.waited) fault("a thread waits at the cluster's barrier without arriving");
  clusters::wait(site);
}

const void* remote_shared(const void* own, int rank) {
  if (rank < 0 || rank >= static_cast<int>(blocks)) {
    fault("a read of block " + std::to_string(rank) + " in a cluster of " + std::to_string(blocks));
  }
  const Thread& me = threads[current];
  if (me.waited == 0) fault(block(static_cast<size_t>(rank)) + " is read before it has started");
  if (rank != cluster_rank()) {
    read_after[rank] = std::max(read_after[rank], static_cast<int64_t>(me.arrived));
  }
  return shared_memory::of_block(own, static_cast<size_t>(rank));
}

}  // namespace host_cuda

extern "C" {

EXPORT void host_set_resident_clusters(int64_t clusters) {
  host_cuda::resident = static_cast<int>(clusters);
}
}
