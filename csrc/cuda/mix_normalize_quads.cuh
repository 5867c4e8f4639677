// Groups of adjacent pixels, with all channels, as mix_normalize loads and mixes them.
#pragma once

#include "mix_normalize_rows.cuh"

namespace fused_mixup {

// Four pixels at a time are mixed: a quad. A loop over quads, not unrolled, keeps the code short:
// a kernel of some microseconds waits for its instructions too.
template <typename T, typename O, int C>
struct GroupShape {
  static constexpr int kPixels = sizeof(T) == 1 ? 16 : 8;
  static constexpr int kQuads = kPixels / 4;
  static constexpr int kLanes = 16 / static_cast<int>(sizeof(T));  // elements of a 16-byte load
  static constexpr int kLoads = kPixels * C / kLanes;
  static constexpr int kWords = static_cast<int>(sizeof(T));  // of a quad's channel
  // Bytes of each channel that a thread writes in one pass. Floats of 16 pixels take two.
  static constexpr int kWhole = kPixels * static_cast<int>(sizeof(O));
  static constexpr int kRun = kWhole < 32 ? kWhole : 32;
  static constexpr int kPasses = kWhole / kRun;
  static constexpr int kPassQuads = kQuads / kPasses;
  static constexpr int kStores = kRun * C / 16;
  // A thread's results in shared memory, then where they go. Eight bytes beyond a multiple of 16:
  // accesses of eight bytes by adjacent threads meet no bank twice.
  static constexpr int kSlot = kRun * C + 8;
};

// ---------------------------------------------------------------- load

// The vectors of a group that begins at `at`.
template <typename Shape, int C, typename T>
__device__ __forceinline__ void load_group(const T* at, bool packed, int64_t plane,
                                           uint4 (&raw)[Shape::kLoads]) {
  constexpr int kPerPlane = Shape::kLoads / C;
#pragma unroll
  for (int n = 0; n < Shape::kLoads; ++n) {
    const int64_t there =
        packed ? n * Shape::kLanes : n / kPerPlane * plane + n % kPerPlane * Shape::kLanes;
    raw[n] = load<Shape::kLanes>(at + there).bits;
  }
}

// The k-th word of channel c of four pixels whose channels are adjacent.
template <typename T, int C>
__device__ __forceinline__ uint32_t channel_word(const uint32_t* quad, int c, int k) {
  if constexpr (sizeof(T) == 4) return quad[k * C + c];
  if constexpr (sizeof(T) == 2) {
    const int a = 2 * k * C + c, b = a + C;
    return __byte_perm(quad[a / 2], quad[b / 2],
                       (a % 2 == 0 ? 0x10 : 0x32) | (b % 2 == 0 ? 0x5400 : 0x7600));
  }
  const int a = c, b = c + C, d = c + 2 * C, e = c + 3 * C;
  const uint32_t low = __byte_perm(quad[a / 4], quad[b / 4], a % 4 | (4 + b % 4) << 4);
  const uint32_t high = __byte_perm(quad[d / 4], quad[e / 4], d % 4 | (4 + e % 4) << 4);
  return __byte_perm(low, high, 0x5410);
}

// The elements of a word, in reverse.
template <typename T>
__device__ __forceinline__ uint32_t reversed(uint32_t word) {
  if constexpr (sizeof(T) == 4) return word;
  return __byte_perm(word, 0, sizeof(T) == 2 ? 0x1032 : 0x0123);
}

// The words of a group by quad, then by channel, in the order of the image as it is mixed.
template <typename T, typename Shape, int C>
struct Group {
  uint32_t quad[Shape::kQuads][C * Shape::kWords];

  __device__ __forceinline__ Group(const uint4 (&raw)[Shape::kLoads], bool packed, bool flipped) {
    constexpr int Q = Shape::kQuads, S = Shape::kWords;
    uint32_t words[Q * C * S];
    memcpy(words, raw, sizeof(words));
    if (C > 1 && packed) {
#pragma unroll
      for (int n = 0; n < Q * C * S; ++n) {
        quad[n / (C * S)][n % (C * S)] =
            channel_word<T, C>(words + n / (C * S) * (C * S), n % (C * S) / S, n % S);
      }
    } else {
#pragma unroll
      for (int n = 0; n < Q * C * S; ++n) quad[n % (Q * S) / S][n / (Q * S) * S + n % S] = words[n];
    }
    if (flipped) {
#pragma unroll
      for (int n = 0; n < Q * C * S; ++n) words[n] = quad[n / (C * S)][n % (C * S)];
#pragma unroll
      for (int n = 0; n < Q * C * S; ++n) {
        const int q = Q - 1 - n / (C * S), c = n % (C * S) / S, k = S - 1 - n % S;
        quad[n / (C * S)][n % (C * S)] = reversed<T>(words[(q * C + c) * S + k]);
      }
    }
  }

  // Element `pixel` of channel c of the first quad.
  __device__ __forceinline__ float value(int c, int pixel) const {
    const uint32_t* words = quad[0] + c * Shape::kWords;
    if constexpr (sizeof(T) == 1) {
      // The bits of 2^23 + byte; a conversion of each byte takes more instructions.
      return add(__uint_as_float(__byte_perm(words[0], 0x4B000000, 0x7540 | pixel)), -0x1p23f);
    }
    if constexpr (sizeof(T) == 4) return __uint_as_float(words[pixel]);
    const uint16_t bits = static_cast<uint16_t>(words[pixel / 2] >> 16 * (pixel % 2));
    T half;
    memcpy(&half, &bits, sizeof(half));
    return Number<T>::up(half);
  }

  // Moves the others up, as registers have no index.
  __device__ __forceinline__ void drop_quad() {
#pragma unroll
    for (int q = 0; q + 1 < Shape::kQuads; ++q) {
#pragma unroll
      for (int n = 0; n < C * Shape::kWords; ++n) quad[q][n] = quad[q + 1][n];
    }
  }
};

// ---------------------------------------------------------------- mix

template <int C>
struct Quad {
  float at[C][4];
};

template <typename T, int C>
__device__ __forceinline__ void normalize_quad(const NormalizeParams& p, Quad<C>& quad) {
#pragma unroll
  for (int n = 0; n < 4 * C; ++n) {
    float& v = quad.at[n / 4][n % 4];
    v = sizeof(T) == 1 ? normalized_byte(p, v, n / 4) : normalized(p, v, n / 4);
  }
}

// The values of the next quad of a group, normalised unless p.first.
template <typename T, typename Shape, int C>
__device__ __forceinline__ Quad<C> take_quad(const NormalizeParams& p, Group<T, Shape, C>& group) {
  Quad<C> out;
#pragma unroll
  for (int n = 0; n < 4 * C; ++n) out.at[n / 4][n % 4] = group.value(n / 4, n % 4);
  group.drop_quad();
  if (!p.first) normalize_quad<T>(p, out);
  return out;
}

// The result of a row for the k-th quad of a group: `own` and `other` are normalised unless
// p.first.
template <typename T, int C>
__device__ __forceinline__ Quad<C> mix_quad(const NormalizeParams& p, const RowMix& row, int k,
                                            const Quad<C>& own, const Quad<C>& other) {
  Quad<C> out = own;
  if (!row.keep) {
#pragma unroll
    for (int n = 0; n < 4 * C; ++n) {
      const float a = own.at[n / 4][n % 4], b = other.at[n / 4][n % 4];
      // No byte is infinite or NaN, normalised or not: 0 times one of them needs no other way.
      out.at[n / 4][n % 4] = sizeof(T) == 1 ? add(__fmul_rn(row.w0, a), __fmul_rn(row.w1, b))
                                            : add(term(row.w0, a), term(row.w1, b));
    }
    if (sizeof(T) == 1 && p.first) {
#pragma unroll
      for (int n = 0; n < 4 * C; ++n) out.at[n / 4][n % 4] = byte_of(out.at[n / 4][n % 4]);
    }
  }
  const LineRange line = {row.line.lo - 4 * k, row.line.hi - 4 * k};
  if (line.lo < 4 && line.hi > 0) {
#pragma unroll
    for (int n = 0; n < 4 * C; ++n) {
      if (line.has(n % 4)) out.at[n / 4][n % 4] = other.at[n / 4][n % 4];
    }
  }
  if (p.first) normalize_quad<T>(p, out);
  return out;
}

}  // namespace fused_mixup
