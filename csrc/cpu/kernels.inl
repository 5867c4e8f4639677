// The table of one instruction set: everything below is compiled once per kernels_*.cpp, inside
// its namespace. These files include no standard header: the linker could keep an inline function
// that was compiled for a newer instruction set, for all callers.

// clang-format off: vec.inl comes first.
#include "vec.inl"
#include "vec_math.inl"
#include "label_ranks_kernels.inl"
#include "logit_kernels.inl"
#include "loss_kernels.inl"
#include "loss_columns.inl"
#include "bce_kernels.inl"
#include "bce_focal.inl"
#include "collage_kernels.inl"
#include "mix_bytes.inl"
#include "mix_kernels.inl"
#include "mask_kernels.inl"
#include "mix_normalize_kernels.inl"
#include "neighbor_kernels.inl"
#include "noise.inl"
#include "pixels.inl"
#include "ragged_kernels.inl"
#include "stream.inl"
// clang-format on

const Kernels table = {
    FUSED_MIXUP_ISA,
    kStreamCopy,
    mix_table<float>(),
    mix_table<double>(),
    mix_table<Half>(),
    mix_table<BFloat16>(),
    mix_table<uint8_t>(),
    ragged_table<float>(),
    ragged_table<double>(),
    ragged_table<Half>(),
    ragged_table<BFloat16>(),
    ragged_table<uint8_t>(),
    collage_table<float>(),
    collage_table<double>(),
    collage_table<Half>(),
    collage_table<BFloat16>(),
    collage_table<uint8_t>(),
    mask_table(),
    masked_table<float>(),
    masked_table<double>(),
    masked_table<Half>(),
    masked_table<BFloat16>(),
    masked_table<uint8_t>(),
    loss_table<float, float>(),
    loss_table<double, double>(),
    loss_table<Half, Half>(),
    loss_table<Half, float>(),
    loss_table<BFloat16, BFloat16>(),
    loss_table<BFloat16, float>(),
    binary_table<float, float>(),
    binary_table<double, double>(),
    binary_table<Half, Half>(),
    binary_table<Half, float>(),
    binary_table<BFloat16, BFloat16>(),
    binary_table<BFloat16, float>(),
    logit_table<float>(),
    logit_table<double>(),
    logit_table<Half>(),
    logit_table<BFloat16>(),
    neighbor_table(),
    pixel_table(),
    normalize_table<uint8_t, float>(),
    normalize_table<uint8_t, Half>(),
    normalize_table<uint8_t, BFloat16>(),
    normalize_table<float, float>(),
    normalize_table<float, Half>(),
    normalize_table<float, BFloat16>(),
};
