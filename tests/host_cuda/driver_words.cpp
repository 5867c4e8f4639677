// Runs each word of the stand-in for CUDA in a kernel; tests/test_harness.py computes the same.
#include "../../csrc/cuda/launch.cuh"

namespace fused_mixup {
namespace {

// out: int32 [5, threads]
__global__ void shuffles(int* out, int by, int width) {
  const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  const unsigned all = 0xffffffffu;
  out[t] = __shfl_up_sync(all, t, by, width);
  out[n + t] = __shfl_down_sync(all, t, by, width);
  out[2 * n + t] = __shfl_xor_sync(all, t, by, width);
  out[3 * n + t] = __shfl_sync(all, t, by, width);
  const double2 pair = __shfl_xor_sync(all, make_double2(t, -t), 1);  // 16 bytes
  out[4 * n + t] = static_cast<int>(pair.x - pair.y);
}

// out: int32 [4, threads]; odd and even lanes vote separately, and one half twice as often.
__global__ void votes(int* out) {
  const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  const unsigned mask = t % 2 == 0 ? 0x55555555u : 0xaaaaaaaau;
  const int rounds = t % 2 == 0 ? 2 : 1;
  for (int r = 0; r < rounds; ++r) {
    out[t] = static_cast<int>(__ballot_sync(mask, t % 3 == 0));
    out[n + t] = __any_sync(mask, t % 32 == 5);
    out[2 * n + t] = __all_sync(mask, t % 32 != 5);
    out[3 * n + t] = __shfl_xor_sync(mask, t, 2);
  }
}

// out: [9], one cell per operation; v: 1, 2, 3, … over all threads of the grid
template <typename T>
__global__ void atomics(T* out) {
  const T v = static_cast<T>(blockIdx.x * blockDim.x + threadIdx.x + 1);
  atomicAdd(out, v);
  atomicSub(out + 1, v);
  atomicMin(out + 2, v);
  atomicMax(out + 3, v);
  atomicAnd(out + 4, ~(T(1) << (v % 31)));
  atomicOr(out + 5, T(1) << (v % 31));
  atomicXor(out + 6, v);
  atomicExch(out + 7, T(7));
  for (T old = 0, seen = -1; seen != old;) {  // a sum by compare and swap
    seen = old;
    old = atomicCAS(out + 8, seen, seen + v);
  }
}

// out: int32 [blocks * threads], 1 + the linear number of each thread of the grid
__global__ void indices(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned at = block * blockDim.x * blockDim.y * blockDim.z + thread;
  atomicAdd(out + at, static_cast<int>(1 + at));
}

// in: float32 [n]; half and bfloat16: [n] each; back: float32 [2, n], the pairs swapped
__global__ void halves(const float* in, __half* half, __nv_bfloat16* bfloat, float* back, int n) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (2 * t >= n) return;
  const float2 v = __ldg(reinterpret_cast<const float2*>(in) + t);
  half[2 * t] = __float2half_rn(v.x);
  half[2 * t + 1] = __float2half(v.y);
  bfloat[2 * t] = __float2bfloat16_rn(v.x);
  bfloat[2 * t + 1] = __float2bfloat16(v.y);
  const float2 a = __half22float2(__floats2half2_rn(v.y, v.x));
  const float2 b = __bfloat1622float2(__floats2bfloat162_rn(v.y, v.x));
  reinterpret_cast<float2*>(back)[t] = a;
  reinterpret_cast<float2*>(back + n)[t] = b;
}

// bits: uint16 [n]; out: float32 [2, n]
__global__ void widened(const uint16_t* bits, float* out, int n) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (t >= n) return;
  out[t] = __half2float(__half{bits[t]});
  out[n + t] = __bfloat162float(__nv_bfloat16{bits[t]});
}

// a, b: uint32 [n]; out: uint32 [9, n]
__global__ void integers(const unsigned* a, const unsigned* b, unsigned* out, int n) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (t >= n) return;
  out[t] = __umulhi(a[t], b[t]);
  out[n + t] = static_cast<unsigned>(__popc(a[t]));
  out[2 * n + t] = static_cast<unsigned>(__ffs(static_cast<int>(a[t])));
  out[3 * n + t] = static_cast<unsigned>(__clz(static_cast<int>(a[t])));
  out[4 * n + t] = __float_as_uint(__uint_as_float(a[t] & 0x7f7fffffu));
  out[5 * n + t] = static_cast<unsigned>(__float_as_int(__int_as_float(3)));
  const uint4 four = make_uint4(a[t], b[t], 1, 2);
  out[6 * n + t] = four.x ^ four.y ^ four.z ^ four.w;
  out[7 * n + t] = min(a[t], b[t]) ^ max(a[t], b[t]);
  out[8 * n + t] = __byte_perm(a[t], b[t], 0x7240);
}

// a, b, c: float32 [n]; out: float32 [5, n]
__global__ void floats(const float* a, const float* b, const float* c, float* out, int n) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (t >= n) return;
  out[t] = __fadd_rn(a[t], __fmul_rn(b[t], c[t]));
  out[n + t] = __fsub_rn(a[t], b[t]);
  out[2 * n + t] = __fdiv_rn(a[t], b[t]);
  out[3 * n + t] = __fmaf_rn(a[t], b[t], c[t]);
  out[4 * n + t] = static_cast<float>(__dadd_rn(a[t], __dmul_rn(b[t], c[t])));
}

dim3 blocks_for(int64_t n) { return dim3(static_cast<unsigned>((n + 127) / 128)); }

}  // namespace
}  // namespace fused_mixup

using namespace fused_mixup;

extern "C" {
EXPORT int host_shuffles(int* out, int64_t threads, int64_t by, int64_t width) {
  return launch_grid(shuffles, dim3(1), dim3(static_cast<unsigned>(threads)), 0, nullptr, out,
                     static_cast<int>(by), static_cast<int>(width));
}
EXPORT int host_votes(int* out) { return launch_grid(votes, dim3(1), dim3(64), 0, nullptr, out); }
EXPORT int host_atomics(int64_t wide, void* out) {
  return wide != 0
             ? launch_grid(atomics<unsigned long long>, dim3(3), dim3(40), 0, nullptr,
                           static_cast<unsigned long long*>(out))
             : launch_grid(atomics<int>, dim3(3), dim3(40), 0, nullptr, static_cast<int*>(out));
}
EXPORT int host_indices(int* out) {
  return launch_grid(indices, dim3(2, 3, 2), dim3(4, 3, 2), 0, nullptr, out);
}
EXPORT int host_halves(const float* in, void* half, void* bfloat, float* back, int64_t n) {
  return launch_grid(halves, blocks_for(n), dim3(128), 0, nullptr, in, static_cast<__half*>(half),
                     static_cast<__nv_bfloat16*>(bfloat), back, static_cast<int>(n));
}
EXPORT int host_widened(const uint16_t* bits, float* out, int64_t n) {
  return launch_grid(widened, blocks_for(n), dim3(128), 0, nullptr, bits, out, static_cast<int>(n));
}
EXPORT int host_integers(const unsigned* a, const unsigned* b, unsigned* out, int64_t n) {
  return launch_grid(integers, blocks_for(n), dim3(128), 0, nullptr, a, b, out,
                     static_cast<int>(n));
}
EXPORT int host_floats(const float* a, const float* b, const float* c, float* out, int64_t n) {
  return launch_grid(floats, blocks_for(n), dim3(128), 0, nullptr, a, b, c, out,
                     static_cast<int>(n));
}
}
