// A fiber: a stack that control can enter and leave. A switch takes a handful of instructions on
// x86-64; other machines (and FUSED_MIXUP_UCONTEXT, for its test) use ucontext, which works
// everywhere and is slower.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(FUSED_MIXUP_UCONTEXT)
#define FUSED_MIXUP_FAST_FIBER 1
#else
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace host_cuda {

#ifdef FUSED_MIXUP_FAST_FIBER
// Saves the stack, and the registers that a call must keep, in *from; continues where `to` was
// saved.
__attribute__((naked, noinline)) inline void switch_stack(void** /*from*/, void* /*to*/) {
  __asm__(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
#endif

class Fiber {
 public:
  Fiber() : stack_(static_cast<unsigned char*>(std::malloc(kStack))) {}
  ~Fiber() { std::free(stack_); }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next enter() calls `main` on this stack; when it returns, control is back at enter().
  void start(void (*main)()) {
    main_ = main;
#ifdef FUSED_MIXUP_FAST_FIBER
    // The stack looks as switch_stack leaves it: six registers, then the address to continue at. It
    // is aligned as at a function's entry: a multiple of 16 before the return address.
    uintptr_t top = (reinterpret_cast<uintptr_t>(stack_) + kStack) & ~uintptr_t{15};
    void** words = reinterpret_cast<void**>(top) - 8;
    for (int i = 0; i < 8; ++i) words[i] = nullptr;
    words[6] = reinterpret_cast<void*>(&Fiber::begin);
    inside_ = words;
#else
    getcontext(&inside_);
    inside_.uc_stack.ss_sp = stack_;
    inside_.uc_stack.ss_size = kStack;
    inside_.uc_link = nullptr;
    makecontext(&inside_, &Fiber::begin, 0);
#endif
  }

  void enter() {
    running() = this;
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stack_, kStack);
#endif
#ifdef FUSED_MIXUP_FAST_FIBER
    switch_stack(&outside_, inside_);
#else
    swapcontext(&outside_, &inside_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  void leave() { go_outside(false); }

  const unsigned char* stack() const { return stack_; }
  const unsigned char* stack_end() const { return stack_ + kStack; }

 private:
  static constexpr size_t kStack = 256 * 1024;

  static Fiber*& running() {
    static Fiber* fiber = nullptr;
    return fiber;
  }

  static void begin() {
    Fiber* self = running();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &self->outer_stack_, &self->outer_size_);
#endif
    self->main_();
    self->go_outside(true);
    std::abort();  // a finished fiber is not entered again before start()
  }

  void go_outside(bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, outer_stack_, outer_size_);
#else
    (void)for_good;
#endif
#ifdef FUSED_MIXUP_FAST_FIBER
    switch_stack(&inside_, outside_);
#else
    swapcontext(&inside_, &outside_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, &outer_stack_, &outer_size_);
#endif
  }

  unsigned char* stack_;
  void (*main_)() = nullptr;
#ifdef FUSED_MIXUP_FAST_FIBER
  void* inside_ = nullptr;
  void* outside_ = nullptr;
#else
  ucontext_t inside_, outside_;
#endif
#if defined(__SANITIZE_ADDRESS__)
  const void* outer_stack_ = nullptr;
  size_t outer_size_ = 0;
#endif
};

// Fibers to be used again, as their stacks are large.
class FiberPool {
 public:
  Fiber* take() {
    if (free_.empty()) {
      all_.push_back(std::make_unique<Fiber>());
      return all_.back().get();
    }
    Fiber* fiber = free_.back();
    free_.pop_back();
    return fiber;
  }
  void give_back(Fiber* fiber) { free_.push_back(fiber); }
  // Abandons all: kernels have nothing on these stacks that needs a destructor.
  void abandon() {
    free_.clear();
    all_.clear();
  }

 private:
  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> free_;
};

}  // namespace host_cuda
