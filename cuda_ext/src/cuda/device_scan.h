// Exclusive prefix sums of counts that stop at 2^31-1 instead of overflowing: CUB, or a plain loop in the emulation.
#pragma once

#include "device.h"

#if !defined(AVATAR_CUDA_EMULATED)
#include <cub/device/device_scan.cuh>
#endif

namespace avatar {
namespace AVATAR_ISA {

// Associative for numbers that are not negative, which a parallel scan needs.
struct SaturatedSum {
  __host__ __device__ __forceinline__ int32_t operator()(int32_t a, int32_t b) const {
    return a > INT32_MAX - b ? INT32_MAX : a + b;
  }
};

#if defined(AVATAR_CUDA_EMULATED)

inline int64_t scan_workspace(int64_t) { return 0; }

inline int32_t exclusive_sums(avatar_call*, const int32_t* counts, int32_t* sums, int64_t n, void*, int64_t,
                              cudaStream_t) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sums[i] = sum;
    sum = SaturatedSum()(sum, counts[i]);
  }
  return AVATAR_OK;
}

#else

inline int64_t scan_workspace(int64_t n) {
  size_t bytes = 0;
  cub::DeviceScan::ExclusiveScan(nullptr, bytes, static_cast<const int32_t*>(nullptr), static_cast<int32_t*>(nullptr),
                                 SaturatedSum(), int32_t(0), static_cast<int>(n));
  return static_cast<int64_t>(bytes);
}

inline int32_t exclusive_sums(avatar_call* call, const int32_t* counts, int32_t* sums, int64_t n, void* workspace,
                              int64_t bytes, cudaStream_t stream) {
  size_t size = static_cast<size_t>(bytes);
  return status_of(call, cub::DeviceScan::ExclusiveScan(workspace, size, counts, sums, SaturatedSum(), int32_t(0),
                                                        static_cast<int>(n), stream));
}

#endif

}  // namespace AVATAR_ISA
}  // namespace avatar
