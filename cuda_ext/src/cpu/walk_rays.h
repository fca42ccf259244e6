// A walk along a ray through an occupancy grid: intervals are looked up a stretch at a time, their cells first, which
// compilers vectorise.
#pragma once

#include "avatar_rays.h"
#include "common.h"

namespace avatar {
namespace AVATAR_ISA {

constexpr int kStretch = 32;  // intervals looked up at once

// Indices of the intervals from `begin` on, a stretch of them, that are kept, `most` of them; returns their number.
template <typename T>
int walk_stretch(const RayGrid<T>& grid, const uint8_t* occupancy, const T* origin, const T* direction,
                 const RaySpan<T>& span, int begin, int most, uint16_t* kept) {
  const int length = span.steps - begin < kStretch ? span.steps - begin : kStretch;
  int32_t byte[kStretch], bit[kStretch];
  bool inside[kStretch];
  for (int i = 0; i < kStretch; ++i) {
    const T start = interval_start(grid, span.first, begin + i), end = interval_start(grid, span.first, begin + i + 1);
    const T middle = T(0.5) * (start + end);
    const int32_t x = grid.cell(origin[0] + middle * direction[0], 0);
    const int32_t y = grid.cell(origin[1] + middle * direction[1], 1);
    const int32_t z = grid.cell(origin[2] + middle * direction[2], 2);
    byte[i] = (z * grid.height + y) * grid.bytes + (x >> 3);
    bit[i] = x & 7;
    inside[i] = middle < span.leave;
  }
  int count = 0;
  for (int i = 0; i < length; ++i)
    if (inside[i] && (occupancy[byte[i]] >> bit[i] & 1) != 0) {
      kept[count] = static_cast<uint16_t>(begin + i);
      if (++count == most) break;
    }
  return count;
}

}  // namespace AVATAR_ISA
}  // namespace avatar
