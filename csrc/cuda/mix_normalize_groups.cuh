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

#include "mix_normalize_quads.cuh"

namespace fused_mixup {

constexpr int kGroupThreads = 128;
constexpr int kGroupWarps = kGroupThreads / 32;

// Blocks per multiprocessor, which bound the registers per thread. Bytes to halves need the fewest.
template <typename T, typename O, int C>
constexpr int group_blocks() {
  const bool small = sizeof(T) == 1 && sizeof(O) == 2;
  if (C == 1) return 8;
  return C == 3 ? (small ? 6 : 4) : (small ? 4 : 3);
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

// The words of a quad in which the channels of a pixel are adjacent, from those by channel.
template <typename O, int C, int N>
__device__ __forceinline__ void pack_pixels(uint32_t (&words)[N]) {
  uint32_t sorted[N];
#pragma unroll
  for (int n = 0; n < N; ++n) {
    if constexpr (sizeof(O) == 4) {
      sorted[n] = words[n % C * 4 + n / C];
    } else {
      const int a = 2 * n, b = a + 1, pixel_a = a / C, pixel_b = b / C;
      sorted[n] =
          __byte_perm(words[a % C * 2 + pixel_a / 2], words[b % C * 2 + pixel_b / 2],
                      (pixel_a % 2 == 0 ? 0x10 : 0x32) | (pixel_b % 2 == 0 ? 0x5400 : 0x7600));
    }
  }
#pragma unroll
  for (int n = 0; n < N; ++n) words[n] = sorted[n];
}

// Rounds a quad, the k-th of its pass, into the slot of the thread.
template <typename O, typename Shape, int C>
__device__ __forceinline__ void put_quad(unsigned char* slot, bool packed, int k,
                                         const Quad<C>& quad) {
  constexpr int S = static_cast<int>(sizeof(O)), N = C * S;
  uint32_t words[N];
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const float* v = quad.at[n / S] + n % S * (4 / S);
    if constexpr (S == 4) {
      words[n] = __float_as_uint(v[0]);
    } else {
      words[n] = rounded_pair(v[0], v[1], O());
    }
  }
  // Quads lie side by side; if they are not packed, in the run of each channel.
  if (C > 1 && packed) {
    pack_pixels<O, C>(words);
    unsigned char* const to = slot + k * 4 * N;
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      *reinterpret_cast<uint2*>(to + 4 * n) = make_uint2(words[n], words[n + 1]);
    }
  } else {
    unsigned char* const to = slot + k * 4 * S;
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      *reinterpret_cast<uint2*>(to + n / S * Shape::kRun + n % S * 4) =
          make_uint2(words[n], words[n + 1]);
    }
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

// Writes what the threads of a warp left in their slots, adjacent threads adjacent vectors. The
// first slots tell where.
template <typename O, typename Shape, int C, bool kPacked>
__device__ __forceinline__ void write_slots(const NormalizeParams& p, const unsigned char* first,
                                            const unsigned char* slots, O* row, int pass) {
  constexpr int kLanes = 16 / static_cast<int>(sizeof(O));
  constexpr int N = Shape::kStores;
  // Vectors of a thread that lie side by side: all of them, or those of a channel.
  constexpr int kSide = kPacked ? N : Shape::kRun / 16;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint4 bits[N];
  int64_t to[N];
  // All reads of shared memory come before the first store, which would be waited for.
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const int n = k % kSide * 32 + lane, owner = n / kSide, part = n % kSide, c = k / kSide;
    const unsigned char* const from = slots + owner * Shape::kSlot + c * Shape::kRun + part * 16;
    const uint2 low = *reinterpret_cast<const uint2*>(from);
    const uint2 high = *reinterpret_cast<const uint2*>(from + 8);
    bits[k] = make_uint4(low.x, low.y, high.x, high.y);
    to[k] = *reinterpret_cast<const int64_t*>(first + owner * Shape::kSlot + Shape::kRun * C);
    if (to[k] >= 0) to[k] += c * p.dst_stride.channel + (pass * kSide + part) * kLanes;
  }
#pragma unroll
  for (int k = 0; k < N; ++k) {
    if (to[k] >= 0) store16_once(row + to[k], bits[k]);
  }
}

// ---------------------------------------------------------------- kernel

template <typename T, typename O, int C>
__global__ void __launch_bounds__(kGroupThreads, group_blocks<T, O, C>())
    normalize_groups_kernel(const __grid_constant__ NormalizeParams p) {
  using Shape = GroupShape<T, O, C>;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const uint32_t number = blockIdx.x * kGroupWarps + warp;
  if (number >= p.rows * p.chunks) return;  // the whole warp
  // Where partners are read once more, warps are numbered with the batch fastest: all samples of a
  // chunk are in flight together, and a partner's pixels are in L2.
  const bool pairs = p.pairing == kFlip;
  const uint32_t before = p.inner.div(number), after = number - before * p.inner.divisor;
  const int32_t i = static_cast<int32_t>(pairs ? before : after);
  const int32_t j = static_cast<int32_t>(partner_of(p.pairing, p.partner, i, p.batch));
  const uint32_t group = (pairs ? after : before) * 32 + lane;
  const bool active = group < p.groups;  // others stay too, as the warp writes together
  const uint32_t g = active ? group : 0;
  const int32_t y = static_cast<int32_t>(p.row_groups.div(g));
  const int32_t column = static_cast<int32_t>(g - y * p.row_groups.divisor);
  const int32_t x = column * Shape::kPixels;

  // 1. Load the group of both samples, all vectors before the first is used.
  const bool flip_own = is_flipped(p, i), flip_other = is_flipped(p, j);
  const int32_t mirrored = p.width - Shape::kPixels - x;
  const T* line = static_cast<const T*>(p.src) + y * p.src_stride.y;
  const bool alone = i == j;
  uint4 raw_own[Shape::kLoads], raw_other[Shape::kLoads] = {};
  load_group<Shape, C>(line + i * p.src_stride.batch + (flip_own ? mirrored : x) * p.src_stride.x,
                       p.src_packed, p.src_stride.channel, raw_own);
  if (!alone) {
    load_group<Shape, C>(
        line + j * p.src_stride.batch + (flip_other ? mirrored : x) * p.src_stride.x, p.src_packed,
        p.src_stride.channel, raw_other);
  }
  const RowMix mine(p, i, y, x), theirs(p, j, y, x);
  Group<T, Shape, C> own(raw_own, p.src_packed, flip_own);
  Group<T, Shape, C> other(raw_other, p.src_packed, flip_other);

  // 2. Mix, into the slots of the thread, one for each sample that it makes.
  const int made = pairs && !alone ? 2 : 1;
  unsigned char* const warp_slots =
      static_cast<unsigned char*>(dynamic_shared()) + warp * (pairs ? 64 : 32) * Shape::kSlot;
  unsigned char* const slot = warp_slots + lane * Shape::kSlot;
  *reinterpret_cast<int64_t*>(slot + Shape::kRun * C) =
      active ? y * p.dst_stride.y + x * p.dst_stride.x : -1;
  // Boxes to erase are looked up after the loop, which has no registers to keep this in.
  int2* const place = static_cast<int2*>(dynamic_shared()) +
                      kGroupThreads * (pairs ? 2 : 1) * (Shape::kSlot / 8) + threadIdx.x;
  if (p.erased > 0) *place = make_int2(x, y);
  // A sample that is its own partner is taken apart once. Its loop is another one, as a choice
  // inside a loop would move every value of a partner.
  const auto mix_pass = [&](int pass, auto itself) {
#pragma unroll 1
    for (int k = 0; k < Shape::kPassQuads; ++k) {
      const int quad = pass * Shape::kPassQuads + k;
      const Quad<C> a = take_quad<T>(p, own);
      if constexpr (decltype(itself)::value) {
        put_quad<O, Shape>(slot, p.dst_packed, k, mix_quad<T>(p, mine, quad, a, a));
      } else {
        const Quad<C> b = take_quad<T>(p, other);
        put_quad<O, Shape>(slot, p.dst_packed, k, mix_quad<T>(p, mine, quad, a, b));
        if (made == 2) {
          put_quad<O, Shape>(slot + 32 * Shape::kSlot, p.dst_packed, k,
                             mix_quad<T>(p, theirs, quad, b, a));
        }
      }
    }
  };
#pragma unroll 1
  for (int pass = 0; pass < Shape::kPasses; ++pass) {
    if (alone) {
      mix_pass(pass, std::true_type());
    } else {
      mix_pass(pass, std::false_type());
    }
    // 3. Erase there, and write.
    if (p.erased > 0) {
#pragma unroll 1
      for (int r = 0; r < made; ++r) {
        erase_in_slot<O, Shape, C>(p, r == 0 ? i : j, place->y,
                                   place->x + pass * 4 * Shape::kPassQuads, 4 * Shape::kPassQuads,
                                   slot + r * 32 * Shape::kSlot);
      }
    }
    __syncwarp();  // other threads of the warp write what this one has made
#pragma unroll 1
    for (int r = 0; r < made; ++r) {
      O* row = static_cast<O*>(p.dst) + (r == 0 ? i : j) * p.dst_stride.batch;
      const unsigned char* slots = warp_slots + r * 32 * Shape::kSlot;
      if (C > 1 && p.dst_packed) {
        write_slots<O, Shape, C, true>(p, warp_slots, slots, row, pass);
      } else {
        write_slots<O, Shape, C, false>(p, warp_slots, slots, row, pass);
      }
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
  if (sizeof(T) == 1 && !ByteConstants::find(p, C)) return false;
  p->row_groups = FastDiv(p->width / Shape::kPixels);
  p->groups = static_cast<uint32_t>(groups);
  p->rows = p->pairing == kFlip ? (p->batch + 1) / 2 : p->batch;
  p->chunks = (groups + 31) / 32;
  p->inner = FastDiv(p->pairing == kFlip ? p->chunks : p->rows);
  return p->batch < max_count() && p->rows * p->chunks < max_count();
}

template <typename T, typename O, int C>
cudaError_t launch_groups(const NormalizeParams& p, cudaStream_t stream) {
  const int64_t blocks = (p.rows * p.chunks + kGroupWarps - 1) / kGroupWarps;
  const size_t slots = (p.pairing == kFlip ? 2 : 1) * GroupShape<T, O, C>::kSlot;
  return launch(normalize_groups_kernel<T, O, C>, blocks, dim3(kGroupThreads),
                kGroupThreads * (slots + sizeof(int2)), stream, p);
}

}  // namespace fused_mixup
