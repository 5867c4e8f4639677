// parallel_for that also works in a child of fork().
//
// fork() copies one thread. GNU's OpenMP does not notice: in the child it waits for ever for the
// other threads of its pool, as PyTorch's own ops do. Whether there was a pool cannot be asked, so
// the thread that came out of a fork works alone. Threads that the child starts have their own.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

#ifdef __linux__
#include <pthread.h>
#endif

namespace fused_mixup {

inline thread_local bool came_out_of_fork = false;

// Called once, when the module is imported.
inline void watch_forks() {
#ifdef __linux__
  pthread_atfork(nullptr, nullptr, [] { came_out_of_fork = true; });
#endif
}

// Calls f(first, last) for parts of [begin, end), of at least `grain` where there are several.
template <class F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  if (!came_out_of_fork) return torch::stable::parallel_for(begin, end, grain, f);
  if (begin < end) f(begin, end);
}

}  // namespace fused_mixup
