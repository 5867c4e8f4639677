// The race detector: compiled into the library of variant "races" alone.
//
// In that variant the kernels are compiled with -fsanitize=thread and linked without it: the
// compiler puts a call before every access to memory (tsan_calls.cpp).
// Every byte records which threads have written, read and updated it since the launch began (since
// the block began, in shared memory). Two accesses race if at least one of them writes, not both
// are atomic, they come from different threads, and nothing orders them:
//
//   threads of different blocks   a __threadfence() of the one before its atomic on a word, and one
//                                 of the other after a later atomic on it; each may stand for its
//                                 block by a __syncthreads() in between. In a cluster, an arrival
//                                 after the first access and a wait for it before the second
//   threads of one block          a __syncthreads() between them, or the cluster's barrier
//   lanes of one warp             that, or a __syncwarp() of the whole warp; shuffles and votes
//                                 order no memory, as in CUDA
//
// Its findings do not depend on the order in which threads happen to run. Stacks, which hold locals
// and kernel parameters, are not watched.
#include "races.h"

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bulk.h"
#include "machine.h"

namespace host_cuda {
namespace {

using races::now;

// What a fence of a thread made visible with the atomic after it.
struct Release {
  uint32_t block, thread, barrier, time;
};
// The releases that a thread of this block has seen by an atomic; they count from its fence on.
struct Acquired {
  uint32_t block, thread, barrier;
  bool fenced;
  std::vector<Release> releases;
};
uint32_t fences = 0;  // so far: orders the accesses of a thread and its fences
std::unordered_map<uintptr_t, std::vector<Release>> released;  // by the word of the atomic
std::map<std::pair<uint32_t, uint32_t>, Release> last_fence;   // by block and thread
std::vector<Acquired> acquired;                                // by this block

// Accesses of one kind to one byte, as far as later accesses may race with them: those before the
// last barrier are ordered before everything that their block does after it.
struct Who {
  enum Spread : uint8_t { kNobody, kThread, kLanes, kWarps, kCluster, kBlocks };

  uint32_t block, barrier, sync, cluster, arrived, time;
  uint16_t thread;
  Spread spread = kNobody;

  // Whether these accesses of another block are ordered before what this thread does.
  bool was_released() const {
    for (const Acquired& a : acquired) {
      if (!a.fenced || a.block != now.block || (a.thread != now.thread && a.barrier == now.barrier))
        continue;
      for (const Release& r : a.releases) {
        if (r.block != block) continue;
        if (barrier < r.barrier) return true;
        if (spread == kThread && thread == r.thread && time < r.time) return true;
      }
    }
    return false;
  }

  bool races_with_now() const {
    if (spread == kNobody) return false;
    if (spread == kBlocks) return true;
    if (cluster != now.cluster) return !was_released();
    if (now.waited > arrived) return false;
    if (spread == kCluster) return true;
    if (block != now.block) return !was_released();
    if (barrier != now.barrier) return false;
    if (spread == kWarps || thread / 32 != now.thread / 32) return true;
    if (sync != now.sync) return false;
    return spread == kLanes || thread != now.thread;
  }

  void add_now() {
    const bool other = spread != kNobody && cluster != now.cluster;
    const bool open = spread != kNobody && now.waited <= arrived;  // no cluster barrier between
    if (open && now.arrived > arrived) arrived = now.arrived;
    if (spread == kBlocks || other) {
      spread = kBlocks;
    } else if (open && (spread == kCluster || block != now.block)) {
      spread = kCluster;
    } else if (open && barrier == now.barrier &&
               (spread == kWarps || thread / 32 != now.thread / 32)) {
      spread = kWarps;
    } else if (open && barrier == now.barrier && sync == now.sync &&
               (spread == kLanes || thread != now.thread)) {
      spread = kLanes;
    } else {
      *this = {now.block,
               now.barrier,
               now.sync,
               now.cluster,
               now.arrived,
               fences,
               static_cast<uint16_t>(now.thread),
               kThread};
    }
  }
};

struct Cell {
  uint32_t serial = 0;    // the number of the launch or block that made these accesses
  bool arriving = false;  // an asynchronous copy to it is in flight
  uint32_t bulk_writer = 0, bulk_reader = 0;  // the last bulk copies to and from it
  uint32_t fences = 0;                        // the writer's when it wrote
  Who writer, reader, updater;
};

struct Region {
  const unsigned char* begin;
  size_t size;
  const char* name;
};

constexpr uintptr_t kPage = 1024;
constexpr size_t kMostPages = 4096;  // 200 MiB of cells
std::unordered_map<uintptr_t, std::unique_ptr<Cell[]>> pages;
uintptr_t last_page = ~uintptr_t{0};
Cell* last_cells = nullptr;
std::vector<Region> shared;
uint32_t serial = 0, launch_serial = 0, cluster_serial = 0;

Cell& cell_of(const unsigned char* at) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(at), page = address / kPage;
  if (page != last_page) {
    std::unique_ptr<Cell[]>& cells = pages[page];
    if (cells == nullptr) cells.reset(new Cell[kPage]);
    last_page = page;
    last_cells = cells.get();
  }
  return last_cells[address % kPage];
}

std::string place(const unsigned char* at, const Region* region) {
  char text[96];
  if (region != nullptr) {
    std::snprintf(text, sizeof(text), "%s shared memory at byte %td of %zu", region->name,
                  at - region->begin, region->size);
  } else {
    std::snprintf(text, sizeof(text), "global memory at %p", static_cast<const void*>(at));
  }
  return text;
}

std::string me() {
  return "thread " + std::to_string(now.thread) + " of block " + std::to_string(now.block);
}

[[noreturn]] void report(const Who& who, const char* did, const char* does, const unsigned char* at,
                         const Region* region) {
  std::string others = "thread " + std::to_string(who.thread);
  if (who.spread != Who::kThread) others += " and others";
  fault("race (" + std::string(does) + " after " + did + ") in " + place(at, region) + ": " +
        others + " of block " + std::to_string(who.block) +
        (who.spread >= Who::kCluster ? "…" : "") + ", " + me());
}

// Bulk copies: an access has to wait for the copy to this byte, a write for the copy from it too.
void check_bulk(const Cell& cell, const unsigned char* at, Access access, const Region* region) {
  const bool reads = access == Access::kRead || access == Access::kBulkRead;
  if (cell.bulk_writer != 0 && !bulk::is_done_for_me(cell.bulk_writer)) {
    fault("race: " + me() + (reads ? " reads " : " writes ") + place(at, region) +
          " before it knows that a bulk copy to it has ended");
  }
  if (!reads && cell.bulk_reader != 0 && !bulk::is_done_for_me(cell.bulk_reader)) {
    fault("race: " + me() + " writes " + place(at, region) +
          " before it knows that a bulk copy has read it");
  }
}

void touch(const unsigned char* at, Access access, const Region* region, uint32_t bulk_copy) {
  Cell& cell = cell_of(at);
  const uint32_t current = region != nullptr ? cluster_serial : launch_serial;
  if (cell.serial != current) {
    cell = Cell();
    cell.serial = current;
  }
  check_bulk(cell, at, access, region);
  const bool only_reads = access == Access::kRead || access == Access::kBulkRead;
  const bool reads = only_reads || access == Access::kAtomic;
  if (region != nullptr && reads) {
    if (cell.arriving) fault(me() + " reads " + place(at, region) + " before copies_done()");
    if (cell.writer.spread == Who::kNobody && cell.updater.spread == Who::kNobody &&
        cell.bulk_writer == 0) {
      fault(me() + " reads " + place(at, region) + ", which no thread of the block has written");
    }
  }
  const char* does = only_reads ? "read" : access == Access::kAtomic ? "atomic" : "write";
  if (cell.writer.races_with_now()) report(cell.writer, "write", does, at, region);
  if (access != Access::kAtomic && cell.updater.races_with_now()) {
    report(cell.updater, "atomic", does, at, region);
  }
  if (!only_reads && cell.reader.races_with_now()) {
    report(cell.reader, "read", does, at, region);
  }
  const bool written = cell.writer.spread != Who::kNobody;
  if (access == Access::kBulkRead && written) {
    fault("a bulk copy reads " + place(at, region) + ", which thread " +
          std::to_string(cell.writer.thread) + " of its kernel wrote");
  }
  if (access == Access::kBulkWrite && written &&
      bulk::fences_of(cell.writer.thread) == cell.fences) {
    fault("a bulk copy writes " + place(at, region) + ", which thread " +
          std::to_string(cell.writer.thread) + " wrote without a fence_proxy_async() after it");
  }
  if (access == Access::kRead) {
    cell.reader.add_now();
  } else if (access == Access::kAtomic) {
    cell.updater.add_now();
  } else if (access == Access::kBulkRead) {
    cell.bulk_reader = bulk_copy;
  } else if (access == Access::kBulkWrite) {
    cell = Cell();
    cell.serial = current;
    cell.bulk_writer = bulk_copy;
  } else {
    cell.writer.add_now();
    cell.fences = bulk::fences_of(now.thread);
    cell.bulk_writer = 0;
    cell.arriving = access == Access::kCopyStarts;
  }
}

// An atomic of this thread on a word: it sees what others released by it, and releases what this
// thread's last fence made visible.
void pass_on(const unsigned char* word) {
  std::vector<Release>& here = released[reinterpret_cast<uintptr_t>(word)];
  if (!here.empty()) acquired.push_back({now.block, now.thread, now.barrier, false, here});
  const auto fence = last_fence.find({now.block, now.thread});
  if (fence != last_fence.end()) here.push_back(fence->second);
}

}  // namespace

void note_fence() {
  last_fence[{now.block, now.thread}] = {now.block, now.thread, now.barrier, ++fences};
  for (Acquired& a : acquired) {
    if (a.block == now.block && a.thread == now.thread && !a.fenced) {
      a.fenced = true;
      a.barrier = now.barrier;
    }
  }
}

void note_access(const void* address, size_t size, Access access, uint32_t bulk_copy) {
  const unsigned char* at = static_cast<const unsigned char*>(address);
  if (!now.watching || (at >= now.stack && at < now.stack_end)) return;
  const Region* region = nullptr;
  for (const Region& r : shared) {
    if (at + size + races::kGuard <= r.begin || at >= r.begin + r.size + races::kGuard) continue;
    if (at < r.begin || at + size > r.begin + r.size) {
      fault(me() + " is out of bounds: " + std::to_string(size) + " bytes of " + place(at, &r));
    }
    region = &r;
  }
  if (region == nullptr && !may_touch(at)) {
    fault(me() + " touches global memory before it has awaited the kernel in front");
  }
  for (size_t k = 0; k < size; ++k) touch(at + k, access, region, bulk_copy);
  if (access == Access::kAtomic && region == nullptr) pass_on(at);
}

namespace races {

void begin_launch() {
  launch_serial = ++serial;
  released.clear();
  shared.clear();
  if (pages.size() > kMostPages) {
    pages.clear();
    last_page = ~uintptr_t{0};
  }
}

void begin_cluster() {
  cluster_serial = ++serial;
  last_fence.clear();
  acquired.clear();
}

void shared_memory(const unsigned char* begin, size_t size, const char* name) {
  shared.push_back({begin, size, name});
}

}  // namespace races

}  // namespace host_cuda
