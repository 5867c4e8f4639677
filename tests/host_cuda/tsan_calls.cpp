// What -fsanitize=thread has the kernels call before every access to memory, for the race detector
// (races.cpp).
#include "machine.h"

#define ACCESS(size)                                                                               \
  void __tsan_read##size(void* at) { host_cuda::note_access(at, size, host_cuda::Access::kRead); } \
  void __tsan_write##size(void* at) {                                                              \
    host_cuda::note_access(at, size, host_cuda::Access::kWrite);                                   \
  }                                                                                                \
  void __tsan_unaligned_read##size(void* at) {                                                     \
    host_cuda::note_access(at, size, host_cuda::Access::kRead);                                    \
  }                                                                                                \
  void __tsan_unaligned_write##size(void* at) {                                                    \
    host_cuda::note_access(at, size, host_cuda::Access::kWrite);                                   \
  }

extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* at, size_t size) {
  host_cuda::note_access(at, size, host_cuda::Access::kRead);
}
void __tsan_write_range(void* at, size_t size) {
  host_cuda::note_access(at, size, host_cuda::Access::kWrite);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// Only a magic static would call these (a guard variable); kernels have none.
}
