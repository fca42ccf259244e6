// A radiance field as avatar_draw_field is given it, and what is refused; see avatar_native.h.
#pragma once

#include "avatar_radiance.h"
#include "avatar_rays.h"

namespace avatar {

constexpr int32_t kMaxNodes = 1024;  // of the front or of the displacements, along a side

// Arrays that are void hold float or double, as the call says.
struct FieldScene {
  const double* view;  // [12] origin, then the matrix that makes directions of pixels (x, y, 1), row by row
  int32_t x, y, width, height;
  const void* places;  // [height, width, 2], or null
  const double *box, *held;
  const uint8_t* occupancy;
  OccupancySizes cells;
  double step, darkest;
  int32_t max_samples;
  const void* front;  // [front_rows, front_columns]
  int32_t front_rows, front_columns;
  double rise;
  const double* neck;  // [4]
  const void* moved;   // [3, nodes of z, y, x]
  int32_t nodes[3];    // x, y, z
  const double* moved_box;
  const double* bounds;
  const void* table;
  const int32_t* resolutions;
  int32_t levels, features;
  int64_t rows;
  RadianceSizes network;
  const void* parameters;
};

// Sizes first, then arrays: a size that is refused is named even where all arrays are missing.
inline int32_t check_field(avatar_call* call, const FieldScene& s) {
  AVATAR_RETURN_IF_BAD(check_ray_samples(call, int64_t(s.width) * s.height, s.max_samples, s.step));
  if (!good_size(s.front_rows, kMaxNodes) || !good_size(s.front_columns, kMaxNodes))
    return fail(call, AVATAR_BAD_ARGUMENT, "front_rows, front_columns are %d, %d; expected 1 to %d each",
                int(s.front_rows), int(s.front_columns), int(kMaxNodes));
  for (int32_t nodes : s.nodes)
    if (nodes < 2 || nodes > kMaxNodes)
      return fail(call, AVATAR_BAD_ARGUMENT, "there are %d nodes along a side; expected 2 to %d", int(nodes),
                  int(kMaxNodes));
  AVATAR_RETURN_IF_BAD(check_radiance(call, s.network));
  if (s.network.inputs != 3 * s.levels * s.features)
    return fail(call, AVATAR_BAD_ARGUMENT, "inputs is %d; expected %d, as many as the tri-plane has features",
                int(s.network.inputs), int(3 * s.levels * s.features));
  if (!(s.rise > 0.0)) return fail(call, AVATAR_BAD_ARGUMENT, "rise is %g; expected more than 0", s.rise);
  AVATAR_RETURN_IF_BAD(check_occupancy(call, s.box, s.cells, 1));
  AVATAR_RETURN_IF_BAD(check_box(call, "held", s.held));
  AVATAR_RETURN_IF_BAD(check_box(call, "moved_box", s.moved_box));
  return check_box(call, "bounds", s.bounds);
}

}  // namespace avatar
