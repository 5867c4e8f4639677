// Dependent launches (sm_90 on): a kernel whose blocks come to their multiprocessors while the
// kernel in front of it still runs, and wait there.
//
// Like launch.cuh this file holds what the host replaces (tests/host_cuda/dependent.h):
//
//   launch_dependent   cudaLaunchKernelEx with programmatic stream serialization
//   await_earlier      griddepcontrol.wait: all work in front of the kernel is done, and seen
//   let_next_start     griddepcontrol.launch_dependents
//
// Which kernel stands in front is not ours to know: it may be one of another library that lets the
// next one start early and still writes the batch, or reads what we overwrite. So a dependent
// kernel awaits it in every thread before it reads or writes any global memory (the host checks
// that); what it gains is its launch alone. As every block awaits, the kernel ends after all work
// in front of it, and what follows needs to know nothing of this. A kernel in front that lets
// nobody start early, such as any of an older library, has ended when this one starts.
#pragma once

#include "launch.cuh"
#ifdef FUSED_MIXUP_HOST
#include "dependent.h"
#endif

namespace fused_mixup {

#ifndef FUSED_MIXUP_HOST
// launch(), but dependent where `early`: then the kernel calls await_earlier().
template <typename... Params, typename... Args>
cudaError_t launch_dependent(bool early, void (*kernel)(Params...), int64_t blocks, dim3 block,
                             size_t shared, cudaStream_t stream, const Args&... args) {
  if (!early) return launch(kernel, blocks, block, shared, stream, args...);
  if (blocks > kMaxBlocks) return kTooManyBlocks;
  const cudaError_t refused = allow_shared(reinterpret_cast<const void*>(kernel), shared);
  if (refused != cudaSuccess) return refused;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, Params(args)...);
  return error != cudaSuccess ? error : cudaGetLastError();
}

__device__ __forceinline__ void await_earlier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

// Lets the blocks of a dependent kernel come as soon as all blocks of this one have called it, or
// ended. Nothing that this kernel writes is seen by it earlier than at its await_earlier().
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}
#endif  // FUSED_MIXUP_HOST

}  // namespace fused_mixup
