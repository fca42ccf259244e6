// What every CUDA file needs: the shared mathematics, launches, and sums over a warp or a block.
//
// The sources are CUDA C++ for nvcc. tests/cuda_emulation provides a cuda_runtime.h with which a C++ compiler builds
// the same files for the CPU, so that they are tested without a GPU; therefore launches go through `launch`, and CUB is
// used in device_scan.h and device_sort.h only.
#pragma once

#define AVATAR_ISA cuda
#include <cuda_runtime.h>

#include <cstdint>

#include "avatar_checks.h"
#include "avatar_cuda.h"
#include "avatar_math.h"

#if defined(AVATAR_CUDA_EMULATED)
#define AVATAR_UNROLL
#else
#define AVATAR_UNROLL _Pragma("unroll")
#endif

namespace avatar {
namespace AVATAR_ISA {

constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int kWarp = 32;

using avatar::fail;

inline int32_t status_of(avatar_call* call, cudaError_t error) {
  return error == cudaSuccess ? AVATAR_OK : fail(call, AVATAR_UNSUPPORTED, "%s", cudaGetErrorString(error));
}

using avatar::check_call;
using avatar::check_channels;
using avatar::check_picture;
using avatar::good_count;
using avatar::good_picture;
using avatar::kMaxChannels;

inline bool good_capacity(int64_t capacity) { return capacity >= 0 && capacity < kMaxPairs; }

inline int32_t check_capacity(avatar_call* call, int64_t capacity) {
  if (good_capacity(capacity)) return AVATAR_OK;
  return fail(call, AVATAR_BAD_ARGUMENT, "capacity is %lld; expected 0 to 2^31-2 pairs of tile and Gaussian",
              static_cast<long long>(capacity));
}

// function(T()) with the number type of the call. Double would halve the occupancy of the heavy kernels for the sake of
// gradient checks alone; it is compiled in on request, and in the emulation.
template <typename Function>
int32_t with_dtype(avatar_call* call, const Function& function) {
  if (call->dtype == AVATAR_FLOAT32) return function(float());
#if defined(AVATAR_CUDA_FLOAT64)
  return function(double());
#else
  return fail(call, AVATAR_UNSUPPORTED,
              "this CUDA library is built for float32 only (AVATAR_CUDA_FLOAT64=ON adds float64)");
#endif
}

template <typename T>
const T* in(const void* pointer) {
  return static_cast<const T*>(pointer);
}
template <typename T>
T* out(void* pointer) {
  return static_cast<T*>(pointer);
}

inline unsigned blocks_for(int64_t items, int per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

// A workspace is cut into arrays that start at multiples of 256 bytes.
struct Carver {
  char* memory;
  int64_t used = 0;
  explicit Carver(void* start) : memory(static_cast<char*>(start)) {}
  template <typename T>
  T* take(int64_t count) {
    T* array = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + used);
    used += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return array;
  }
};

// ---- launches ------------------------------------------------------------------------------------------------------

#if defined(AVATAR_CUDA_EMULATED)
template <typename... Parameters, typename... Arguments>
int32_t launch(avatar_call* call, void (*kernel)(Parameters...), dim3 grid, int block, cudaStream_t,
               Arguments... arguments) {
  const auto body = [&]() { kernel(static_cast<Parameters>(arguments)...); };
  using Body = decltype(body);
  emulation::run([](void* context) { (*static_cast<Body*>(context))(); },
                 const_cast<void*>(static_cast<const void*>(&body)), grid, dim3(block));
  return status_of(call, cudaGetLastError());
}
#else
template <typename... Parameters, typename... Arguments>
int32_t launch(avatar_call* call, void (*kernel)(Parameters...), dim3 grid, int block, cudaStream_t stream,
               Arguments... arguments) {
  kernel<<<grid, block, 0, stream>>>(static_cast<Parameters>(arguments)...);
  return status_of(call, cudaGetLastError());
}
#endif

inline int32_t clear(avatar_call* call, void* memory, int64_t bytes, cudaStream_t stream) {
  if (bytes == 0) return AVATAR_OK;
  return status_of(call, cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream));
}

// The emulation finds reads of shared memory that nothing was written to; on a GPU this is nothing.
template <typename T>
__device__ __forceinline__ void start_as_nan(T& shared) {
#if defined(AVATAR_CUDA_EMULATED)
  emulation::start_as_nan(&shared, sizeof(T));
#else
  static_cast<void>(shared);
#endif
}

// ---- sums ----------------------------------------------------------------------------------------------------------

// The sum over the lanes of a warp, in every lane; the order of the additions is fixed.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  AVATAR_UNROLL
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kWholeWarp, value, distance);
  return value;
}

__device__ __forceinline__ int warp_max(int value) {
  AVATAR_UNROLL
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const int other = __shfl_xor_sync(kWholeWarp, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// 1 / x to two units in the last place.
__device__ __forceinline__ float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  return __fdividef(1.0f, x);
#else
  return 1.0f / x;
#endif
}
__device__ __forceinline__ double reciprocal(double x) { return 1.0 / x; }

__device__ __forceinline__ int64_t global_thread() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

}  // namespace AVATAR_ISA
}  // namespace avatar
