// draw_erasing: draws the boxes of a batch that are erased, and what fills them, in one launch.
//
// Fused: random words, areas, aspects and places of boxes, their colours or the keys of their
// noise, and the step of the state. docs/drawing.md specifies what is drawn;
// csrc/common/draw_erasing.h computes it. Read: the state. Written: 16 bytes a box, and its colour.
//
// A box depends on its own words alone, and has a thread. One block does all of it, as the state
// may step only after all threads have read it, and a launch has no barrier between blocks.
#pragma once

#include "../common/draw_erasing.h"
#include "launch.cuh"

namespace fused_mixup {

constexpr int kErasingThreads = 512;

struct ErasingLaunch {
  int64_t* state;          // device [4]
  const double* settings;  // device [5], or null for draw.setting
  ErasingArgs draw;
  int batch, filled;
  float fill[kMaxChannels];  // [filled], what fills all boxes in kConstMode
  int32_t* box;              // device [B, N, 4], 16-byte aligned
  float* value;              // device [1, 1, filled] or [B, N, C]
  int64_t* noise;            // device [B], for kPixelMode
  cudaStream_t stream;
};

struct ErasingShared {
  int64_t state[kStateWords];
  ErasingLaw law;
};

__global__ void __launch_bounds__(kErasingThreads, 1)
    erasing_kernel(const __grid_constant__ ErasingLaunch a) {
  ErasingShared& shared = block_shared<ErasingShared>();
  const int tid = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  // 1. One thread reads the state, so that it can step without another barrier.
  if (tid == 0) {
    for (int k = 0; k < kStateWords; ++k) shared.state[k] = a.state[k];
    ErasingArgs draw = a.draw;
    if (a.settings != nullptr) {
      for (int k = 0; k < kErasingSettings; ++k) draw.setting[k] = a.settings[k];
    }
    // Through a local variable: the race detector would not see the writes of a result built in
    // place.
    const ErasingLaw law(draw);
    shared.law = law;
  }
  __syncthreads();  // state and law are written
  const Stream stream(shared.state);
  const ErasingLaw law = shared.law;
  const bool known = shared.state[kVersionWord] == kStateVersion;
  // 2. What is given, and the keys.
  for (int c = tid; c < a.filled; c += threads) a.value[c] = a.fill[c];
  if (a.draw.mode == kPixelMode) {
    for (int i = tid; i < a.batch; i += threads) {
      a.noise[i] = draw_noise_key(stream, static_cast<uint32_t>(i));
    }
  }
  // 3. Boxes.
  const int boxes = a.batch * a.draw.max_count;
  for (int at = tid; at < boxes; at += threads) {
    const uint32_t i = static_cast<uint32_t>(at / a.draw.max_count);
    const uint32_t k = static_cast<uint32_t>(at % a.draw.max_count);
    ErasedBox box = {0, 0, 0, 0};
    if (known) box = draw_erased_box(stream, a.draw, law, i, k);
    store16(a.box + 4 * static_cast<int64_t>(at),
            {static_cast<unsigned>(box.y0), static_cast<unsigned>(box.x0),
             static_cast<unsigned>(box.y1), static_cast<unsigned>(box.x1)});
    if (a.draw.mode != kRandMode) continue;
    float* color = a.value + static_cast<int64_t>(at) * a.draw.channels;
    if (box.empty()) {
      for (int c = 0; c < a.draw.channels; ++c) color[c] = 0.0f;
    } else {
      draw_color(stream, i, k, a.draw.channels, color);
    }
  }
  if (tid == 0 && known) {
    a.state[kStepWord] = static_cast<int64_t>(static_cast<uint64_t>(shared.state[kStepWord]) + 1);
  }
}

inline cudaError_t draw_erasing(const ErasingLaunch& a) {
  // An empty batch advances the state too.
  const int boxes = a.batch * a.draw.max_count;
  const int warps = boxes > 0 ? (boxes + 31) / 32 : 1;
  const int threads = 32 * warps < kErasingThreads ? 32 * warps : kErasingThreads;
  return launch(erasing_kernel, 1, dim3(static_cast<unsigned>(threads)), 0, a.stream, a);
}

}  // namespace fused_mixup
