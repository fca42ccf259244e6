// Samples along rays where an occupancy grid is set: one warp per ray and one lane per interval, 32 intervals at a time.
#include "device_scan.h"

#include "avatar_rays.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kThreads = 128;

// What the count hands on: of each ray the start of its first interval, the number of intervals it keeps, and which.
template <typename T>
struct Kept {
  T* first;
  int32_t *counts, *sums;
  uint16_t* intervals;  // [rays, max_samples]
  void* scan;
  int64_t scan_bytes, bytes;

  Kept(void* workspace, int64_t rays, int max_samples) {
    Carver carver(workspace);
    first = carver.take<T>(rays);
    counts = carver.take<int32_t>(rays + 1);
    sums = carver.take<int32_t>(rays + 1);
    intervals = carver.take<uint16_t>(rays * max_samples);
    scan_bytes = scan_workspace(rays + 1);
    scan = carver.take<char>(scan_bytes);
    bytes = carver.used;
  }
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    walk_kernel(const T* origins, const T* directions, const T* limits, const T* jitter, int64_t rays, RayGrid<T> grid,
                const uint8_t* occupancy, int max_samples, T* first, int32_t* counts, uint16_t* intervals) {
  const int64_t ray = global_thread() / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (ray >= rays) return;  // the whole warp
  const T origin[3] = {origins[3 * ray], origins[3 * ray + 1], origins[3 * ray + 2]};
  const T direction[3] = {directions[3 * ray], directions[3 * ray + 1], directions[3 * ray + 2]};
  const RaySpan<T> span = ray_span(grid, origin, direction, limits != nullptr ? limits + 2 * ray : nullptr,
                                   jitter != nullptr ? jitter + ray : nullptr);
  int count = 0;
  for (int begin = 0; begin < span.steps && count < max_samples; begin += kWarp) {
    const int index = begin + lane;
    const T start = interval_start(grid, span.first, index), end = interval_start(grid, span.first, index + 1);
    const T middle = T(0.5) * (start + end);
    const int32_t x = grid.cell(origin[0] + middle * direction[0], 0);
    const int32_t y = grid.cell(origin[1] + middle * direction[1], 1);
    const int32_t z = grid.cell(origin[2] + middle * direction[2], 2);
    const bool set = (occupancy[(z * grid.height + y) * grid.bytes + (x >> 3)] >> (x & 7) & 1) != 0;
    const unsigned kept = __ballot_sync(kWholeWarp, index < span.steps && middle < span.leave && set);
    const int place = count + __popc(kept & ((1u << lane) - 1u));
    if ((kept >> lane & 1u) != 0u && place < max_samples)
      intervals[ray * max_samples + place] = static_cast<uint16_t>(index);
    count += __popc(kept);
  }
  if (lane == 0) {
    first[ray] = span.first;
    counts[ray] = count < max_samples ? count : max_samples;
  }
}

// Offsets from the sums of the counts, which do not go down: rays from the first on whose samples fit, found by
// bisection, keep theirs.
__global__ void __launch_bounds__(kThreads)
    fit_kernel(const int32_t* sums, int64_t rays, int64_t budget, int32_t* offsets, int32_t* totals) {
  const int64_t i = global_thread();
  if (i > rays) return;
  int64_t low = 0, high = rays;  // sums[low] <= budget
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (sums[middle] <= budget)
      low = middle;
    else
      high = middle - 1;
  }
  offsets[i] = sums[i < low ? i : low];
  if (i == 0) {
    totals[0] = sums[low];
    totals[1] = static_cast<int32_t>(low);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    fill_samples_kernel(const T* first, const uint16_t* intervals, int64_t rays, T step, int max_samples,
                        const int32_t* offsets, T* starts, T* ends) {
  const int64_t ray = global_thread() / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (ray >= rays) return;
  const int32_t begin = offsets[ray], end = offsets[ray + 1];
  for (int32_t i = begin + lane; i < end; i += kWarp) {
    const int32_t interval = intervals[ray * max_samples + (i - begin)];
    starts[i] = first[ray] + T(interval) * step;
    ends[i] = first[ray] + T(interval + 1) * step;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ray_points_kernel(const int32_t* offsets, const T* starts, const T* ends, const T* origins, const T* directions,
                      int64_t rays, T* points) {
  const int64_t ray = global_thread() / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (ray >= rays) return;
  for (int64_t i = offsets[ray] + lane; i < offsets[ray + 1]; i += kWarp) {
    const T middle = T(0.5) * (starts[i] + ends[i]);
    AVATAR_UNROLL
    for (int k = 0; k < 3; ++k) points[3 * i + k] = origins[3 * ray + k] + middle * directions[3 * ray + k];
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ray_points_backward_kernel(const int32_t* offsets, const T* starts, const T* ends, const T* v_points, int64_t rays,
                               T* v_origins, T* v_directions) {
  const int64_t ray = global_thread() / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (ray >= rays) return;
  T sum[3] = {T(0), T(0), T(0)}, sum_along[3] = {T(0), T(0), T(0)};
  for (int64_t i = offsets[ray] + lane; i < offsets[ray + 1]; i += kWarp) {
    const T middle = T(0.5) * (starts[i] + ends[i]);
    AVATAR_UNROLL
    for (int k = 0; k < 3; ++k) {
      sum[k] += v_points[3 * i + k];
      sum_along[k] += middle * v_points[3 * i + k];
    }
  }
  AVATAR_UNROLL
  for (int k = 0; k < 3; ++k) {
    const T total = warp_sum(sum[k]), total_along = warp_sum(sum_along[k]);
    if (lane == 0) {
      v_origins[3 * ray + k] = total;
      v_directions[3 * ray + k] = total_along;
    }
  }
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" {

int64_t avatar_cuda_sample_rays_workspace(int32_t dtype, int64_t rays, int32_t max_samples) {
  if (!avatar::good_ray_samples(rays, max_samples)) return -1;
  return dtype == AVATAR_FLOAT32 ? Kept<float>(nullptr, rays, max_samples).bytes
                                 : Kept<double>(nullptr, rays, max_samples).bytes;
}

int32_t avatar_cuda_sample_rays_count(avatar_call* call, const void* origins, const void* directions,
                                      const void* limits, const void* jitter, int64_t rays, const double* box,
                                      const uint8_t* occupancy, int32_t depth, int32_t height, int32_t bytes,
                                      double step, int32_t max_samples, int64_t budget, int32_t* offsets,
                                      int32_t* totals, void* workspace, void* stream) {
  const avatar::OccupancySizes sizes = {depth, height, bytes};
  AVATAR_RETURN_IF_BAD(check_call(call, rays));
  AVATAR_RETURN_IF_BAD(avatar::check_ray_samples(call, rays, max_samples, step));
  AVATAR_RETURN_IF_BAD(avatar::check_occupancy(call, box, sizes, budget));
  AVATAR_REQUIRE(occupancy, offsets, totals, workspace);
  AVATAR_REQUIRE_IF(rays, origins, directions);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  return with_dtype(call, [&](auto zero) -> int32_t {
    using T = decltype(zero);
    const Kept<T> kept(workspace, rays, max_samples);
    AVATAR_RETURN_IF_BAD(clear(call, kept.counts + rays, sizeof(int32_t), on));
    if (rays > 0)
      AVATAR_RETURN_IF_BAD(launch(call, walk_kernel<T>, blocks_for(rays * kWarp, kThreads), kThreads, on,
                                  in<T>(origins), in<T>(directions), in<T>(limits), in<T>(jitter), rays,
                                  RayGrid<T>(box, sizes, step), occupancy, max_samples, kept.first, kept.counts,
                                  kept.intervals));
    AVATAR_RETURN_IF_BAD(exclusive_sums(call, kept.counts, kept.sums, rays + 1, kept.scan, kept.scan_bytes, on));
    return launch(call, fit_kernel, blocks_for(rays + 1, kThreads), kThreads, on, kept.sums, rays, budget, offsets,
                  totals);
  });
}

int32_t avatar_cuda_sample_rays_fill(avatar_call* call, int64_t rays, double step, int32_t max_samples,
                                     const int32_t* offsets, void* starts, void* ends, void* workspace, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, rays));
  AVATAR_RETURN_IF_BAD(avatar::check_ray_samples(call, rays, max_samples, step));
  AVATAR_REQUIRE_IF(rays, offsets, workspace);
  return with_dtype(call, [&](auto zero) -> int32_t {
    using T = decltype(zero);
    if (rays == 0) return AVATAR_OK;
    const Kept<T> kept(workspace, rays, max_samples);
    return launch(call, fill_samples_kernel<T>, blocks_for(rays * kWarp, kThreads), kThreads,
                  static_cast<cudaStream_t>(stream), kept.first, kept.intervals, rays, T(step), max_samples, offsets,
                  out<T>(starts), out<T>(ends));
  });
}

int32_t avatar_cuda_ray_points(avatar_call* call, const int32_t* offsets, const void* starts, const void* ends,
                               const void* origins, const void* directions, int64_t rays, void* points, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, rays));
  AVATAR_REQUIRE_IF(rays, offsets, origins, directions);
  return with_dtype(call, [&](auto zero) -> int32_t {
    using T = decltype(zero);
    if (rays == 0) return AVATAR_OK;
    return launch(call, ray_points_kernel<T>, blocks_for(rays * kWarp, kThreads), kThreads,
                  static_cast<cudaStream_t>(stream), offsets, in<T>(starts), in<T>(ends), in<T>(origins),
                  in<T>(directions), rays, out<T>(points));
  });
}

int32_t avatar_cuda_ray_points_backward(avatar_call* call, const int32_t* offsets, const void* starts,
                                        const void* ends, const void* v_points, int64_t rays, void* v_origins,
                                        void* v_directions, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, rays));
  AVATAR_REQUIRE_IF(rays, offsets, v_origins, v_directions);
  return with_dtype(call, [&](auto zero) -> int32_t {
    using T = decltype(zero);
    if (rays == 0) return AVATAR_OK;
    return launch(call, ray_points_backward_kernel<T>, blocks_for(rays * kWarp, kThreads), kThreads,
                  static_cast<cudaStream_t>(stream), offsets, in<T>(starts), in<T>(ends), in<T>(v_points), rays,
                  out<T>(v_origins), out<T>(v_directions));
  });
}

}  // extern "C"
