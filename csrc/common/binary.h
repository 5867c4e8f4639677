// What the compiled modules need from the build and from the system that loads them.
#pragma once

#include <cstdint>

// The namespace of the ops in torch.ops. A build may name another, as that of a kernel hub does, so
// that two versions of the package can live in one process.
#ifndef FUSED_MIXUP_OPS
#define FUSED_MIXUP_OPS fused_mixup
#endif

#define FUSED_MIXUP_QUOTE(text) #text
#define FUSED_MIXUP_STRING(name) FUSED_MIXUP_QUOTE(name)
#define FUSED_MIXUP_PASTE(a, b) a##b
#define FUSED_MIXUP_JOIN(a, b) FUSED_MIXUP_PASTE(a, b)

// A binary that is built beside a new glibc runs beside one of 2.28 too, the oldest that PyTorch
// takes. The compiler would ask for newer versions of these symbols; the old ones give the same
// results.
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver exp, exp@GLIBC_2.2.5");
__asm__(".symver log, log@GLIBC_2.2.5");
__asm__(".symver pow, pow@GLIBC_2.2.5");
// From 2.32: whether the process has one thread. "No" is right always: counts are then atomic.
extern "C" {
__attribute__((weak, visibility("hidden"))) char __libc_single_threaded = 0;
}
#endif
