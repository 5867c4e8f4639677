// Writing results past the caches.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace fused_mixup {

// Writes runs of a result. What a store writes through the caches is read from memory first. A
// result of many bytes has left the caches by the time someone reads it, so it is made in parts
// that stay in the first-level cache, and these go straight to memory: a third less moves.
class Writer {
 public:
  explicit Writer(int64_t bytes) : streams_(bytes >= kLeast && kernels().stream != nullptr) {}
  ~Writer() {
#if defined(__x86_64__)
    if (streams_) __builtin_ia32_sfence();  // before another thread reads
#endif
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  bool streams() const { return streams_; }

  // dst[0, n): make(to, at, count) writes the elements [at, at + count) of the run to `to`.
  template <typename T, typename F>
  void write(T* dst, int64_t n, const F& make) const {
    T* const one[] = {dst};
    write_runs(one, n, [&](T* const* to, int64_t at, int64_t count) { make(to[0], at, count); });
  }

  // Likewise dst[k][0, n) of several runs, of each a part in turn.
  template <int kRuns, typename T, typename F>
  void write_runs(T* const (&dst)[kRuns], int64_t n, const F& make) const {
    if (!streams_) return make(dst, int64_t(0), n);
    constexpr int64_t kPart = kPartBytes / sizeof(T), kLine = 64;
    alignas(64) T part[kRuns][kPart];
    T* parts[kRuns];
    for (int k = 0; k < kRuns; ++k) parts[k] = part[k];
    // Parts end where lines do: those of the first run, as of all where rows are whole lines.
    const int64_t offset = int64_t(reinterpret_cast<uintptr_t>(dst[0]) % kLine / sizeof(T));
    for (int64_t at = 0, most = kPart - offset; at < n; most = kPart) {
      const int64_t count = std::min(most, n - at);
      make(parts, at, count);
      for (int k = 0; k < kRuns; ++k) {
        kernels().stream(dst[k] + at, parts[k], count * int64_t(sizeof(T)));
      }
      at += count;
    }
  }

  template <typename T>
  void copy(T* dst, const T* src, int64_t n) const {
    if (streams_) return kernels().stream(dst, src, n * int64_t(sizeof(T)));
    std::memcpy(dst, src, n * sizeof(T));
  }

 private:
  static constexpr int64_t kPartBytes = 2048;
#ifdef FUSED_MIXUP_STREAM_BYTES
  static constexpr int64_t kLeast = FUSED_MIXUP_STREAM_BYTES;
#else
  // Measured with a third-level cache of 32 MiB: 8 MiB take as long either way, 16 MiB less.
  static constexpr int64_t kLeast = 1 << 24;
#endif
  const bool streams_;
};

}  // namespace fused_mixup
