// The shared memory of the block that runs, and the asynchronous copies of 16 bytes into it.
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
  void poison() { std::memset(data(), 0xff, size_); }  // NaN in every float type

 private:
  unsigned char* bytes_;
  size_t size_;
};

struct Static {
  const void* type;
  Site site;
  std::unique_ptr<Memory> memory;
};

struct Copy {
  void* to;
  const void* from;
};

std::unique_ptr<Memory> dynamic_memory;
std::vector<Static> static_memory;
std::vector<std::vector<Copy>> copies;  // by thread: the copies in flight

}  // namespace

void need_aligned(const void* at, size_t size) {
  if (reinterpret_cast<uintptr_t>(at) % size == 0) return;
  fault("misaligned access of " + std::to_string(size) + " bytes");
}

namespace shared_memory {

void begin_launch(size_t dynamic_size, size_t threads) {
  static_memory.clear();
  dynamic_memory = std::make_unique<Memory>(dynamic_size, "dynamic");
  copies.resize(threads);
}

void begin_block() {
  dynamic_memory->poison();
  for (const Static& s : static_memory) s.memory->poison();
  for (std::vector<Copy>& of_thread : copies) of_thread.clear();
}

bool holds(const void* at, size_t size) {
  const unsigned char* p = static_cast<const unsigned char*>(at);
  const auto in = [&](const Memory& m) { return p >= m.data() && p + size <= m.data() + m.size(); };
  bool found = in(*dynamic_memory);
  for (const Static& s : static_memory) found = found || in(*s.memory);
  return found;
}

}  // namespace shared_memory

void* dynamic_shared() { return dynamic_memory->data(); }

void* static_shared(const void* type, size_t size, size_t alignment, Site site) {
  size_t total = size;
  for (const Static& s : static_memory) {
    if (s.type == type) {
      // On the device both calls name the same memory.
      if (s.site != site) fault("block_shared() of one type in two places of a kernel");
      return s.memory->data();
    }
    total += s.memory->size();
  }
  if (total > kStaticLimit || alignment > 128) fault("too much static shared memory");
  static_memory.push_back({type, site, std::make_unique<Memory>(size, "static")});
  return static_memory.back().memory->data();
}

void store16(void* global, const void* value) {
  need_aligned(global, 16);
  note_access(global, 16, Access::kWrite);
  std::memcpy(global, value, 16);
}

// The bytes move only when a thread waits for them, so that a thread that does not wait reads
// poison.
void copy16_async(void* shared, const void* global) {
  need_aligned(global, 16);
  need_aligned(shared, 16);
  note_access(global, 16, Access::kRead);
  note_access(shared, 16, Access::kCopyStarts);
  copies[races::now.thread].push_back({shared, global});
}

void copies_done(Site site) {
  if (dropped(site)) return;
  std::vector<Copy>& mine = copies[races::now.thread];
  for (const Copy& copy : mine) {
    note_access(copy.from, 16, Access::kRead);
    note_access(copy.to, 16, Access::kCopyDone);
    std::memcpy(copy.to, copy.from, 16);
  }
  mine.clear();
}

#ifndef FUSED_MIXUP_RACES
void note_access(const void*, size_t, Access, uint32_t) {}
#endif

}  // namespace host_cuda
