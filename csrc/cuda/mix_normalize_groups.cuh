// mix_normalize of images with 1, 3 or 4 channels, whose lines are whole vectors of 16 bytes.
//
// Fused: flip, widening, normalising, two products, sum, box, erased boxes, rounding, layout. For
// bytes to half types 3 bytes move per element, the floor: where two samples are each other's
// partner (flip) one thread makes both results, from one read of both samples.
//
// A thread owns a group of adjacent pixels, with all channels, of both samples. Channels may be
// adjacent (NHWC) or apart (NCHW) on either side: they are taken apart in registers, and results
// leave through shared memory, so that the 16-byte stores of a warp are adjacent too. A warp needs
// no other warp, and there is no barrier of a block.
#pragma once

#include "mix_normalize_rows.cuh"

namespace fused_mixup {

constexpr int kGroupThreads = 128;
constexpr int kGroupWarps = kGroupThreads / 32;

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
    if constexpr (sizeof(T) == 1) return static_cast<float>(words[0] >> 8 * pixel & 255);
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

// The result of a row for the quad at x: `own` and `other` are normalised unless p.first.
template <typename T, int C>
__device__ __forceinline__ Quad<C> mix_quad(const NormalizeParams& p, const RowMix& row, int32_t x,
                                            const Quad<C>& own, const Quad<C>& other) {
  Quad<C> out = own;
  if (!row.keep) {
#pragma unroll
    for (int n = 0; n < 4 * C; ++n) {
      out.at[n / 4][n % 4] =
          add(term(row.w0, own.at[n / 4][n % 4]), term(row.w1, other.at[n / 4][n % 4]));
    }
    if (sizeof(T) == 1 && p.first) {
#pragma unroll
      for (int n = 0; n < 4 * C; ++n) out.at[n / 4][n % 4] = byte_of(out.at[n / 4][n % 4]);
    }
  }
  const LineRange line = {row.line.lo - x, row.line.hi - x};
  if (line.lo < 4 && line.hi > 0) {
#pragma unroll
    for (int n = 0; n < 4 * C; ++n) {
      if (line.has(n % 4)) out.at[n / 4][n % 4] = other.at[n / 4][n % 4];
    }
  }
  if (p.first) normalize_quad<T>(p, out);
  return out;
}

// ---------------------------------------------------------------- store

__device__ __forceinline__ uint32_t rounded_pair(float a, float b, __half) {
  const __half2 pair = __floats2half2_rn(a, b);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}
__device__ __forceinline__ uint32_t rounded_pair(float a, float b, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

// Rounds a quad, the k-th of its pass, into the slot of the thread.
template <typename O, typename Shape, int C>
__device__ __forceinline__ void put_quad(unsigned char* slot, bool packed, int k,
                                         const Quad<C>& quad) {
  constexpr int S = static_cast<int>(sizeof(O));
  constexpr int kEach = 8 / S;  // elements of a store
  // Bytes from quad to quad; and from channel to channel, which are runs if they are not packed.
  unsigned char* const to = slot + k * (packed ? 4 * S * C : 4 * S);
#pragma unroll
  for (int n = 0; n < 4 * C / kEach; ++n) {
    float v[kEach];
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int at = n * kEach + e;
      v[e] = C > 1 && packed ? quad.at[at % C][at / C] : quad.at[at / 4][at % 4];
    }
    uint2 bits;
    if constexpr (S == 4) {
      bits = make_uint2(__float_as_uint(v[0]), __float_as_uint(v[1]));
    } else {
      bits = make_uint2(rounded_pair(v[0], v[1], O()), rounded_pair(v[2], v[3], O()));
    }
    constexpr int kPerQuad = 4 / kEach;
    const int there = packed ? 8 * n : n / kPerQuad * Shape::kRun + n % kPerQuad * 8;
    *reinterpret_cast<uint2*>(to + there) = bits;
  }
}

// Fills what the erased boxes of row i cover of the pixels [x, x + count) in the slot of the
// thread.
template <typename O, typename Shape, int C>
__device__ __forceinline__ void erase_in_slot(const NormalizeParams& p, int64_t i, int32_t y,
                                              int32_t x, int count, unsigned char* slot) {
  O* const out = reinterpret_cast<O*>(slot);
  constexpr int kPlane = Shape::kRun / static_cast<int>(sizeof(O));
  for (int64_t k = 0; k < p.erased; ++k) {
    const LineRange range = erased_range(p, i, k, y);
    const int32_t lo = max(range.lo, x), hi = min(range.hi, x + count);
    for (int32_t at = lo; at < hi; ++at) {
      Words words = {};
      if (p.erase_value == nullptr) words = noise_at(p, i, y, at, 0);
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const float v = p.erase_value != nullptr ? value_at(p, i, k, c) : noise_of_word(words.w[c]);
        out[p.dst_packed ? (at - x) * C + c : c * kPlane + at - x] = Number<O>::down(v);
      }
    }
  }
}

// Writes what the threads of a warp left in their slots, adjacent threads adjacent vectors.
template <typename O, typename Shape, int C>
__device__ __forceinline__ void write_slots(const NormalizeParams& p, const unsigned char* where,
                                            const unsigned char* slots, O* row, int pass) {
  constexpr int N = Shape::kStores, kPerRun = Shape::kRun / 16;
  constexpr int kLanes = 16 / static_cast<int>(sizeof(O));
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint4 bits[N];
  int64_t to[N];
  // All reads of shared memory come before the first store, which would be waited for.
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const int n = k * 32 + lane;
    const int in_run = k % kPerRun * 32 + lane;  // if channels are apart, k / kPerRun is theirs
    const int owner = p.dst_packed ? n / N : in_run / kPerRun;
    const int part = p.dst_packed ? n % N : in_run % kPerRun;
    const int from = p.dst_packed ? part * 16 : k / kPerRun * Shape::kRun + part * 16;
    const unsigned char* slot = slots + owner * Shape::kSlot + from;
    const uint2 low = *reinterpret_cast<const uint2*>(slot);
    const uint2 high = *reinterpret_cast<const uint2*>(slot + 8);
    bits[k] = make_uint4(low.x, low.y, high.x, high.y);
    to[k] = *reinterpret_cast<const int64_t*>(where + owner * Shape::kSlot + Shape::kRun * C);
    if (to[k] < 0) continue;
    to[k] += p.dst_packed ? (pass * N + part) * kLanes
                          : k / kPerRun * p.dst_stride.channel + (pass * kPerRun + part) * kLanes;
  }
#pragma unroll
  for (int k = 0; k < N; ++k) {
    if (to[k] >= 0) store16(row + to[k], bits[k]);
  }
}

// ---------------------------------------------------------------- kernel

template <typename T, typename O, int C>
__global__ void __launch_bounds__(kGroupThreads)
    normalize_groups_kernel(const __grid_constant__ NormalizeParams p) {
  using Shape = GroupShape<T, O, C>;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t number = static_cast<int64_t>(blockIdx.x) * kGroupWarps + warp;
  if (number >= p.rows * p.chunks) return;  // the whole warp
  // Where partners are read once more, warps are numbered with the batch fastest: all samples of a
  // chunk are in flight together, and a partner's pixels are in L2.
  const bool pairs = p.pairing == kFlip;
  const int64_t before = quotient(number, pairs ? p.chunks : p.rows);
  const int64_t after = number - before * (pairs ? p.chunks : p.rows);
  const int64_t i = pairs ? before : after, chunk = pairs ? after : before;
  const int64_t j = partner_of(p.pairing, p.partner, i, p.batch);
  const int64_t group = chunk * 32 + lane;
  const bool active = group < p.groups;  // others stay too, as the warp writes together
  const uint32_t g = active ? static_cast<uint32_t>(group) : 0;
  const int32_t y = static_cast<int32_t>(p.row_groups.div(g));
  const int32_t column = static_cast<int32_t>(g - y * p.row_groups.divisor);
  const int32_t x = column * Shape::kPixels;

  // 1. Load the group of both samples, all vectors before the first is used.
  const bool flip_own = is_flipped(p, i), flip_other = is_flipped(p, j);
  const int32_t mirrored = p.width - Shape::kPixels - x;
  const T* line = static_cast<const T*>(p.src) + y * p.src_stride.y;
  uint4 raw_own[Shape::kLoads], raw_other[Shape::kLoads];
  load_group<Shape, C>(line + i * p.src_stride.batch + (flip_own ? mirrored : x) * p.src_stride.x,
                       p.src_packed, p.src_stride.channel, raw_own);
  load_group<Shape, C>(line + j * p.src_stride.batch + (flip_other ? mirrored : x) * p.src_stride.x,
                       p.src_packed, p.src_stride.channel, raw_other);
  const RowMix mine(p, i, y), theirs(p, j, y);
  Group<T, Shape, C> own(raw_own, p.src_packed, flip_own);
  Group<T, Shape, C> other(raw_other, p.src_packed, flip_other);

  // 2. Mix, into the slots of the thread, one for each sample that it makes.
  const int made = pairs && i != j ? 2 : 1;
  unsigned char* const warp_slots =
      static_cast<unsigned char*>(dynamic_shared()) + warp * (pairs ? 64 : 32) * Shape::kSlot;
  unsigned char* const slot = warp_slots + lane * Shape::kSlot;
  *reinterpret_cast<int64_t*>(slot + Shape::kRun * C) =
      active ? y * p.dst_stride.y + x * p.dst_stride.x : -1;
#pragma unroll 1
  for (int pass = 0; pass < Shape::kPasses; ++pass) {
    const int32_t pass_x = x + pass * Shape::kPassQuads * 4;
#pragma unroll 1
    for (int k = 0; k < Shape::kPassQuads; ++k) {
      Quad<C> a, b;
#pragma unroll
      for (int n = 0; n < 4 * C; ++n) {
        a.at[n / 4][n % 4] = own.value(n / 4, n % 4);
        b.at[n / 4][n % 4] = other.value(n / 4, n % 4);
      }
      if (!p.first) {
        normalize_quad<T>(p, a);
        normalize_quad<T>(p, b);
      }
      put_quad<O, Shape>(slot, p.dst_packed, k, mix_quad<T>(p, mine, pass_x + 4 * k, a, b));
      if (made == 2) {
        put_quad<O, Shape>(slot + 32 * Shape::kSlot, p.dst_packed, k,
                           mix_quad<T>(p, theirs, pass_x + 4 * k, b, a));
      }
      own.drop_quad();
      other.drop_quad();
    }
    // 3. Erase there, and write.
    if (p.erased > 0) {
#pragma unroll 1
      for (int r = 0; r < made; ++r) {
        erase_in_slot<O, Shape, C>(p, r == 0 ? i : j, y, pass_x, 4 * Shape::kPassQuads,
                                   slot + r * 32 * Shape::kSlot);
      }
    }
    __syncwarp();  // other threads of the warp write what this one has made
#pragma unroll 1
    for (int r = 0; r < made; ++r) {
      O* row = static_cast<O*>(p.dst) + (r == 0 ? i : j) * p.dst_stride.batch;
      write_slots<O, Shape, C>(p, warp_slots, warp_slots + r * 32 * Shape::kSlot, row, pass);
    }
    if constexpr (Shape::kPasses > 1) {
      __syncwarp();  // the next pass overwrites slots that others have read
    }
  }
}

// Fills in p what describes the groups, and tells whether there are any: whether lines divide into
// them, and 16-byte accesses are aligned.
template <typename T, typename O, int C>
bool make_groups(NormalizeParams* p) {
  using Shape = GroupShape<T, O, C>;
  const auto fits = [&](const void* data, const ImageStrides& s, int64_t size, bool* packed) {
    *packed = C > 1 && s.channel == 1 && s.x == C;
    const auto whole = [&](int64_t stride, int64_t count) {
      return count <= 1 || stride * size % 16 == 0;
    };
    return (*packed || s.x == 1) && aligned16(data) && whole(s.batch, p->batch) &&
           whole(s.y, p->height) && (*packed || whole(s.channel, C));
  };
  const int64_t groups = static_cast<int64_t>(p->height) * (p->width / Shape::kPixels);
  if (p->channels != C || p->width % Shape::kPixels != 0 || groups >= max_count()) return false;
  if (!fits(p->src, p->src_stride, sizeof(T), &p->src_packed)) return false;
  if (!fits(p->dst, p->dst_stride, sizeof(O), &p->dst_packed)) return false;
  for (int c = 0; c < C; ++c) {
    if (sizeof(T) == 1 && !suits_bytes(p->mean[c], p->std[c])) return false;
    p->inverse[c] = 1.0f / p->std[c];
  }
  p->row_groups = FastDiv(p->width / Shape::kPixels);
  p->groups = static_cast<uint32_t>(groups);
  p->rows = p->pairing == kFlip ? (p->batch + 1) / 2 : p->batch;
  p->chunks = (groups + 31) / 32;
  return true;
}

template <typename T, typename O, int C>
cudaError_t launch_groups(const NormalizeParams& p, cudaStream_t stream) {
  const int64_t blocks = (p.rows * p.chunks + kGroupWarps - 1) / kGroupWarps;
  const size_t slots = kGroupThreads * (p.pairing == kFlip ? 2 : 1);
  return launch(normalize_groups_kernel<T, O, C>, blocks, dim3(kGroupThreads),
                slots * GroupShape<T, O, C>::kSlot, stream, p);
}

}  // namespace fused_mixup
