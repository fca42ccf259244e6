// Hash-grid tri-plane features: bilinear lookups on three planes at several resolutions.
//
// The encoder works on blocks of points so that a block's outputs stay in cache while the tables stream by. The table
// gradient is computed one (plane, level) slice at a time by one thread each, in the order of the points: no two threads
// write one slice, hence the same bits for any number of threads.
#include "common.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int64_t kBlock = 512;
constexpr int kAxes[3][2] = {{0, 1}, {1, 2}, {0, 2}};  // xy, yz, xz

template <typename T>
struct Corners {
  uint32_t row[4];  // 00, 10, 01, 11
  GridCell<T> u, v;
};

template <typename T>
AVATAR_HD Corners<T> corners(const T* point, int plane, uint32_t resolution, uint32_t rows) {
  Corners<T> c;
  c.u = grid_cell(point[kAxes[plane][0]], resolution);
  c.v = grid_cell(point[kAxes[plane][1]], resolution);
  for (uint32_t k = 0; k < 4; ++k)
    c.row[k] = grid_row(c.u.index + (k & 1u), c.v.index + (k >> 1), resolution, rows);
  return c;
}

}  // namespace

template <typename T>
void triplane_encode(int threads, const T* points, const T* table, const int32_t* resolutions, int64_t n, int levels,
                     int64_t rows, int features, T* out) {
  const int64_t width = int64_t(3) * levels * features;
  parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
    for (int slice = 0; slice < 3 * levels; ++slice) {
      const uint32_t resolution = static_cast<uint32_t>(resolutions[slice % levels]);
      const T* grid = table + slice * rows * features;
      for (int64_t i = begin; i < end; ++i) {
        const Corners<T> c = corners(points + 3 * i, slice / levels, resolution, static_cast<uint32_t>(rows));
        for (int f = 0; f < features; ++f)
          out[i * width + slice * features + f] =
              bilinear(grid[int64_t(c.row[0]) * features + f], grid[int64_t(c.row[1]) * features + f],
                       grid[int64_t(c.row[2]) * features + f], grid[int64_t(c.row[3]) * features + f], c.u.fraction,
                       c.v.fraction);
      }
    }
  });
}

template <typename T>
int64_t triplane_workspace(int64_t n, int levels, int features) {
  return n * 3 * levels * features * static_cast<int64_t>(sizeof(T));
}

template <typename T>
void triplane_encode_backward(int threads, const T* points, const T* table, const int32_t* resolutions, int64_t n,
                              int levels, int64_t rows, int features, const T* v_out, T* v_points, T* v_table,
                              T* workspace) {
  const int64_t width = int64_t(3) * levels * features;
  if (v_points != nullptr) {
    parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
      for (int64_t i = 3 * begin; i < 3 * end; ++i) v_points[i] = T(0);
      for (int slice = 0; slice < 3 * levels; ++slice) {
        const uint32_t resolution = static_cast<uint32_t>(resolutions[slice % levels]);
        const int* axes = kAxes[slice / levels];
        const T* grid = table + slice * rows * features;
        for (int64_t i = begin; i < end; ++i) {
          const Corners<T> c = corners(points + 3 * i, slice / levels, resolution, static_cast<uint32_t>(rows));
          T v_u = T(0), v_v = T(0);
          for (int f = 0; f < features; ++f) {
            const T v = v_out[i * width + slice * features + f];
            const T g00 = grid[int64_t(c.row[0]) * features + f], g10 = grid[int64_t(c.row[1]) * features + f];
            const T g01 = grid[int64_t(c.row[2]) * features + f], g11 = grid[int64_t(c.row[3]) * features + f];
            v_u += v * ((T(1) - c.v.fraction) * (g10 - g00) + c.v.fraction * (g11 - g01));
            v_v += v * ((T(1) - c.u.fraction) * (g01 - g00) + c.u.fraction * (g11 - g10));
          }
          v_points[3 * i + axes[0]] += v_u * c.u.slope;
          v_points[3 * i + axes[1]] += v_v * c.v.slope;
        }
      }
    });
  }
  if (v_table == nullptr) return;

  // Slice-major copy of the cotangent, so that a slice reads it densely.
  parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t k = 0; k < width; ++k)
        workspace[(k / features * n + i) * features + k % features] = v_out[i * width + k];
  });
  parallel_for(threads, 3 * levels, [&](int64_t slice, int) {
    const uint32_t resolution = static_cast<uint32_t>(resolutions[slice % levels]);
    const T* v_slice = workspace + slice * n * features;
    T* v_grid = v_table + slice * rows * features;
    for (int64_t i = 0; i < rows * features; ++i) v_grid[i] = T(0);
    for (int64_t i = 0; i < n; ++i) {
      const Corners<T> c =
          corners(points + 3 * i, static_cast<int>(slice) / levels, resolution, static_cast<uint32_t>(rows));
      for (int f = 0; f < features; ++f) {
        const T v = v_slice[i * features + f];
        const T right = v * c.u.fraction, left = v - right;
        v_grid[int64_t(c.row[0]) * features + f] += left * (T(1) - c.v.fraction);
        v_grid[int64_t(c.row[1]) * features + f] += right * (T(1) - c.v.fraction);
        v_grid[int64_t(c.row[2]) * features + f] += left * c.v.fraction;
        v_grid[int64_t(c.row[3]) * features + f] += right * c.v.fraction;
      }
    }
  });
}

#define INSTANTIATE(T)                                                                                                \
  template void triplane_encode<T>(int, const T*, const T*, const int32_t*, int64_t, int, int64_t, int, T*);          \
  template int64_t triplane_workspace<T>(int64_t, int, int);                                                          \
  template void triplane_encode_backward<T>(int, const T*, const T*, const int32_t*, int64_t, int, int64_t, int,      \
                                            const T*, T*, T*, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
