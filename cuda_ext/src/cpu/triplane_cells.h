// Lookups in a hash-grid tri-plane: the cells of a block of points in one slice (a plane at one level), and their features.
#pragma once

#include <type_traits>

#include "common.h"

namespace avatar {
namespace AVATAR_ISA {

constexpr int kBlock = 1024;
constexpr int kMaxFeatures = 16;
constexpr int kAxes[3][2] = {{0, 1}, {1, 2}, {0, 2}};  // xy, yz, xz

// Coordinates of a block of points, side by side.
template <typename T>
struct Points {
  T axis[3][kBlock];

  void load(const T* points, int count) {
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < 3; ++k) axis[k][i] = points[3 * i + k];
  }
};

// One plane at one resolution. On a dense slice the row below is `side` further in the table.
struct Slice {
  int plane, level;
  uint32_t resolution, rows, side;
  bool dense;

  Slice(int64_t slice, const int32_t* resolutions, int levels, int64_t table_rows)
      : plane(static_cast<int>(slice) / levels),
        level(static_cast<int>(slice) % levels),
        resolution(static_cast<uint32_t>(resolutions[level])),
        rows(static_cast<uint32_t>(table_rows)),
        side(resolution + 1u),
        dense(uint64_t(side) * side <= rows) {}
};

// The cells of a block of points in one slice: table rows of the vertices 00, 10, 01, 11 (only the first where the slice
// is dense) and the place within the cell.
template <typename T>
struct Cells {
  uint32_t row[4][kBlock];
  T x[kBlock], y[kBlock];

  void find(const Points<T>& points, const Slice& slice, int count) {
    uint32_t* __restrict column = row[1];
    uint32_t* __restrict line = row[2];
    place(points.axis[kAxes[slice.plane][0]], slice.resolution, count, column, x);
    place(points.axis[kAxes[slice.plane][1]], slice.resolution, count, line, y);
    if (slice.dense) {
      for (int i = 0; i < count; ++i) row[0][i] = line[i] * slice.side + column[i];
      return;
    }
    const bool power_of_two = (slice.rows & (slice.rows - 1u)) == 0u;
    for (int i = 0; i < count; ++i) {
      const uint32_t left = column[i], right = left + 1u;
      const uint32_t top = line[i] * 2654435761u, bottom = top + 2654435761u;  // as in grid_row
      row[0][i] = left ^ top;
      row[1][i] = right ^ top;
      row[2][i] = left ^ bottom;
      row[3][i] = right ^ bottom;
    }
    for (auto& corner : row)
      for (int i = 0; i < count; ++i)
        corner[i] = power_of_two ? corner[i] & (slice.rows - 1u) : corner[i] % slice.rows;
  }

 private:
  static void place(const T* __restrict at, uint32_t resolution, int count, uint32_t* __restrict index,
                    T* __restrict fraction) {
    const T half = T(0.5) * T(resolution);
    const int32_t largest = static_cast<int32_t>(resolution) - 1;
    for (int i = 0; i < count; ++i) {
      const T position = (at_most(at_least(at[i], T(-1)), T(1)) + T(1)) * half;
      int32_t cell = static_cast<int32_t>(position);
      cell = cell < largest ? cell : largest;
      index[i] = static_cast<uint32_t>(cell);
      fraction[i] = at[i] == at[i] ? position - T(cell) : at[i];  // a NaN shows in the features
    }
  }
};

// Features of the vertices 00 and 10 (`low`), 01 and 11 (`high`).
template <typename T, int kFeatures>
struct Vertices {
  static constexpr int kStored = 2 * (kFeatures ? kFeatures : kMaxFeatures);
  T low[kStored], high[kStored];

  template <bool kDense>
  AVATAR_HD void load(const T* grid, const Cells<T>& cells, const Slice& slice, int i, int features) {
    const int64_t first = int64_t(cells.row[0][i]) * features;
    if (kDense) {
      for (int f = 0; f < 2 * features; ++f) {
        low[f] = grid[first + f];
        high[f] = grid[first + int64_t(slice.side) * features + f];
      }
    } else {
      for (int f = 0; f < features; ++f) {
        low[f] = grid[first + f];
        low[features + f] = grid[int64_t(cells.row[1][i]) * features + f];
        high[f] = grid[int64_t(cells.row[2][i]) * features + f];
        high[features + f] = grid[int64_t(cells.row[3][i]) * features + f];
      }
    }
  }
};

template <typename T, int kFeatures, bool kDense>
void look_up(const T* grid, const Cells<T>& cells, const Slice& slice, int count, int number, int64_t width, T* out) {
  const int features = kFeatures ? kFeatures : number;
  for (int i = 0; i < count; ++i, out += width) {
    Vertices<T, kFeatures> v;
    v.template load<kDense>(grid, cells, slice, i, features);
    const T x = cells.x[i], y = cells.y[i];
    for (int f = 0; f < 2 * features; ++f) v.low[f] += y * (v.high[f] - v.low[f]);
    for (int f = 0; f < features; ++f) out[f] = v.low[f] + x * (v.low[features + f] - v.low[f]);
  }
}

// Call function(features, dense) with compile-time constants; features = 0 stands for any other number.
template <typename Function>
AVATAR_HD void specialised(int features, bool dense, const Function& function) {
  const auto with_layout = [&](auto number) {
    if (dense)
      function(number, std::true_type());
    else
      function(number, std::false_type());
  };
  if (features == 1)
    with_layout(std::integral_constant<int, 1>());
  else if (features == 2)
    with_layout(std::integral_constant<int, 2>());
  else
    with_layout(std::integral_constant<int, 0>());
}

}  // namespace AVATAR_ISA
}  // namespace avatar
