// Hash-grid tri-plane features: bilinear lookups on three planes at several resolutions.
//
// Forward: one thread per (point, slice), a slice being one level of one plane; neighbouring threads write neighbouring
// features. Table gradient: one warp per 32 points and slice, so that points of one cell, of which there are many on
// coarse levels, are added up within the warp before they meet in memory. Point gradient: one thread per point.
#include "device.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kThreads = 128;
constexpr uint32_t kCrowded = 128;  // up to this resolution points of a warp are likely to share cells

// By value: a host array needs no copy to the device then.
struct Resolutions {
  int32_t level[kMaxLevels];
};

// F numbers that are loaded and stored at once.
template <typename T, int F>
struct alignas(F * sizeof(T)) Pack {
  T value[F];
};

template <typename T>
struct Corners {
  uint32_t row[4];  // 00, 10, 01, 11
  GridCell<T> u, v;
};

template <typename T>
__device__ __forceinline__ Corners<T> corners(const T* point, int plane, uint32_t resolution, uint32_t rows) {
  Corners<T> c;
  c.u = grid_cell(point[plane == 1 ? 1 : 0], resolution);  // xy, yz, xz
  c.v = grid_cell(point[plane == 0 ? 1 : 2], resolution);
  AVATAR_UNROLL
  for (uint32_t k = 0; k < 4; ++k)
    c.row[k] = grid_row(c.u.index + (k & 1u), c.v.index + (k >> 1), resolution, rows);
  return c;
}

// kFeatures = 0: the number of features is an argument, and each is accessed alone.
template <typename T, int kFeatures>
__global__ void __launch_bounds__(kThreads)
    encode_kernel(const T* points, const T* table, Resolutions resolutions, int64_t n, int levels, int64_t rows,
                  int features, T* out) {
  const int64_t item = global_thread();
  const int slices = 3 * levels;
  if (item >= n * slices) return;
  const int64_t point = item / slices;
  const int slice = static_cast<int>(item - point * slices), plane = slice / levels;
  const uint32_t resolution = static_cast<uint32_t>(resolutions.level[slice - plane * levels]);
  const Corners<T> c = corners(points + 3 * point, plane, resolution, static_cast<uint32_t>(rows));
  if constexpr (kFeatures != 0) {
    using Packed = Pack<T, kFeatures>;
    const Packed* grid = reinterpret_cast<const Packed*>(table) + slice * rows;
    const Packed g00 = grid[c.row[0]], g10 = grid[c.row[1]], g01 = grid[c.row[2]], g11 = grid[c.row[3]];
    Packed result;
    AVATAR_UNROLL
    for (int f = 0; f < kFeatures; ++f)
      result.value[f] =
          bilinear(g00.value[f], g10.value[f], g01.value[f], g11.value[f], c.u.fraction, c.v.fraction);
    reinterpret_cast<Packed*>(out)[item] = result;
  } else {
    const T* grid = table + slice * rows * features;
    for (int f = 0; f < features; ++f)
      out[item * features + f] =
          bilinear(grid[int64_t(c.row[0]) * features + f], grid[int64_t(c.row[1]) * features + f],
                   grid[int64_t(c.row[2]) * features + f], grid[int64_t(c.row[3]) * features + f], c.u.fraction,
                   c.v.fraction);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    points_backward_kernel(const T* points, const T* table, Resolutions resolutions, int64_t n, int levels,
                           int64_t rows, int features, const T* v_out, T* v_points) {
  const int64_t i = global_thread();
  if (i >= n) return;
  const T point[3] = {points[3 * i], points[3 * i + 1], points[3 * i + 2]};
  T v_point[3] = {T(0), T(0), T(0)};
  const T* v = v_out + i * 3 * levels * features;
  AVATAR_UNROLL
  for (int plane = 0; plane < 3; ++plane)
    for (int level = 0; level < levels; ++level) {
      const uint32_t resolution = static_cast<uint32_t>(resolutions.level[level]);
      const Corners<T> c = corners(point, plane, resolution, static_cast<uint32_t>(rows));
      const T* grid = table + (plane * levels + level) * rows * features;
      T v_u = T(0), v_v = T(0);
      for (int f = 0; f < features; ++f, ++v) {
        const T g00 = grid[int64_t(c.row[0]) * features + f], g10 = grid[int64_t(c.row[1]) * features + f];
        const T g01 = grid[int64_t(c.row[2]) * features + f], g11 = grid[int64_t(c.row[3]) * features + f];
        v_u += *v * ((T(1) - c.v.fraction) * (g10 - g00) + c.v.fraction * (g11 - g01));
        v_v += *v * ((T(1) - c.u.fraction) * (g01 - g00) + c.u.fraction * (g11 - g10));
      }
      v_point[plane == 1 ? 1 : 0] += v_u * c.u.slope;
      v_point[plane == 0 ? 1 : 2] += v_v * c.v.slope;
    }
  for (int k = 0; k < 3; ++k) v_points[3 * i + k] = v_point[k];
}

// Lanes of a warp that hold the same key, and the sum of their values in the first of them.
struct Peers {
  int rank;         // of this lane among its peers
  unsigned after;   // peers in higher lanes

  __device__ __forceinline__ explicit Peers(uint32_t key) {
    const unsigned all = __match_any_sync(kWholeWarp, key);
    const unsigned below = (1u << (threadIdx.x % kWarp)) - 1u;
    rank = __popc(all & below);
    after = all & ~below & ~(1u << (threadIdx.x % kWarp));
  }

  // Pairs of neighbours are added, then pairs of pairs: as many rounds as the largest group has binary digits.
  template <typename T>
  __device__ __forceinline__ T sum(T value) const {
    int place = rank;
    unsigned left = after;
    while (__any_sync(kWholeWarp, left != 0u)) {
      const int next = __ffs(static_cast<int>(left)) - 1;
      const T other = __shfl_sync(kWholeWarp, value, next < 0 ? 0 : next);
      if (next >= 0) value += other;
      const unsigned taken = __ballot_sync(kWholeWarp, (place & 1) != 0);
      left &= ~taken;
      place >>= 1;
    }
    return value;
  }
};

template <typename T, int kFeatures>
__global__ void __launch_bounds__(kThreads)
    table_backward_kernel(const T* points, Resolutions resolutions, int64_t n, int levels, int64_t rows, int features,
                          const T* v_out, T* v_table) {
  const int64_t i = global_thread();
  const int slice = static_cast<int>(blockIdx.y), plane = slice / levels, slices = 3 * levels;
  const uint32_t resolution = static_cast<uint32_t>(resolutions.level[slice - plane * levels]);
  const int count = kFeatures != 0 ? kFeatures : features;
  const bool exists = i < n;
  Corners<T> c = {};
  if (exists) c = corners(points + 3 * i, plane, resolution, static_cast<uint32_t>(rows));
  const T weight[4] = {(T(1) - c.u.fraction) * (T(1) - c.v.fraction), c.u.fraction * (T(1) - c.v.fraction),
                       (T(1) - c.u.fraction) * c.v.fraction, c.u.fraction * c.v.fraction};
  const T* v = v_out + (i * slices + slice) * count;
  T* v_grid = v_table + slice * rows * count;
  if (resolution <= kCrowded) {  // the same for the whole block
    const Peers peers(exists ? c.v.index * (resolution + 1u) + c.u.index : 0xffffffffu);
    for (int f = 0; f < count; ++f) {
      const T value = exists ? v[f] : T(0);
      AVATAR_UNROLL
      for (int k = 0; k < 4; ++k) {
        const T sum = peers.sum(value * weight[k]);
        if (exists && peers.rank == 0) atomicAdd(v_grid + int64_t(c.row[k]) * count + f, sum);
      }
    }
  } else if (exists) {
    for (int f = 0; f < count; ++f) {
      const T value = v[f];
      AVATAR_UNROLL
      for (int k = 0; k < 4; ++k) atomicAdd(v_grid + int64_t(c.row[k]) * count + f, value * weight[k]);
    }
  }
}

int32_t check_grid(avatar_call* call, const int32_t* resolutions, int32_t levels, int64_t rows, int32_t features,
                   Resolutions* copy) {
  AVATAR_RETURN_IF_BAD(avatar::check_grid(call, resolutions, levels, rows, features));
  *copy = {};
  for (int32_t level = 0; level < levels; ++level) copy->level[level] = resolutions[level];
  return AVATAR_OK;
}

bool aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" {

int32_t avatar_cuda_triplane_encode(avatar_call* call, const void* points, const void* table,
                                    const int32_t* resolutions, int64_t n, int32_t levels, int64_t rows,
                                    int32_t features, void* encoded, void* stream) {
  Resolutions sizes;
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_RETURN_IF_BAD(check_grid(call, resolutions, levels, rows, features, &sizes));
  AVATAR_REQUIRE(table);
  AVATAR_REQUIRE_IF(n, points, encoded);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    if (n == 0) return int32_t(AVATAR_OK);
    const auto packs = [&](int count) {
      return features == count && aligned(table, count * sizeof(T)) && aligned(encoded, count * sizeof(T));
    };
    const auto kernel = packs(1)   ? encode_kernel<T, 1>
                        : packs(2) ? encode_kernel<T, 2>
                        : packs(4) ? encode_kernel<T, 4>
                                   : encode_kernel<T, 0>;
    return launch(call, kernel, blocks_for(n * 3 * levels, kThreads), kThreads, static_cast<cudaStream_t>(stream),
                  in<T>(points), in<T>(table), sizes, n, levels, rows, features, out<T>(encoded));
  });
}

int32_t avatar_cuda_triplane_encode_backward(avatar_call* call, const void* points, const void* table,
                                             const int32_t* resolutions, int64_t n, int32_t levels, int64_t rows,
                                             int32_t features, const void* v_out, void* v_points, void* v_table,
                                             void* stream) {
  Resolutions sizes;
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_RETURN_IF_BAD(check_grid(call, resolutions, levels, rows, features, &sizes));
  AVATAR_REQUIRE(table);
  AVATAR_REQUIRE_IF(n, points, v_out);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    if (v_table != nullptr)
      AVATAR_RETURN_IF_BAD(clear(call, v_table, 3 * levels * rows * features * int64_t(sizeof(T)), on));
    if (n == 0) return int32_t(AVATAR_OK);
    const unsigned blocks = blocks_for(n, kThreads);
    if (v_points != nullptr)
      AVATAR_RETURN_IF_BAD(launch(call, points_backward_kernel<T>, blocks, kThreads, on, in<T>(points), in<T>(table),
                                  sizes, n, levels, rows, features, in<T>(v_out), out<T>(v_points)));
    if (v_table == nullptr) return int32_t(AVATAR_OK);
    const auto kernel = features == 1   ? table_backward_kernel<T, 1>
                        : features == 2 ? table_backward_kernel<T, 2>
                                        : table_backward_kernel<T, 0>;
    return launch(call, kernel, dim3(blocks, static_cast<unsigned>(3 * levels)), kThreads, on, in<T>(points), sizes, n,
                  levels, rows, features, in<T>(v_out), out<T>(v_table));
  });
}

}  // extern "C"
