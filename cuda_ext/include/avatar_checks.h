// What every function of the two C ABIs refuses, and the sentences in which it says so: sizes that are negative or beyond
// the index types, and arrays that are null.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "avatar_native.h"

namespace avatar {

constexpr int64_t kMaxCount = int64_t(1) << 24;  // Gaussians, points or rays: lists carry their indices in float lanes
constexpr int64_t kMaxPairs = INT32_MAX;
constexpr int32_t kMaxSide = 16384;  // pixels
constexpr int32_t kMaxChannels = 32;
constexpr int32_t kMaxLevels = 64;
constexpr int32_t kMaxFeatures = 16;
constexpr int32_t kMaxUnits = 1024;

__attribute__((format(printf, 3, 4))) inline int32_t fail(avatar_call* call, avatar_status status, const char* format,
                                                          ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(call->message, sizeof(call->message), format, arguments);
  va_end(arguments);
  return status;
}

#define AVATAR_RETURN_IF_BAD(expression)            \
  do {                                              \
    const int32_t bad_status = (expression);        \
    if (bad_status != AVATAR_OK) return bad_status; \
  } while (false)

inline bool good_count(int64_t n) { return n >= 0 && n <= kMaxCount; }
inline bool good_size(int64_t size, int64_t most) { return size >= 1 && size <= most; }
inline bool good_picture(int32_t width, int32_t height, int32_t channels) {
  return good_size(width, kMaxSide) && good_size(height, kMaxSide) && good_size(channels, kMaxChannels);
}
inline bool good_grid(int32_t levels, int32_t features) {
  return good_size(levels, kMaxLevels) && good_size(features, kMaxFeatures);
}
inline bool good_network(int32_t inputs, int32_t hidden, int32_t outputs) {
  return good_size(inputs, kMaxUnits) && good_size(hidden, kMaxUnits) && good_size(outputs, kMaxUnits);
}

inline int32_t check_call(avatar_call* call, int64_t n) {
  if (call == nullptr) return AVATAR_BAD_ARGUMENT;
  call->message[0] = '\0';
  if (call->dtype != AVATAR_FLOAT32 && call->dtype != AVATAR_FLOAT64)
    return fail(call, AVATAR_BAD_ARGUMENT, "dtype is %d; expected float32 (0) or float64 (1)", int(call->dtype));
  if (call->num_threads < 1)
    return fail(call, AVATAR_BAD_ARGUMENT, "num_threads is %d; expected at least 1", int(call->num_threads));
  if (!good_count(n))
    return fail(call, AVATAR_BAD_ARGUMENT, "there are %lld Gaussians, points or rays; expected 0 to %lld",
                static_cast<long long>(n), static_cast<long long>(kMaxCount));
  return AVATAR_OK;
}

inline int32_t check_channels(avatar_call* call, int32_t channels) {
  if (good_size(channels, kMaxChannels)) return AVATAR_OK;
  return fail(call, AVATAR_BAD_ARGUMENT, "channels is %d; expected 1 to %d", int(channels), int(kMaxChannels));
}

inline int32_t check_picture(avatar_call* call, int32_t width, int32_t height, int32_t channels) {
  if (!good_picture(width, height, 1))
    return fail(call, AVATAR_BAD_ARGUMENT, "width, height are %d, %d; expected 1 to %d pixels each", int(width),
                int(height), int(kMaxSide));
  return check_channels(call, channels);
}

inline int32_t check_grid(avatar_call* call, const int32_t* resolutions, int32_t levels, int64_t rows,
                          int32_t features) {
  if (!good_grid(levels, features))
    return fail(call, AVATAR_BAD_ARGUMENT, "levels, features are %d, %d; expected 1 to %d and 1 to %d", int(levels),
                int(features), int(kMaxLevels), int(kMaxFeatures));
  if (rows < 4 || rows > INT32_MAX)
    return fail(call, AVATAR_BAD_ARGUMENT, "rows is %lld; expected 4 to 2^31-1", static_cast<long long>(rows));
  if (resolutions == nullptr) return fail(call, AVATAR_BAD_ARGUMENT, "resolutions is null");
  for (int32_t level = 0; level < levels; ++level)
    if (!good_size(resolutions[level], 65535))
      return fail(call, AVATAR_BAD_ARGUMENT, "resolutions[%d] is %d; expected 1 to 65535", int(level),
                  int(resolutions[level]));
  return AVATAR_OK;
}

inline int32_t check_network(avatar_call* call, int32_t inputs, int32_t hidden, int32_t outputs) {
  if (good_network(inputs, hidden, outputs)) return AVATAR_OK;
  return fail(call, AVATAR_BAD_ARGUMENT, "inputs, hidden units, outputs are %d, %d, %d; expected 1 to %d each",
              int(inputs), int(hidden), int(outputs), int(kMaxUnits));
}

inline int32_t check_animation(avatar_call* call, int64_t n, int64_t changed, int32_t num_vertices, int32_t warp_rows,
                               int32_t warp_columns) {
  if (changed < 0 || changed > n)
    return fail(call, AVATAR_BAD_ARGUMENT, "changed is %lld; expected 0 to the number of Gaussians, %lld",
                static_cast<long long>(changed), static_cast<long long>(n));
  if (!good_size(num_vertices, kMaxCount))
    return fail(call, AVATAR_BAD_ARGUMENT, "num_vertices is %d; expected 1 to %lld", int(num_vertices),
                static_cast<long long>(kMaxCount));
  if (warp_rows < 2 || warp_columns < 2 || warp_rows > kMaxUnits || warp_columns > kMaxUnits)
    return fail(call, AVATAR_BAD_ARGUMENT, "warp_rows, warp_columns are %d, %d; expected 2 to %d each", int(warp_rows),
                int(warp_columns), int(kMaxUnits));
  return AVATAR_OK;
}

// `names` are the arguments as the call spells them, separated by commas.
inline int32_t check_arrays(avatar_call* call, const char* names, std::initializer_list<const void*> arrays) {
  for (const void* array : arrays) {
    const size_t length = std::strcspn(names, ",");
    if (array == nullptr)
      return fail(call, AVATAR_BAD_ARGUMENT, "%.*s is null; expected an array", static_cast<int>(length), names);
    names += length;
    names += std::strspn(names, ", ");
  }
  return AVATAR_OK;
}

// Refuse null arrays; those of `n` elements may be null when there are none.
#define AVATAR_REQUIRE(...) AVATAR_RETURN_IF_BAD(avatar::check_arrays(call, #__VA_ARGS__, {__VA_ARGS__}))
#define AVATAR_REQUIRE_IF(n, ...) \
  if ((n) > 0) AVATAR_REQUIRE(__VA_ARGS__)

}  // namespace avatar
