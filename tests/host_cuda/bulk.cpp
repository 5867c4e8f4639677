// Barriers of bulk copies, and the copies themselves. Bytes move as late as a GPU may move them:
// when a thread waits for their phase. So a kernel that does not wait computes with other values.
#include "bulk.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "races.h"
#include "shared_memory.h"

namespace host_cuda {
namespace {

constexpr uint64_t kMostBytes = (1 << 20) - 1;  // that a phase counts
constexpr uint32_t kNever = ~uint32_t{0};

struct Load {
  void* to;
  const void* from;
  size_t bytes;
};

// What accesses to the memory of a copy depend on.
struct Record {
  uint32_t rank;  // of the block that copies
  const void* barrier;
  uint64_t phase;
};

struct Barrier {
  unsigned count, pending;
  uint32_t thread, fences;  // who initialized it, and that thread's fences before
  uint64_t expected = 0, issued = 0;
  uint64_t phase = 0;  // phases that are complete
  std::vector<Load> loads;
  std::map<uint32_t, uint64_t> waited;  // thread -> phases that it knows to be complete
  std::vector<uint32_t> known_since;    // phase -> block barriers passed at the first wait
};

std::map<const void*, Barrier> barriers;
std::vector<Record> records;
uint32_t first_record = 1;  // of this cluster; numbers are not used twice
size_t per_block = 0;
std::vector<uint32_t> fences;  // of all threads of the cluster
int64_t loaded = 0;            // bytes, until a test asks

// Those of a thread of the running block.
uint32_t& count_of(uint32_t thread) { return fences[races::now.rank * per_block + thread]; }

uint32_t record(const Record& made) {
  records.push_back(made);
  return first_record + static_cast<uint32_t>(records.size()) - 1;
}

// Completes the phase where all its arrivals and bytes are there.
void settle(Barrier* b) {
  if (b->pending != 0 || b->issued != b->expected) return;
  for (const Load& load : b->loads) std::memcpy(load.to, load.from, load.bytes);
  b->loads.clear();
  b->expected = b->issued = 0;
  b->pending = b->count;
  b->known_since.push_back(kNever);
  ++b->phase;
}

Barrier& find(const void* barrier, Access access) {
  note_access(barrier, 8, access);
  const auto found = barriers.find(barrier);
  if (found == barriers.end()) fault("a barrier that barrier_init() has not initialized");
  settle(&found->second);
  return found->second;
}

struct Wait {
  Barrier* barrier;
  unsigned parity;
};

bool is_complete(const void* what) {
  const Wait& wait = *static_cast<const Wait*>(what);
  settle(wait.barrier);
  return (wait.barrier->phase & 1) != wait.parity;
}

std::string why_incomplete(const void* what) {
  const Barrier& b = *static_cast<const Wait*>(what)->barrier;
  return "barrier_wait() for a phase that never ends: " + std::to_string(b.count - b.pending) +
         " of " + std::to_string(b.count) + " arrivals, " + std::to_string(b.issued) + " of " +
         std::to_string(b.expected) + " bytes";
}

void need_bulk(const void* shared, const void* global, size_t bytes) {
  const auto misaligned = [](uintptr_t n) { return n % 16 != 0; };
  if (misaligned(reinterpret_cast<uintptr_t>(shared)) ||
      misaligned(reinterpret_cast<uintptr_t>(global))) {
    fault("a bulk copy at an address that is no multiple of 16");
  }
  if (bytes == 0 || misaligned(bytes)) fault("a bulk copy of a size that is no multiple of 16");
  if (!shared_memory::holds(shared, bytes)) fault("a bulk copy outside shared memory");
}

}  // namespace

void barrier_init(const void* barrier, unsigned count) {
  if (!shared_memory::holds(barrier, 8) || reinterpret_cast<uintptr_t>(barrier) % 8 != 0) {
    fault("a barrier needs 8 aligned bytes of shared memory");
  }
  if (count == 0) fault("a barrier of no arrivals");
  if (barriers.count(barrier) != 0) fault("a barrier is initialized twice");
  note_access(barrier, 8, Access::kWrite);
  Barrier made = {};
  made.count = made.pending = count;
  made.thread = races::now.thread;
  made.fences = count_of(made.thread);
  barriers[barrier] = made;
}

void barrier_arrive(const void* barrier, unsigned bytes) {
  Barrier& b = find(barrier, Access::kAtomic);
  if (b.pending == 0) fault("more arrivals at a barrier than its phase counts");
  --b.pending;
  b.expected += bytes;
  if (b.expected > kMostBytes) fault("more bytes than a phase of a barrier counts");
}

void barrier_wait(const void* barrier, unsigned parity, Site site) {
  if (dropped(site)) return;
  const Wait wait = {&find(barrier, Access::kAtomic), parity & 1};
  wait_until({is_complete, why_incomplete, &wait}, site);
  const uint64_t known = wait.barrier->phase;
  wait.barrier->waited[races::now.thread] = known;
  if (known > 0 && wait.barrier->known_since[known - 1] == kNever) {
    wait.barrier->known_since[known - 1] = races::now.barrier;
  }
}

void fence_proxy_async(Site site) {
  if (!dropped(site)) ++count_of(races::now.thread);
}

void bulk_load(void* shared, const void* global, size_t bytes, const void* barrier) {
  need_bulk(shared, global, bytes);
  Barrier& b = find(barrier, Access::kAtomic);
  if (count_of(b.thread) == b.fences) {
    fault("a bulk copy on a barrier that was initialized without fence_proxy_async()");
  }
  const uint32_t number = record({races::now.rank, barrier, b.phase});
  note_access(global, bytes, Access::kBulkRead, number);
  note_access(shared, bytes, Access::kBulkWrite, number);
  loaded += static_cast<int64_t>(bytes);
  b.loads.push_back({shared, global, bytes});
  b.issued += bytes;
}

namespace bulk {

bool is_done_for_me(uint32_t copy) {
  if (copy < first_record) return false;  // of another cluster
  const Record& r = records[copy - first_record];
  if (r.rank != races::now.rank) return false;  // no wait of this block counts
  const Barrier& b = barriers.at(r.barrier);
  const auto mine = b.waited.find(races::now.thread);
  if (mine != b.waited.end() && mine->second > r.phase) return true;
  for (uint64_t phase = r.phase; phase < b.phase; ++phase) {
    if (b.known_since[phase] < races::now.barrier) return true;
  }
  return false;
}

uint32_t fences_of(uint32_t thread) { return count_of(thread); }

void begin_cluster(unsigned blocks, size_t threads_per_block) {
  barriers.clear();
  first_record += static_cast<uint32_t>(records.size());
  records.clear();
  per_block = threads_per_block;
  fences.assign(blocks * per_block, 0);
}

std::string end_cluster() {
  for (const auto& [at, b] : barriers) {
    if (!b.loads.empty() && (b.pending != 0 || b.issued != b.expected)) {
      return "a bulk copy that no phase of its barrier counts";
    }
    if (!b.loads.empty()) return "the block ends before its bulk copies: no thread waits for them";
  }
  return "";
}

}  // namespace bulk
}  // namespace host_cuda

// The bytes that bulk copies have loaded since the last call.
extern "C" EXPORT int64_t host_bulk_loaded() { return std::exchange(host_cuda::loaded, 0); }
