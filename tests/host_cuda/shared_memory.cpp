// The shared memory of the blocks that run, and the asynchronous copies of 16 bytes into it.
#include "shared_memory.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "races.h"

namespace host_cuda {
namespace {

constexpr size_t kStaticLimit = 48 * 1024;  // more would need an opt-in
constexpr int kPoison = 0xff;               // NaN in every float type

// Memory of exactly the size asked for, so that the address sanitizer sees an access beyond it. For
// the race detector it has guards on both sides instead.
class Memory {
 public:
  Memory(size_t size, const char* name) : size_(size) {
    void* bytes = nullptr;
    if (posix_memalign(&bytes, 128, size + 2 * races::kGuard) != 0) std::abort();
    bytes_ = static_cast<unsigned char*>(bytes);
    races::shared_memory(data(), size, name);
    poison();
  }
  ~Memory() { std::free(bytes_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  unsigned char* data() const { return bytes_ + races::kGuard; }
  size_t size() const { return size_; }
  void poison() { std::memset(data(), kPoison, size_); }

 private:
  unsigned char* bytes_;
  size_t size_;
};

using OfBlocks = std::vector<std::unique_ptr<Memory>>;  // of each block of the cluster

struct Static {
  const void* type;
  Site site;
  OfBlocks memory;
};

struct Copy {
  void* to;
  const void* from;
};

unsigned blocks = 1;
size_t threads_per_block = 0;
OfBlocks dynamic_memory;
std::vector<Static> static_memory;
std::vector<std::vector<Copy>> copies;  // by thread of the cluster: the copies in flight

OfBlocks of_blocks(size_t size, const char* name) {
  OfBlocks out;
  for (unsigned b = 0; b < blocks; ++b) out.push_back(std::make_unique<Memory>(size, name));
  return out;
}

std::vector<Copy>& my_copies() {
  return copies[races::now.rank * threads_per_block + races::now.thread];
}

}  // namespace

void need_aligned(const void* at, size_t size) {
  if (reinterpret_cast<uintptr_t>(at) % size == 0) return;
  fault("misaligned access of " + std::to_string(size) + " bytes");
}

namespace shared_memory {

void begin_launch(size_t dynamic_size, size_t threads, unsigned blocks_now) {
  static_memory.clear();
  blocks = blocks_now;
  threads_per_block = threads;
  dynamic_memory = of_blocks(dynamic_size, "dynamic");
  copies.resize(blocks * threads);
}

void begin_cluster() {
  for (const auto& memory : dynamic_memory) memory->poison();
  for (const Static& s : static_memory) {
    for (const auto& memory : s.memory) memory->poison();
  }
  for (std::vector<Copy>& of_thread : copies) of_thread.clear();
}

const void* of_block(const void* own, size_t rank) {
  const unsigned char* at = static_cast<const unsigned char*>(own);
  const auto found = [&](const OfBlocks& memory) -> const void* {
    const Memory& mine = *memory[races::now.rank];
    const bool inside = at >= mine.data() && at < mine.data() + mine.size();
    return inside ? memory[rank]->data() + (at - mine.data()) : nullptr;
  };
  if (const void* there = found(dynamic_memory)) return there;
  for (const Static& s : static_memory) {
    if (const void* there = found(s.memory)) return there;
  }
  fault("a read of another block's memory at an address that is not this block's");
}

bool holds(const void* at, size_t size) {
  const unsigned char* p = static_cast<const unsigned char*>(at);
  const auto in = [&](const OfBlocks& memory) {
    const Memory& mine = *memory[races::now.rank];
    return p >= mine.data() && p + size <= mine.data() + mine.size();
  };
  bool found = in(dynamic_memory);
  for (const Static& s : static_memory) found = found || in(s.memory);
  return found;
}

}  // namespace shared_memory

void* dynamic_shared() { return dynamic_memory[races::now.rank]->data(); }

void* static_shared(const void* type, size_t size, size_t alignment, Site site) {
  size_t total = size;
  for (const Static& s : static_memory) {
    if (s.type == type) {
      // On the device both calls name the same memory.
      if (s.site != site) fault("block_shared() of one type in two places of a kernel");
      return s.memory[races::now.rank]->data();
    }
    total += s.memory[0]->size();
  }
  if (total > kStaticLimit || alignment > 128) fault("too much static shared memory");
  static_memory.push_back({type, site, of_blocks(size, "static")});
  return static_memory.back().memory[races::now.rank]->data();
}

void store16(void* global, const void* value) {
  need_aligned(global, 16);
  note_access(global, 16, Access::kWrite);
  std::memcpy(global, value, 16);
}

// The bytes move only when a thread waits for them; until then poison stands where they will be, so
// that a thread that does not wait reads it, and so does one that still needs what stood there.
void copy16_async(void* shared, const void* global) {
  need_aligned(global, 16);
  need_aligned(shared, 16);
  note_access(global, 16, Access::kRead);
  note_access(shared, 16, Access::kCopyStarts);
  std::memset(shared, kPoison, 16);
  my_copies().push_back({shared, global});
}

void copies_done(Site site) {
  if (dropped(site)) return;
  std::vector<Copy>& mine = my_copies();
  for (const Copy& copy : mine) {
    note_access(copy.from, 16, Access::kRead);
    note_access(copy.to, 16, Access::kCopyDone);
    std::memcpy(copy.to, copy.from, 16);
  }
  mine.clear();
}

#ifndef FUSED_MIXUP_RACES
void note_access(const void*, size_t, Access, uint32_t) {}
void note_fence() {}
#endif

}  // namespace host_cuda
