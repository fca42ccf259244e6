// What every CUDA file needs: the shared mathematics, launches, and sums over a warp or a block.
//
// The sources are CUDA C++ for nvcc. tests/cuda_emulation provides a cuda_runtime.h with which a C++ compiler builds
// the same files for the CPU, so that they are tested without a GPU; therefore launches go through `launch`, and CUB is
// used in device_scan.h and device_sort.h only.
#pragma once

#define AVATAR_ISA cuda
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>

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

inline int32_t fail(avatar_call* call, avatar_status status, const char* message) {
  std::snprintf(call->message, sizeof(call->message), "%s", message);
  return status;
}

inline int32_t status_of(avatar_call* call, cudaError_t error) {
  return error == cudaSuccess ? AVATAR_OK : fail(call, AVATAR_UNSUPPORTED, cudaGetErrorString(error));
}

#define AVATAR_RETURN_IF_BAD(expression)                           \
  do {                                                             \
    const int32_t bad_status = (expression);                       \
    if (bad_status != AVATAR_OK) return bad_status;                \
  } while (false)

// Common checks of every function of the ABI.
inline int32_t check(avatar_call* call, int64_t n) {
  if (call == nullptr) return AVATAR_BAD_ARGUMENT;
  call->message[0] = '\0';
  if (call->dtype != AVATAR_FLOAT32 && call->dtype != AVATAR_FLOAT64)
    return fail(call, AVATAR_BAD_ARGUMENT, "dtype is neither float32 nor float64");
  if (n < 0) return fail(call, AVATAR_BAD_ARGUMENT, "a size is negative");
  if (n > int64_t(1) << 24) return fail(call, AVATAR_BAD_ARGUMENT, "more than 16777216 Gaussians, points or rays");
  return AVATAR_OK;
}

inline int32_t check_picture(avatar_call* call, int32_t width, int32_t height, int32_t channels) {
  if (width < 1 || height < 1 || width > 16384 || height > 16384)
    return fail(call, AVATAR_BAD_ARGUMENT, "width and height must be 1 to 16384");
  if (channels < 1 || channels > 32) return fail(call, AVATAR_BAD_ARGUMENT, "channels must be 1 to 32");
  return AVATAR_OK;
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

// 1 - exp(-tau).
__device__ __forceinline__ float opacity_of(float tau) { return -::expm1f(-tau); }
__device__ __forceinline__ double opacity_of(double tau) { return -::expm1(-tau); }

__device__ __forceinline__ int64_t global_thread() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

}  // namespace AVATAR_ISA
}  // namespace avatar
