// What the bindings to PyTorch share. They use the stable ABI alone: one build serves every PyTorch
// from 2.10.
//
// Users meet the checks in Python; those of csrc/common/arguments.h keep kernels inside their
// memory.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <utility>

#include "../common/arguments.h"
#include "launch.cuh"
#include "vec.cuh"

namespace fused_mixup {

using Guard = torch::stable::accelerator::DeviceGuard;

// The device of the tensor that an op works on, which has to be a CUDA tensor: PyTorch calls this
// module where any of the arguments is one.
inline Guard guard_of(const Tensor& t) {
  expect(t.is_cuda(), "the first tensor", "a CUDA tensor, as others are");
  return Guard(t.get_device_index());
}

inline cudaStream_t current_stream(const Tensor& t) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline void check(cudaError_t error) {
  STD_TORCH_CHECK(error != kTooManyBlocks,
                  "fused_mixup: a grid of more than 2^31-1 blocks, which no GPU takes; split the "
                  "batch");
  STD_TORCH_CHECK(error != cudaErrorNoKernelImageForDevice &&
                      error != cudaErrorInvalidDeviceFunction &&
                      error != cudaErrorUnsupportedPtxVersion,
                  "fused_mixup: the compiled kernels do not run on this GPU (",
                  cudaGetErrorString(error), "); set FUSED_MIXUP_BACKEND=triton, or build for it: ",
                  "python -m fused_mixup.env shows both");
  STD_TORCH_CHECK(error == cudaSuccess, "fused_mixup: ", cudaGetErrorString(error));
}

inline DType dtype_of(ScalarType type) {
  switch (type) {
    case ScalarType::Half:
      return kHalf;
    case ScalarType::BFloat16:
      return kBFloat16;
    case ScalarType::Float:
      return kFloat;
    case ScalarType::Double:
      return kDouble;
    case ScalarType::Byte:
      return kUInt8;
    default:
      STD_TORCH_CHECK(false, "fused_mixup: unsupported dtype");
  }
  return kFloat;
}

// True for a tensor whose rows are one row on the host: it travels as plain arguments.
inline bool is_host_row(const Tensor& t) {
  return t.is_cpu() && (t.size(0) <= 1 || t.stride(0) == 0);
}

// t on the device of `like`, where it is already as a rule.
inline Tensor near_to(const Tensor& t, const Tensor& like) {
  return t.is_cpu() ? torch::stable::to(t, like.device()) : t;
}

// near_to(), and contiguous.
inline Tensor on_device(const Tensor& t, const Tensor& like) {
  const Tensor moved = near_to(t, like);
  return moved.is_contiguous() ? moved : torch::stable::contiguous(moved);
}

template <typename T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

// Keeps the tensors that the arguments of a launch point into, until it is made.
class KeptTensors {
 public:
  const Tensor& keep(Tensor t) {
    expect(count_ < kept_.size(), "arguments", "fewer tensors");
    OptionalTensor& slot = kept_[count_++];
    slot = std::move(t);
    return *slot;
  }

  // t on the device of `like`, contiguous.
  template <typename T>
  const T* device_data(const Tensor& t, const Tensor& like) {
    return data<T>(keep(on_device(t, like)));
  }

  // Pairs t [B, 2] on the device of `like`; null where they are one row on the host, which is
  // copied to `row`.
  template <typename T>
  const T* device_pairs(const Tensor& t, const Tensor& like, T (&row)[2]) {
    if (!is_host_row(t)) return device_data<T>(t, like);
    if (t.size(0) > 0) {
      row[0] = data<T>(t)[0];
      row[1] = data<T>(t)[t.stride(1)];
    }
    return nullptr;
  }

 private:
  std::array<OptionalTensor, 12> kept_;
  size_t count_ = 0;
};

// Bytes of shared memory that a block of the current device may have; 0 where CUDA does not tell.
inline int64_t shared_limit() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess) {
    return 0;
  }
  return bytes;
}

}  // namespace fused_mixup
