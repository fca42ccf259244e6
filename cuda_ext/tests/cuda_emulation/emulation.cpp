// The scheduler of the emulation: fibers for threads, and the places where they wait for each other.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda_runtime.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__x86_64__)
// void emulation_switch(void** save_stack_pointer, void* next_stack_pointer): swapcontext without its system call.
asm(R"(
.text
.globl emulation_switch
.hidden emulation_switch
.type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulation_switch, . - emulation_switch
)");
extern "C" __attribute__((visibility("hidden"))) void emulation_switch(void** save, void* next);
#endif

namespace emulation {

thread_local dim3 thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t kStack = 64 * 1024;
constexpr int kMaxThreads = 1024;

enum class State { ready, at_barrier, in_warp, done };

struct Fiber {
#if defined(__x86_64__)
  void* stack_pointer;
#else
  ucontext_t context;
#endif
  State state;
  dim3 index;
  bool predicate;  // of the barrier
  Warp kind;       // of the warp function
  unsigned mask;
  int source;
  uint64_t value, result;
};

thread_local std::vector<Fiber> fibers;
thread_local std::vector<const void*> filled;  // shared variables that this block has already seen
thread_local char* stacks = nullptr;
thread_local int threads = 0, current = 0;
thread_local void (*body)(void*) = nullptr;
thread_local void* context = nullptr;
thread_local const char* failure = nullptr;
thread_local const char* last_failure = nullptr;
#if defined(__x86_64__)
thread_local void* scheduler = nullptr;
#else
thread_local ucontext_t scheduler;
#endif

// 0: ascending, 1: descending; 2 and 3 likewise, but each thread goes as far as it can before the next has its turn;
// otherwise the seed of a shuffle.
int order = 0;

bool greedy() { return order == 2 || order == 3; }

int ordered(int position, int count) {
  if (order == 0 || order == 2) return position;
  if (order == 1 || order == 3) return count - 1 - position;
  // A stride coprime to any count of threads and blocks that is not a multiple of it visits every item once.
  static const int strides[] = {7919, 104729, 1299709};
  const int64_t stride = strides[order % 3];
  if (count % stride == 0) return position;
  return static_cast<int>((position * stride + order) % count);
}

void to_scheduler() {
  Fiber& fiber = fibers[current];
#if defined(__x86_64__)
  emulation_switch(&fiber.stack_pointer, scheduler);
#else
  swapcontext(&fiber.context, &scheduler);
#endif
}

void resume(int index) {
  current = index;
  thread_index = fibers[index].index;
#if defined(__x86_64__)
  emulation_switch(&scheduler, fibers[index].stack_pointer);
#else
  swapcontext(&scheduler, &fibers[index].context);
#endif
}

void fiber_main() {
  body(context);
  fibers[current].state = State::done;
  to_scheduler();
  std::abort();  // a fiber that is done is not resumed
}

void prepare(int index) {
  Fiber& fiber = fibers[index];
  fiber.state = State::ready;
  fiber.index.x = index % block_size.x;
  fiber.index.y = index / block_size.x % block_size.y;
  fiber.index.z = index / (block_size.x * block_size.y);
  char* stack = stacks + size_t(index) * kStack;
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(stack + kStack);
  *--top = nullptr;  // where fiber_main would return to
  *--top = reinterpret_cast<void*>(&fiber_main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the saved registers
  fiber.stack_pointer = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
#endif
}

void run_block() {
  for (int i = 0; i < threads; ++i) prepare(i);
  filled.clear();
  for (bool progress = true; progress && failure == nullptr;) {
    progress = false;
    for (int i = 0; i < threads && failure == nullptr; ++i) {
      const int index = ordered(i, threads);
      if (fibers[index].state != State::ready) continue;
      progress = true;
      resume(index);
      if (greedy()) break;
    }
  }
  if (failure != nullptr) return;
  for (const Fiber& fiber : fibers) {
    if (fiber.state == State::at_barrier) failure = "emulation: a barrier was not reached by every thread of the block";
    if (fiber.state == State::in_warp) failure = "emulation: a warp function was not reached by every lane of its mask";
  }
}

}  // namespace

int lane() { return current & 31; }

void start_as_nan(void* variable, size_t bytes) {
  for (const void* known : filled)
    if (known == variable) return;
  filled.push_back(variable);
  std::memset(variable, 0xff, bytes);
}

int block_barrier(bool predicate) {
  fibers[current].state = State::at_barrier;
  fibers[current].predicate = predicate;
  int waiting = 0, count = 0;
  for (const Fiber& fiber : fibers)
    if (fiber.state == State::at_barrier) {
      ++waiting;
      count += fiber.predicate;
    }
  if (waiting == threads) {
    for (Fiber& fiber : fibers) {
      fiber.state = State::ready;
      fiber.result = static_cast<uint64_t>(count);
    }
  }
  const int self = current;
  to_scheduler();
  return static_cast<int>(fibers[self].result);
}

uint64_t warp_exchange(Warp kind, unsigned mask, uint64_t value, int source) {
  const int self = current;
  Fiber* warp = fibers.data() + (self & ~31);
  Fiber& own = fibers[self];
  own.state = State::in_warp;
  own.kind = kind;
  own.mask = mask;
  own.value = value;
  own.source = source;
  bool complete = true;
  for (int i = 0; i < 32; ++i) {
    if ((mask >> i & 1u) == 0u) continue;
    if ((self & ~31) + i >= threads) {
      failure = "emulation: the mask of a warp function names a lane that does not exist";
      to_scheduler();
    }
    if (warp[i].state != State::in_warp) {
      complete = false;
    } else if (warp[i].kind != kind || warp[i].mask != mask) {
      failure = "emulation: lanes of one mask are in different warp functions";
      to_scheduler();
    }
  }
  if ((mask >> (self & 31) & 1u) == 0u) {
    failure = "emulation: a lane is not in the mask that it passes";
    to_scheduler();
  }
  if (complete) {
    uint64_t ballot = 0;
    for (int i = 0; i < 32; ++i)
      if ((mask >> i & 1u) != 0u && warp[i].value != 0) ballot |= uint64_t(1) << i;
    for (int i = 0; i < 32; ++i) {
      if ((mask >> i & 1u) == 0u) continue;
      uint64_t result = 0;
      if (kind == Warp::ballot) result = ballot;
      if (kind == Warp::shuffle) {
        if ((mask >> warp[i].source & 1u) == 0u) {
          failure = "emulation: a shuffle reads a lane outside its mask";
          to_scheduler();
        }
        result = warp[warp[i].source].value;
      }
      if (kind == Warp::match)
        for (int k = 0; k < 32; ++k)
          if ((mask >> k & 1u) != 0u && warp[k].value == warp[i].value) result |= uint64_t(1) << k;
      warp[i].result = result;
    }
    for (int i = 0; i < 32; ++i)
      if ((mask >> i & 1u) != 0u) warp[i].state = State::ready;
  }
  to_scheduler();
  return fibers[self].result;
}

cudaError_t run(void (*function)(void*), void* argument, dim3 grid, dim3 block) {
  block_size = block;
  grid_size = grid;
  body = function;
  context = argument;
  threads = static_cast<int>(block.x * block.y * block.z);
  failure = nullptr;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || threads < 1 ||
      threads > kMaxThreads) {
    last_failure = "emulation: invalid launch configuration";
    return cudaErrorLaunchFailure;
  }
  if (stacks == nullptr) stacks = static_cast<char*>(std::malloc(kStack * kMaxThreads));
  fibers.assign(threads, Fiber());
  const int64_t blocks = int64_t(grid.x) * grid.y * grid.z;
  for (int64_t i = 0; i < blocks && failure == nullptr; ++i) {
    const int64_t at = ordered(static_cast<int>(i), static_cast<int>(blocks));
    block_index.x = static_cast<unsigned>(at % grid.x);
    block_index.y = static_cast<unsigned>(at / grid.x % grid.y);
    block_index.z = static_cast<unsigned>(at / (int64_t(grid.x) * grid.y));
    run_block();
  }
  if (failure != nullptr) last_failure = failure;
  return failure == nullptr ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t last_error() {
  const bool failed = last_failure != nullptr;
  failure = last_failure;
  last_failure = nullptr;
  return failed ? cudaErrorLaunchFailure : cudaSuccess;
}

const char* error_text() { return failure == nullptr ? "emulation: unknown error" : failure; }

}  // namespace emulation

// Order of threads and blocks, see `order`.
extern "C" __attribute__((visibility("default"))) void emulation_set_order(int order) { emulation::order = order; }
