// Enough of CUDA to run the kernels of src/cuda on a CPU, for tests: compile them as C++ with this folder on the
// include path and AVATAR_CUDA_EMULATED defined.
//
// Every thread of a block is a fiber; blocks run one after the other. A fiber runs until it needs the others (a
// barrier, a shuffle, a vote) or ends. What a GPU leaves undefined is an error here: a barrier that not every thread
// reaches, a warp function that not every lane of its mask reaches. Shared variables start every block as NaN where the
// kernel says so (start_as_nan). The order in which fibers and blocks run can be chosen (emulation_set_order), which
// brings out missing barriers: results must not depend on it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

typedef struct CUstream_st* cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorLaunchFailure = 719 };

namespace emulation {

extern thread_local dim3 thread_index, block_index, block_size, grid_size;

enum class Warp : int { ballot, shuffle, match, sync };

// Run `body(context)` once per thread of the grid.
cudaError_t run(void (*body)(void*), void* context, dim3 grid, dim3 block);
cudaError_t last_error();
const char* error_text();

// Wait for every thread of the block; returns the number of threads that passed a true predicate.
int block_barrier(bool predicate);

// Wait for every lane in `mask`. Each hands in a value and the lane it wants to read (shuffle); returns the ballot, the
// other lane's value, or the lanes with an equal value.
uint64_t warp_exchange(Warp kind, unsigned mask, uint64_t value, int source);
int lane();

// Fill a shared variable, if no thread of this block has done so.
void start_as_nan(void* variable, size_t bytes);

template <typename T>
uint64_t pack(T value) {
  static_assert(sizeof(T) <= 8, "");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <typename T>
T unpack(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulation

#define threadIdx (::emulation::thread_index)
#define blockIdx (::emulation::block_index)
#define blockDim (::emulation::block_size)
#define gridDim (::emulation::grid_size)

inline void __syncthreads() { emulation::block_barrier(false); }
inline int __syncthreads_count(int predicate) { return emulation::block_barrier(predicate != 0); }
inline int __syncthreads_or(int predicate) { return emulation::block_barrier(predicate != 0) > 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::warp_exchange(emulation::Warp::sync, mask, 0, 0); }
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(emulation::warp_exchange(emulation::Warp::ballot, mask, predicate != 0, 0));
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0u; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
  using namespace emulation;
  return unpack<T>(warp_exchange(Warp::shuffle, mask, pack(value), source & 31));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return __shfl_sync(mask, value, emulation::lane() ^ bits);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, int distance) {
  return __shfl_sync(mask, value, emulation::lane() < distance ? emulation::lane() : emulation::lane() - distance);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, int distance) {
  return __shfl_sync(mask, value, emulation::lane() + distance > 31 ? emulation::lane() : emulation::lane() + distance);
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
  return static_cast<unsigned>(emulation::warp_exchange(emulation::Warp::match, mask, emulation::pack(value), 0));
}

inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }

template <typename T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}
inline int atomicMax(int* address, int value) {
  const int old = *address;
  if (value > old) *address = value;
  return old;
}

inline cudaError_t cudaGetLastError() { return emulation::last_error(); }
inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "" : emulation::error_text(); }
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
