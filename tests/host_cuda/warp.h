// Warp shuffles and votes, and atomics.
#pragma once

#include "machine.h"

namespace host_cuda {

// The lane that a shuffle reads, by the rules of PTX's shfl: one that lies outside the segment of
// `width` lanes leaves a lane its own value.
enum class Shuffle { kUp, kDown, kXor, kIndex };
inline int shuffle_source(Shuffle how, int by, int width) {
  const int me = lane(), first = me & ~(width - 1), last = first + width - 1;
  switch (how) {
    case Shuffle::kUp:
      return me - by >= first ? me - by : me;
    case Shuffle::kDown:
      return me + by <= last ? me + by : me;
    case Shuffle::kXor:
      return (me ^ by) <= last ? me ^ by : me;
    default:
      return first + (by & (width - 1));
  }
}

template <typename T>
T shuffle(unsigned mask, T value, Shuffle how, int by, int width, Site site) {
  T out = value;
  WarpOp op{mask, &value, &out, sizeof(T)};
  op.source = shuffle_source(how, by, width);
  warp_operation(op, site);
  return out;
}

}  // namespace host_cuda

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32,
                  host_cuda::Site site = host_cuda::Site::here()) {
  return host_cuda::shuffle(mask, value, host_cuda::Shuffle::kXor, by, width, site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 host_cuda::Site site = host_cuda::Site::here()) {
  return host_cuda::shuffle(mask, value, host_cuda::Shuffle::kUp, static_cast<int>(by), width,
                            site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32,
                   host_cuda::Site site = host_cuda::Site::here()) {
  return host_cuda::shuffle(mask, value, host_cuda::Shuffle::kDown, static_cast<int>(by), width,
                            site);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32,
              host_cuda::Site site = host_cuda::Site::here()) {
  return host_cuda::shuffle(mask, value, host_cuda::Shuffle::kIndex, from, width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              host_cuda::Site site = host_cuda::Site::here()) {
  unsigned bits = 0;
  host_cuda::WarpOp op{mask, &predicate, &bits, sizeof(int)};
  op.source = host_cuda::kBallot;
  host_cuda::warp_operation(op, site);
  return bits;
}
inline int __any_sync(unsigned mask, int predicate,
                      host_cuda::Site site = host_cuda::Site::here()) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      host_cuda::Site site = host_cuda::Site::here()) {
  return __ballot_sync(mask, predicate, site) == mask;
}

// The only operation of a warp that orders accesses to memory.
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       host_cuda::Site site = host_cuda::Site::here()) {
  host_cuda::WarpOp op{mask};
  op.orders_memory = true;
  host_cuda::warp_operation(op, site);
}

// ------------------------------------------------------------------ atomics

namespace host_cuda {

// The compiler does not report these as a read and a write; one thread runs at a time.
template <typename T, typename F>
__attribute__((no_sanitize_thread)) T atomic(T* p, F next) {
  note_access(p, sizeof(T), Access::kAtomic);
  const T old = *p;
  *p = next(old);
  return old;
}

template <typename T>
struct Same {
  using type = T;
};

}  // namespace host_cuda

#define HOST_CUDA_ATOMIC(name, expression)                               \
  template <typename T>                                                  \
  T name(T* p, typename host_cuda::Same<T>::type v) {                    \
    return host_cuda::atomic(p, [=](T old) -> T { return expression; }); \
  }                                                                      \
  static_assert(true)

HOST_CUDA_ATOMIC(atomicAdd, old + v);
HOST_CUDA_ATOMIC(atomicSub, old - v);
HOST_CUDA_ATOMIC(atomicMin, v < old ? v : old);
HOST_CUDA_ATOMIC(atomicMax, v > old ? v : old);
HOST_CUDA_ATOMIC(atomicAnd, old& v);
HOST_CUDA_ATOMIC(atomicOr, old | v);
HOST_CUDA_ATOMIC(atomicXor, old ^ v);
HOST_CUDA_ATOMIC(atomicInc, old >= v ? T(0) : T(old + 1));
HOST_CUDA_ATOMIC(atomicExch, (static_cast<void>(old), v));
#undef HOST_CUDA_ATOMIC

template <typename T>
T atomicCAS(T* p, typename host_cuda::Same<T>::type expected,
            typename host_cuda::Same<T>::type desired) {
  return host_cuda::atomic(p, [=](T old) { return old == expected ? desired : old; });
}
