// Rays through an occupancy grid, for the CPU and CUDA; see avatar_native.h.
#pragma once

#include "avatar_checks.h"
#include "avatar_math.h"

namespace avatar {

constexpr int32_t kMaxSteps = 4096;  // intervals of a ray
constexpr int32_t kMaxCells = 1024;  // cells or bytes along a side

// Sizes of the grid; `bytes` are those of a row of cells along x.
struct OccupancySizes {
  int32_t depth, height, bytes;
};

inline bool good_ray_samples(int64_t rays, int32_t max_samples) {
  return good_count(rays) && good_size(max_samples, kMaxSteps) && rays * max_samples <= INT32_MAX;
}

inline int32_t check_ray_samples(avatar_call* call, int64_t rays, int32_t max_samples, double step) {
  if (!good_ray_samples(rays, max_samples))
    return fail(call, AVATAR_BAD_ARGUMENT,
                "rays, max_samples are %lld, %d; expected 1 to %d samples, fewer than 2^31 in all",
                static_cast<long long>(rays), int(max_samples), int(kMaxSteps));
  if (!(step > 0.0)) return fail(call, AVATAR_BAD_ARGUMENT, "step is %g; expected more than 0", step);
  return AVATAR_OK;
}

inline int32_t check_box(avatar_call* call, const char* name, const double* box) {
  if (box == nullptr) return fail(call, AVATAR_BAD_ARGUMENT, "%s is null; expected an array", name);
  for (int axis = 0; axis < 3; ++axis)
    if (!(box[axis] < box[3 + axis]))
      return fail(call, AVATAR_BAD_ARGUMENT, "%s is %g to %g along axis %d; expected a lower and an upper corner", name,
                  box[axis], box[3 + axis], axis);
  return AVATAR_OK;
}

inline int32_t check_occupancy(avatar_call* call, const double* box, const OccupancySizes& s, int64_t budget) {
  if (!good_size(s.depth, kMaxCells) || !good_size(s.height, kMaxCells) || !good_size(s.bytes, kMaxCells))
    return fail(call, AVATAR_BAD_ARGUMENT, "depth, height, bytes are %d, %d, %d; expected 1 to %d each", int(s.depth),
                int(s.height), int(s.bytes), int(kMaxCells));
  if (budget < 1)
    return fail(call, AVATAR_BAD_ARGUMENT, "budget is %lld; expected at least 1", static_cast<long long>(budget));
  return check_box(call, "box", box);
}

namespace AVATAR_ISA {

// The box, its cells, and the step along all rays.
template <typename T>
struct RayGrid {
  T low[3], high[3], cells_per_cm[3], last[3];  // last: index of the last cell
  int32_t height, bytes;
  T step;

  RayGrid(const double* box, const OccupancySizes& s, double interval)
      : height(s.height), bytes(s.bytes), step(T(interval)) {
    const int32_t cells[3] = {8 * s.bytes, s.height, s.depth};
    for (int i = 0; i < 3; ++i) {
      low[i] = T(box[i]);
      high[i] = T(box[3 + i]);
      cells_per_cm[i] = T(cells[i] / (box[3 + i] - box[i]));
      last[i] = T(cells[i] - 1);
    }
  }

  // Index of a point's cell along an axis; points outside take the nearest, NaN the first.
  AVATAR_HD int32_t cell(T at, int axis) const {
    return static_cast<int32_t>(at_most(at_least((at - low[axis]) * cells_per_cm[axis], T(0)), last[axis]));
  }
};

// Where a ray's first interval starts, where the ray leaves, and how many intervals may start before.
template <typename T>
struct RaySpan {
  T first, leave;
  int32_t steps;
};

template <typename T>
AVATAR_HD RaySpan<T> ray_span(const RayGrid<T>& grid, const T* origin, const T* direction, const T* limits,
                              const T* jitter) {
  T enter = T(0), leave = limits != nullptr ? limits[1] : T(0);
  bool good = leave == leave, limited = limits != nullptr;
  for (int i = 0; i < 3; ++i) {
    const T a = (grid.low[i] - origin[i]) / direction[i], b = (grid.high[i] - origin[i]) / direction[i];
    const T near = a < b ? a : b, far = a < b ? b : a;
    good = good && a == a && b == b;
    enter = near > enter ? near : enter;
    leave = limited && !(far < leave) ? leave : far;
    limited = true;
  }
  if (limits != nullptr) {
    good = good && limits[0] == limits[0];
    enter = limits[0] > enter ? limits[0] : enter;
  }
  RaySpan<T> span;
  span.first = jitter != nullptr ? enter + *jitter * grid.step : enter;
  span.leave = leave;
  const T steps = (leave - span.first) / grid.step;  // NaN: none
  span.steps = good && steps > T(0) ? (steps < T(kMaxSteps) ? static_cast<int32_t>(steps) + 1 : kMaxSteps) : 0;
  return span;
}

template <typename T>
AVATAR_HD T interval_start(const RayGrid<T>& grid, T first, int32_t index) {
  return first + T(index) * grid.step;
}

}  // namespace AVATAR_ISA
}  // namespace avatar
