// Runs clusters (of one block, mostly) one by one, their threads in turn, each until it waits.
#include "machine.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "bulk.h"
#include "cluster_barrier.h"
#include "device.h"
#include "fiber.h"
#include "races.h"
#include "shared_memory.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host_cuda {
namespace {

enum Order { kForward = 0, kReverse = 1, kShuffled = 2 };
enum class State { kReady, kAtBarrier, kAtWarp, kAtCluster, kUntil, kDone };

constexpr size_t kDynamicLimit = 232448;  // what a block of an H100 may have

struct Thread {
  State state = State::kReady;
  Site site = {"", 0};  // where it waits
  WarpOp op = {};
  Condition until = {};
  uint32_t syncs = 0;
  Fiber* fiber = nullptr;
};

struct Machine {
  Order order = kForward;
  std::string error;
  std::vector<Thread> threads;     // of all blocks of the cluster
  size_t per_block = 0;            // threads of one block
  std::vector<uint32_t> barriers;  // by block: how many it has passed
  FiberPool fibers;
  void (*body)(const void*) = nullptr;
  const void* args = nullptr;
  unsigned current = 0;
};
Machine machine;

bool fail(const std::string& what) {
  if (!machine.error.empty()) return false;
  char where[64];
  std::snprintf(where, sizeof(where), " (in block %u of %u)", races::now.block,
                gridDim.x * gridDim.y * gridDim.z);
  machine.error = what + where;
  return false;
}

Thread& me() { return machine.threads[machine.current]; }

void set_thread(unsigned t) {
  machine.current = t;
  const unsigned rank = t / machine.per_block, own = t % machine.per_block;
  threadIdx = dim3(own % blockDim.x, own / blockDim.x % blockDim.y, own / blockDim.x / blockDim.y);
  const unsigned b = races::now.cluster * static_cast<unsigned>(machine.barriers.size()) + rank;
  blockIdx = dim3(b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y);
  clusters::enter(t);
  races::now.block = b;
  races::now.rank = rank;
  races::now.barrier = machine.barriers[rank];
  const Thread& thread = machine.threads[t];
  races::now.thread = own;
  races::now.sync = thread.syncs;
  races::now.stack = thread.fiber->stack();
  races::now.stack_end = thread.fiber->stack_end();
}

void wait(State state, Site site) {
  const unsigned t = machine.current;
  me().state = state;
  me().site = site;
  races::now.watching = false;
  me().fiber->leave();
  set_thread(t);
  races::now.watching = true;
}

void thread_main() {
  races::now.watching = true;
  machine.body(machine.args);
  races::now.watching = false;
  if (!awaited()) fault("a thread ends before it has awaited the kernel in front");
  me().state = State::kDone;
}

// The first thread of t's warp, and the end of its block.
size_t warp_of(size_t t) { return t - t % machine.per_block % 32; }
size_t block_end(size_t t) { return (t / machine.per_block + 1) * machine.per_block; }

// True where every lane that thread t names waits at the same operation.
bool warp_complete(size_t t) {
  const size_t base = warp_of(t), end = block_end(t);
  const Thread& first = machine.threads[t];
  for (size_t l = 0; l < 32; ++l) {
    if ((first.op.mask >> l & 1) == 0) continue;
    if (base + l >= end) continue;  // the last warp may be smaller
    const Thread& other = machine.threads[base + l];
    if (other.state != State::kAtWarp || other.op.mask != first.op.mask) return false;
    if (other.site != first.site) return false;
  }
  return true;
}

// Every lane of t's operation waits: gives each its result, and lets them continue.
void complete_warp(size_t t) {
  const size_t base = warp_of(t), lanes = std::min<size_t>(32, block_end(t) - base);
  const unsigned mask = machine.threads[t].op.mask;
  const auto takes_part = [&](size_t lane) { return lane < lanes && (mask >> lane & 1) != 0; };
  unsigned ballot = 0;
  for (size_t l = 0; l < lanes; ++l) {
    const WarpOp& op = machine.threads[base + l].op;
    if (!takes_part(l) || op.source != kBallot) continue;
    int vote = 0;
    std::memcpy(&vote, op.value, sizeof(vote));
    ballot |= static_cast<unsigned>(vote != 0) << l;
  }
  // No lane continues before all lanes have their results.
  for (size_t l = 0; l < lanes; ++l) {
    if (!takes_part(l)) continue;
    Thread& thread = machine.threads[base + l];
    const WarpOp& op = thread.op;
    if (op.source == kBallot) std::memcpy(op.result, &ballot, sizeof(ballot));
    if (op.source >= 0) {
      if (takes_part(static_cast<size_t>(op.source))) {
        std::memcpy(op.result, machine.threads[base + op.source].op.value, op.size);
      } else {
        fail("a shuffle reads lane " + std::to_string(op.source) + ", which takes no part");
      }
    }
    const unsigned all = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
    if (op.orders_memory && (mask & all) == all) ++thread.syncs;
    thread.state = State::kReady;
  }
}

// Lets a block continue whose threads are all at one barrier.
bool release_block(size_t rank) {
  Thread* const threads = &machine.threads[rank * machine.per_block];
  for (size_t t = 0; t < machine.per_block; ++t) {
    if (threads[t].state != State::kAtBarrier) return false;
  }
  for (size_t t = 0; t < machine.per_block; ++t) {
    if (threads[t].site != threads[0].site)
      return fail("divergence: threads at different barriers");
    threads[t].state = State::kReady;
  }
  ++machine.barriers[rank];
  return true;
}

// Lets waiting threads continue: lanes whose operation is complete, a block or a cluster whose
// threads are all at one barrier. Returns false, with machine.error, where no thread ever can.
bool release() {
  auto& threads = machine.threads;
  bool released = false;
  const Thread* waits = nullptr;
  size_t at_barrier = 0, done = 0;
  for (size_t t = 0; t < threads.size(); ++t) {
    const State state = threads[t].state;
    if (state == State::kUntil) waits = &threads[t];
    at_barrier += state == State::kAtBarrier || state == State::kAtCluster;
    done += state == State::kDone;
    if (state == State::kAtWarp && warp_complete(t)) {
      complete_warp(t);
      released = true;
    } else if ((state == State::kAtCluster && clusters::passes(t)) ||
               (state == State::kUntil && waits->until.ready(waits->until.what))) {
      threads[t].state = State::kReady;
      released = true;
    }
  }
  for (size_t rank = 0; rank < machine.barriers.size(); ++rank) {
    if (release_block(rank)) released = true;
  }
  if (released || !machine.error.empty()) return machine.error.empty();
  if (waits != nullptr) return fail(waits->until.why(waits->until.what));
  return fail("divergence: " + std::to_string(at_barrier) + " of " +
              std::to_string(threads.size()) + " threads at a barrier, " + std::to_string(done) +
              " gone, the others at a warp operation with lanes missing");
}

bool run_cluster(const std::vector<unsigned>& turns) {
  for (Thread& t : machine.threads) t = Thread();
  for (uint32_t& passed : machine.barriers) passed = 0;
  size_t alive = turns.size();
  while (alive > 0) {
    bool any = false;
    for (const unsigned t : turns) {
      Thread& thread = machine.threads[t];
      if (thread.state != State::kReady) continue;
      any = true;
      if (thread.fiber == nullptr) {
        thread.fiber = machine.fibers.take();
        thread.fiber->start(thread_main);
      }
      set_thread(t);
      thread.fiber->enter();
      if (thread.state == State::kDone) {
        machine.fibers.give_back(thread.fiber);
        thread.fiber = nullptr;
        --alive;
      }
      if (!machine.error.empty()) return false;
    }
    if (!any && !release()) return false;
  }
  std::string left = clusters::fault_at_end();
  if (left.empty()) left = bulk::end_cluster();
  return left.empty() || fail(left);
}

std::vector<unsigned> in_order(unsigned n) {
  std::vector<unsigned> turns(n);
  for (unsigned i = 0; i < n; ++i) turns[i] = i;
  if (machine.order == kReverse) std::reverse(turns.begin(), turns.end());
  if (machine.order == kShuffled) std::shuffle(turns.begin(), turns.end(), std::mt19937(n));
  return turns;
}

}  // namespace

void fault(const std::string& what) {
  fail(what);
  races::now.watching = false;
  me().fiber->leave();
  std::abort();  // the scheduler enters no thread of a launch that has failed
}

cudaError_t run(dim3 grid, dim3 block, size_t shared, const void* kernel, void (*body)(const void*),
                const void* args, unsigned cluster) {
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  machine.error.clear();
  if (threads > 1024 || blocks == 0 || threads == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535 || block.z > 64 || shared > kDynamicLimit || cluster == 0 || cluster > 8 ||
      grid.x % cluster != 0) {
    machine.error = "launch: a grid, cluster, block or shared memory that CUDA does not take";
    return cudaErrorInvalidValue;
  }
  note_launch(kernel);
  device::begin_launch();
  gridDim = grid;
  blockDim = block;
  machine.body = body;
  machine.args = args;
  machine.threads.resize(threads * cluster);
  machine.per_block = threads;
  machine.barriers.resize(cluster);
  races::begin_launch();
  shared_memory::begin_launch(shared, threads, cluster);
  const std::vector<unsigned> turns = in_order(static_cast<unsigned>(threads * cluster));
  for (const unsigned c : in_order(static_cast<unsigned>(blocks / cluster))) {
    races::now.cluster = c;
    races::begin_cluster();
    shared_memory::begin_cluster();
    clusters::begin(cluster, threads);
    bulk::begin_cluster(cluster, threads);
    if (!run_cluster(turns)) {
      machine.fibers.abandon();
      device::launch_failed();
      return cudaErrorLaunchFailure;
    }
  }
  return cudaSuccess;
}

void block_barrier(Site site) {
  if (!dropped(site)) wait(State::kAtBarrier, site);
}

void clusters::wait(Site site) { host_cuda::wait(State::kAtCluster, site); }

void fence(Site site) {
  if (!dropped(site)) note_fence();
}

void wait_until(const Condition& condition, Site site) {
  if (condition.ready(condition.what)) return;
  me().until = condition;
  wait(State::kUntil, site);
}

int lane() { return static_cast<int>(races::now.thread % 32); }

void warp_operation(const WarpOp& op, Site site) {
  if (dropped(site)) return;
  if ((op.mask >> lane() & 1) == 0) fault("a lane at a warp operation whose mask leaves it out");
  me().op = op;
  wait(State::kAtWarp, site);
}

}  // namespace host_cuda

// ------------------------------------------------------------------ for the tests

extern "C" {

EXPORT void host_set_order(int64_t order) {
  host_cuda::machine.order = static_cast<host_cuda::Order>(order);
}

EXPORT const char* host_error() { return host_cuda::machine.error.c_str(); }
}
