// Stable sort of (uint64 key, int32 value) by the lowest bits of the key: CUB's radix sort, or the standard library's
// in the emulation.
#pragma once

#include "device.h"

#if defined(AVATAR_CUDA_EMULATED)
#include <algorithm>
#include <numeric>
#include <vector>
#else
#include <cub/device/device_radix_sort.cuh>
#endif

namespace avatar {
namespace AVATAR_ISA {

#if defined(AVATAR_CUDA_EMULATED)

inline int64_t sort_workspace(int64_t, int) { return 0; }

inline int32_t sort_pairs(avatar_call*, const uint64_t* keys, uint64_t* sorted_keys, const int32_t* values,
                          int32_t* sorted_values, int64_t n, int bits, void*, int64_t, cudaStream_t) {
  const uint64_t mask = bits >= 64 ? ~uint64_t(0) : (uint64_t(1) << bits) - 1;
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t(0));
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t i, int64_t k) { return (keys[i] & mask) < (keys[k] & mask); });
  for (int64_t i = 0; i < n; ++i) {
    sorted_keys[i] = keys[order[i]];
    sorted_values[i] = values[order[i]];
  }
  return AVATAR_OK;
}

#else

inline int64_t sort_workspace(int64_t n, int bits) {
  size_t bytes = 0;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, static_cast<const uint64_t*>(nullptr),
                                  static_cast<uint64_t*>(nullptr), static_cast<const int32_t*>(nullptr),
                                  static_cast<int32_t*>(nullptr), static_cast<int>(n), 0, bits);
  return static_cast<int64_t>(bytes);
}

inline int32_t sort_pairs(avatar_call* call, const uint64_t* keys, uint64_t* sorted_keys, const int32_t* values,
                          int32_t* sorted_values, int64_t n, int bits, void* workspace, int64_t bytes,
                          cudaStream_t stream) {
  size_t size = static_cast<size_t>(bytes);
  return status_of(call, cub::DeviceRadixSort::SortPairs(workspace, size, keys, sorted_keys, values, sorted_values,
                                                         static_cast<int>(n), 0, bits, stream));
}

#endif

}  // namespace AVATAR_ISA
}  // namespace avatar
