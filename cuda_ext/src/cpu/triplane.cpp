// Hash-grid tri-plane features: bilinear lookups on three planes at several resolutions.
//
// The encoder works on blocks of points so that a block's outputs stay in cache while the tables stream by. For each
// slice (plane and level) the cells of a whole block are found first, which compilers vectorise; the lookups that follow
// only load and blend. On a level that is stored densely, neighbours along x are neighbours in memory and come with one
// load. The table gradient is computed one slice at a time by one thread each, in the order of the points: no two
// threads write one slice, hence the same bits for any number of threads.
#include "triplane_cells.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kSlicePoints = 512;  // of the table gradient: their cotangents stay in cache from slice to slice

// Add the gradient by the two coordinates of the plane, in cells.
template <typename T, int kFeatures, bool kDense>
void look_up_slope(const T* grid, const Cells<T>& cells, const Slice& slice, int count, int number, int64_t width,
                   const T* v_out, T* v_x, T* v_y) {
  const int features = kFeatures ? kFeatures : number;
  const T scale = T(0.5) * T(slice.resolution);
  for (int i = 0; i < count; ++i, v_out += width) {
    Vertices<T, kFeatures> v;
    v.template load<kDense>(grid, cells, slice, i, features);
    const T x = cells.x[i], y = cells.y[i];
    T along_x = T(0), along_y = T(0);
    for (int f = 0; f < features; ++f) {
      const T left = v.high[f] - v.low[f], right = v.high[features + f] - v.low[features + f];
      const T top = v.low[features + f] - v.low[f];
      along_x += v_out[f] * (top + y * (right - left));
      along_y += v_out[f] * (left + x * (right - left));
    }
    v_x[i] += scale * along_x;
    v_y[i] += scale * along_y;
  }
}

// Add the gradient by the table, from the slice's own copy of the cotangent.
template <typename T, int kFeatures, bool kDense>
void scatter(const Cells<T>& cells, const Slice& slice, int count, int number, const T* v_slice, T* v_grid) {
  const int features = kFeatures ? kFeatures : number;
  for (int i = 0; i < count; ++i, v_slice += features) {
    const T x = cells.x[i], y = cells.y[i];
    T low[Vertices<T, kFeatures>::kStored], high[Vertices<T, kFeatures>::kStored];
    for (int f = 0; f < features; ++f) {
      low[features + f] = v_slice[f] * x;
      low[f] = v_slice[f] - low[features + f];
    }
    for (int f = 0; f < 2 * features; ++f) {
      high[f] = low[f] * y;
      low[f] -= high[f];
    }
    T* first = v_grid + int64_t(cells.row[0][i]) * features;
    if (kDense) {
      T* below = first + int64_t(slice.side) * features;
      for (int f = 0; f < 2 * features; ++f) low[f] += first[f];
      for (int f = 0; f < 2 * features; ++f) high[f] += below[f];
      for (int f = 0; f < 2 * features; ++f) first[f] = low[f];
      for (int f = 0; f < 2 * features; ++f) below[f] = high[f];
    } else {  // the vertices may share a row
      for (int f = 0; f < features; ++f) {
        first[f] += low[f];
        v_grid[int64_t(cells.row[1][i]) * features + f] += low[features + f];
        v_grid[int64_t(cells.row[2][i]) * features + f] += high[f];
        v_grid[int64_t(cells.row[3][i]) * features + f] += high[features + f];
      }
    }
  }
}

// function(first point, number of points) in blocks.
template <typename Function>
void for_blocks(int threads, int64_t n, const Function& function) {
  parallel_blocks(threads, n, kBlock,
                  [&](int64_t begin, int64_t end) { function(begin, static_cast<int>(end - begin)); });
}

}  // namespace

template <typename T>
void triplane_encode(int threads, const T* points, const T* table, const int32_t* resolutions, int64_t n, int levels,
                     int64_t rows, int features, T* out) {
  const int64_t width = int64_t(3) * levels * features;
  for_blocks(threads, n, [&](int64_t begin, int count) {
    Points<T> block;
    block.load(points + 3 * begin, count);
    Cells<T> cells;
    for (int64_t k = 0; k < 3 * levels; ++k) {
      const Slice slice(k, resolutions, levels, rows);
      cells.find(block, slice, count);
      specialised(features, slice.dense, [&](auto number, auto dense) {
        look_up<T, number(), dense()>(table + k * rows * features, cells, slice, count, features, width,
                                      out + begin * width + k * features);
      });
    }
  });
}

template <typename T>
void triplane_encode_backward(int threads, const T* points, const T* table, const int32_t* resolutions, int64_t n,
                              int levels, int64_t rows, int features, const T* v_out, T* v_points,
                              T* v_table) {
  const int64_t width = int64_t(3) * levels * features;
  if (v_points != nullptr) {
    for_blocks(threads, n, [&](int64_t begin, int count) {
      Points<T> block, v_block = {};
      block.load(points + 3 * begin, count);
      Cells<T> cells;
      for (int64_t k = 0; k < 3 * levels; ++k) {
        const Slice slice(k, resolutions, levels, rows);
        cells.find(block, slice, count);
        specialised(features, slice.dense, [&](auto number, auto dense) {
          look_up_slope<T, number(), dense()>(table + k * rows * features, cells, slice, count, features, width,
                                              v_out + begin * width + k * features,
                                              v_block.axis[kAxes[slice.plane][0]], v_block.axis[kAxes[slice.plane][1]]);
        });
      }
      for (int i = 0; i < count; ++i)
        for (int k = 0; k < 3; ++k) {  // a clamped coordinate has no gradient
          const T x = block.axis[k][i];
          v_points[3 * (begin + i) + k] = x >= T(-1) && x <= T(1) ? v_block.axis[k][i] : T(0);
        }
    });
  }
  if (v_table == nullptr) return;

  const int64_t slices = 3 * levels;
  const int64_t group = slices >= 4 * threads ? slices / (4 * threads) : 1;  // slices that a thread takes at a time
  parallel_blocks(threads, slices, group, [&](int64_t first, int64_t last) {
    for (int64_t i = first * rows * features; i < last * rows * features; ++i) v_table[i] = T(0);
    Points<T> block;
    Cells<T> cells;
    T v_slice[kSlicePoints * kMaxFeatures];
    for (int64_t begin = 0; begin < n; begin += kSlicePoints) {
      const int count = static_cast<int>(n - begin < kSlicePoints ? n - begin : kSlicePoints);
      block.load(points + 3 * begin, count);
      for (int64_t k = first; k < last; ++k) {
        const Slice slice(k, resolutions, levels, rows);
        cells.find(block, slice, count);
        const T* from = v_out + begin * width + k * features;
        for (int i = 0; i < count; ++i)
          for (int f = 0; f < features; ++f) v_slice[i * features + f] = from[i * width + f];
        specialised(features, slice.dense, [&](auto number, auto dense) {
          scatter<T, number(), dense()>(cells, slice, count, features, v_slice, v_table + k * rows * features);
        });
      }
    }
  });
}

#define INSTANTIATE(T)                                                                                                \
  template void triplane_encode<T>(int, const T*, const T*, const int32_t*, int64_t, int, int64_t, int, T*);          \
  template void triplane_encode_backward<T>(int, const T*, const T*, const int32_t*, int64_t, int, int64_t, int,      \
                                            const T*, T*, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
