// In place of PyTorch's parallel_for where ThreadSanitizer watches. PyTorch's goes through OpenMP,
// which is not instrumented: its threads' beginning and end are invisible, and every result that
// the caller reads would be reported as a race. Those of std::thread are seen.
//
// It splits wherever there are two elements to share, whatever the grain and the number of cores.
// The sanitizer compares clocks, not times, so that a race is found also where no two threads
// happened to meet.
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace {
constexpr int64_t kThreads = 4;
constexpr int64_t kPieces = 4 * kThreads;  // each thread has several, far apart
int64_t calls_split = 0;
}  // namespace

extern "C" {

AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t, ParallelFunc func,
                                  void* ctx) {
  const int64_t piece = std::max<int64_t>(1, (end - begin + kPieces - 1) / kPieces);
  const auto work = [=](int64_t t) {
    for (int64_t i = begin + t * piece; i < end; i += kThreads * piece) {
      func(i, std::min(i + piece, end), ctx);
    }
  };
  if (end - begin < 2) {
    work(0);
    return 0;
  }
  ++calls_split;
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < kThreads; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();
  return 0;
}

// How many calls were split, so that a run can tell that it went through here.
__attribute__((visibility("default"))) int64_t fused_mixup_calls_split() { return calls_split; }
}
