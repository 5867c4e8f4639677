// The table of one instruction set: everything below is compiled once per kernels_*.cpp, inside
// its namespace. No standard header may be included between here and there: an inline function
// compiled for a newer instruction set could be the one that the linker keeps for all.

// clang-format off: vec.inl comes first.
#include "vec.inl"
#include "loss_kernels.inl"
#include "mix_kernels.inl"
// clang-format on

const Kernels table = {
    FUSED_MIXUP_ISA,
    mix_table<float>(),
    mix_table<double>(),
    mix_table<Half>(),
    mix_table<BFloat16>(),
    mix_table<uint8_t>(),
    loss_table<float, float>(),
    loss_table<double, double>(),
    loss_table<Half, Half>(),
    loss_table<Half, float>(),
    loss_table<BFloat16, BFloat16>(),
    loss_table<BFloat16, float>(),
};
