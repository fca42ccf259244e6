// Kernels with a mistake each, to test that the emulation finds it.
#include "cuda_runtime.h"

namespace {

__shared__ int shared_value[64];

void barrier_in_a_branch(void*) {
  if (threadIdx.x < 40) __syncthreads();
}

void shuffle_from_a_lane_that_left(void*) {
  if (threadIdx.x % 32 >= 16) return;
  __shfl_xor_sync(0xffffffffu, 1, 16);
}

void mask_without_the_caller(void*) { __ballot_sync(0xfffffffeu, 1); }

// Writes to out[thread] what the next thread left in shared memory, without waiting for it.
void missing_barrier(void* out) {
  shared_value[threadIdx.x] = static_cast<int>(threadIdx.x) + 1;
  static_cast<int*>(out)[threadIdx.x] = shared_value[(threadIdx.x + 1) % 64];
}

}  // namespace

// Run mistake number `which` on one block of 64 threads; the message, or null.
extern "C" __attribute__((visibility("default"))) const char* emulation_run_fault(int which, int* out) {
  void (*const faults[])(void*) = {barrier_in_a_branch, shuffle_from_a_lane_that_left, mask_without_the_caller,
                                   missing_barrier};
  emulation::run(faults[which], out, dim3(1), dim3(64));
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
