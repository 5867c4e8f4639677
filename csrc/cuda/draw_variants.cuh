// draw_variants: draws the variant, λ, box and mask of each unit.
//
// Fused: random words, the choice of the variant, λ, boxes, the tables of masks, FMix's image and
// its threshold, the weights of labels and values. docs/drawing.md specifies what is drawn;
// csrc/common/variant_draws.h and fmix.h compute it. Read: the state and partners. Written: the
// plan and the tables of its masks, 4·rank·(H + W) bytes per unit.
//
// Two launches: plan_kernel (plan.cuh) draws the partners, which depend on all samples, and steps
// the state. Here a block draws a unit, from the state before that step.
#pragma once

#include "../common/variant_draws.h"
#include "plan.cuh"

namespace fused_mixup {

constexpr int kVariantThreads = 512;
constexpr int kChunkOfFrequencies = 128;  // whose coefficients lie in shared memory
constexpr int kNearWaves = 1024;          // rows whose cosines and sines do

struct VariantLaunch {
  int64_t* state;          // device [4]
  const double* settings;  // device [1 + 10·M], or null for draw
  VariantArgs draw;
  int batch, per, pairing;
  const int64_t* labels;  // device [B], for kCrossClass
  const int32_t* given;   // device [B], for kTensor
  const int32_t* sample;  // device [B], the samples' indices in a larger batch, or null
  int32_t* partner;       // device [B]
  float* weight;          // device [B, 2]
  double* blend;          // device [B, 2], 16-byte aligned
  int32_t* box;           // device [B, 4]
  int32_t* code;          // device [B]
  float* threshold;       // device [U]
  float* rows;            // device [U, rank, H]
  float* columns;         // device [U, rank, W]
  int32_t* resize_box;    // device [B, 4], or null
  cudaStream_t stream;

  __device__ __forceinline__ int index_of(int i) const { return sample != nullptr ? sample[i] : i; }
};

struct VariantShared {
  int64_t state[kStateWords];
  VariantArgs draw;
  VariantRow row;
  unsigned long long sums[2];  // of the tables of a bell; the first counts pixels for FMix
  FmixCoefficient z[kChunkOfFrequencies];
  Turn waves[kNearWaves];
};

__device__ __forceinline__ void clear(VariantRow& row) {
  int32_t* words = reinterpret_cast<int32_t*>(&row);
  for (int k = 0; k < static_cast<int>(sizeof(row) / sizeof(*words)); ++k) words[k] = 0;
}

// Fills rows [3, H] and columns [3, W] of FMix.
__device__ __forceinline__ void fill_fmix(VariantShared& shared, const Stream& stream,
                                          uint32_t unit, float* rows, float* columns) {
  const int tid = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int height = static_cast<int>(shared.draw.size[0]);
  const int width = static_cast<int>(shared.draw.size[1]);
  const int count = static_cast<int>(fmix_frequencies(height, width));
  const bool near = height <= kNearWaves;
  if (near) {
    for (int y = tid; y < height; y += threads) shared.waves[y] = turn(y, height);
  }
  for (int first = 0; first <= height / 2; first += threads) {
    const int y = first + tid;
    FmixSums sums;
    int64_t j = 0;  // k·y mod height
    for (int start = 0; start < count; start += kChunkOfFrequencies) {
      const int size = min(kChunkOfFrequencies, count - start);
      __syncthreads();  // no thread reads the coefficients before
      for (int k = tid; k < size; k += threads) {
        const FmixCoefficient z =
            fmix_coefficient(stream, unit, start + k, height, width, shared.row.decay);
        shared.z[k] = z;
      }
      __syncthreads();  // coefficients and waves are written
      if (y > height / 2) continue;
      for (int k = 0; k < size; ++k) {
        sums.add(shared.z[k], near ? shared.waves[j] : turn(j, height));
        j += y;
        if (j >= height) j -= height;
      }
    }
    if (y <= height / 2) sums.put(y, height, rows);
  }
  for (int x = tid; x < width; x += threads) {
    const Turn wave = turn(x, width);
    columns[x] = 1.0f;
    columns[width + x] = static_cast<float>(wave.cosine);
    columns[2 * width + x] = static_cast<float>(wave.sine);
  }
}

// A number that is ordered as v is.
__device__ __forceinline__ uint32_t order_of(float v) {
  const uint32_t bits = __float_as_uint(__fadd_rn(v, 0.0f));  // -0 becomes 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The value of rank `kept` among the pixels, the largest first: the largest one that more than
// `kept` pixels reach, found bit by bit. It counts, so that the order of threads is of no account.
__device__ __forceinline__ float fmix_threshold(VariantShared& shared, const float* rows,
                                                const float* columns) {
  const int tid = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / 32;
  const int height = static_cast<int>(shared.draw.size[0]);
  const int width = static_cast<int>(shared.draw.size[1]);
  const int64_t kept = shared.row.kept;
  if (kept >= shared.draw.pixels()) return -INFINITY;
  uint32_t best = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t least = best | 1u << bit;
    __syncthreads();  // the tables are written, and all threads have read the count before
    if (tid == 0) shared.sums[0] = 0;
    __syncthreads();  // it is 0
    unsigned count = 0;
    for (int y = tid / 32; y < height; y += warps) {
      const float a = rows[y], b = rows[height + y], c = rows[2 * height + y];
      for (int x = tid % 32; x < width; x += 32) {
        const float wave = __fadd_rn(a, __fmul_rn(b, columns[width + x]));
        const float value = __fadd_rn(wave, __fmul_rn(c, columns[2 * width + x]));
        count += order_of(value) >= least;
      }
    }
    atomicAdd(&shared.sums[0], static_cast<unsigned long long>(count));
    __syncthreads();  // all threads have counted
    if (static_cast<int64_t>(shared.sums[0]) > kept) best = least;
  }
  return __uint_as_float(best & 0x80000000u ? best & 0x7FFFFFFFu : ~best);
}

// Fills the tables of the other masks, and weighs bells by their means.
__device__ __forceinline__ void fill_tables(VariantShared& shared, float* rows, float* columns) {
  const int tid = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const VariantRow& row = shared.row;
  const bool bell = is_bell(row.variant);
  for (int axis = 0; axis < 2; ++axis) {
    const int n = static_cast<int>(shared.draw.size[axis]);
    float* table = axis == 0 ? rows : columns;
    unsigned long long sum = 0;
    for (int k = 0; k < row.products; ++k) {
      for (int at = tid; at < n; at += threads) {
        const float value = table_value(row, axis, k, at);
        table[k * n + at] = value;
        if (bell) sum += static_cast<unsigned long long>(quanta(value));
      }
    }
    if (bell) atomicAdd(&shared.sums[axis], sum);
  }
  if (!bell) return;
  __syncthreads();  // all sums are complete
  if (tid == 0) {
    weigh_bell(shared.row, static_cast<int64_t>(shared.sums[0]),
               static_cast<int64_t>(shared.sums[1]), shared.draw.pixels());
  }
  __syncthreads();  // the weights are written
}

__device__ __forceinline__ void put_variant(const VariantLaunch& a, int i, const VariantRow& row,
                                            bool known) {
  const bool mixes = a.partner[i] != a.index_of(i);
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const float weight = mixes ? label_weight(row.weight[k]) : k == 0 ? 1.0f : 0.0f;
    const double blend = mixes ? row.blend[k] : k == 0 ? 1.0 : 0.0;
    a.weight[2 * i + k] = known ? weight : NAN;
    a.blend[2 * i + k] = known ? blend : NAN;
  }
  a.code[i] = mixes && known ? row.code : 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    a.box[4 * i + k] = mixes && known ? row.box[k] : 0;
    if (a.resize_box != nullptr) a.resize_box[4 * i + k] = mixes && known ? row.resize_box[k] : 0;
  }
}

__global__ void __launch_bounds__(kVariantThreads, 1)
    variant_kernel(const __grid_constant__ VariantLaunch a) {
  VariantShared& shared = block_shared<VariantShared>();
  const int tid = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int i = static_cast<int>(blockIdx.x);  // the sample of a unit, or 0 for the batch
  int unit = a.per == kPerBatch ? 0 : a.index_of(i);
  if (a.per == kPerPair && a.partner[i] < unit) unit = a.partner[i];
  // 1. One thread draws the row.
  if (tid == 0) {
    for (int k = 0; k < kStateWords; ++k) shared.state[k] = a.state[k];
    if (shared.state[kVersionWord] == kStateVersion) {  // plan_kernel has stepped it
      const uint64_t step = static_cast<uint64_t>(shared.state[kStepWord]) - 1;
      shared.state[kStepWord] = static_cast<int64_t>(step);
    }
    shared.draw = a.draw;
    if (a.settings != nullptr) {
      shared.draw.prob = a.settings[0];
      for (int k = 0; k < a.draw.count; ++k) {
        for (int n = 0; n < kVariantNumbers; ++n) {
          shared.draw.number[k][n] = a.settings[1 + kVariantNumbers * k + n];
        }
      }
    }
    shared.sums[0] = shared.sums[1] = 0;
    const Stream stream(shared.state);
    clear(shared.row);
    VariantDraws(stream, shared.draw, static_cast<uint32_t>(unit)).draw(shared.row);
  }
  __syncthreads();  // state, settings and the row are written
  const Stream stream(shared.state);
  const bool known = shared.state[kVersionWord] == kStateVersion;
  // 2. The tables of its mask.
  const int64_t height = shared.draw.size[0], width = shared.draw.size[1];
  float* rows = a.rows + i * a.draw.rank * height;
  float* columns = a.columns + i * a.draw.rank * width;
  float threshold = 0.0f;
  if (shared.row.variant == kFmix) {
    fill_fmix(shared, stream, static_cast<uint32_t>(unit), rows, columns);
    threshold = fmix_threshold(shared, rows, columns);
  } else {
    fill_tables(shared, rows, columns);
  }
  for (int64_t k = shared.row.products * height + tid; k < a.draw.rank * height; k += threads) {
    rows[k] = 0.0f;
  }
  for (int64_t k = shared.row.products * width + tid; k < a.draw.rank * width; k += threads) {
    columns[k] = 0.0f;
  }
  if (tid == 0) a.threshold[i] = threshold;
  // 3. Rows of the plan.
  if (a.per != kPerBatch) {
    if (tid == 0) put_variant(a, i, shared.row, known);
    return;
  }
  for (int k = tid; k < a.batch; k += threads) put_variant(a, k, shared.row, known);
}

inline cudaError_t draw_variants(const VariantLaunch& a) {
  PlanArgs partners = {};  // without rows: variant_kernel writes them
  partners.state = a.state;
  partners.draw.spatial = 2;
  partners.batch = a.batch;
  partners.per = a.per;
  partners.pairing = a.pairing;
  partners.labels = a.labels;
  partners.given = a.given;
  partners.sample = a.sample;
  partners.partner = a.partner;
  partners.weight = a.weight;
  partners.blend = a.blend;
  partners.box = a.box;
  partners.stream = a.stream;
  const cudaError_t error = draw_partners(partners);
  const int units = a.per == kPerBatch ? 1 : a.batch;
  if (error != cudaSuccess || units == 0) return error;
  return launch(variant_kernel, units, dim3(kVariantThreads), 0, a.stream, a);
}

}  // namespace fused_mixup
