// Samples along rays where an occupancy grid is set: each ray's intervals are looked up a stretch at a time, their cells
// first, which compilers vectorise. Places of samples follow from the counts of all rays, added up in order.
#include "walk_rays.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int64_t kRays = 64;   // per work item

// What avatar_sample_rays_count hands on: of each ray the start of its first interval, and the intervals it keeps.
template <typename T>
struct Kept {
  T* first;
  int32_t* counts;
  uint16_t* intervals;  // [rays, max_samples]

  Kept(void* workspace, int64_t rays) {
    first = static_cast<T*>(workspace);
    counts = reinterpret_cast<int32_t*>(first + rays);
    intervals = reinterpret_cast<uint16_t*>(counts + rays);
  }
};

// Indices of the intervals that are kept; returns their number.
template <typename T>
int walk(const RayGrid<T>& grid, const uint8_t* occupancy, const T* origin, const T* direction, const RaySpan<T>& span,
         int max_samples, uint16_t* kept) {
  int count = 0;
  for (int begin = 0; begin < span.steps && count < max_samples; begin += kStretch)
    count += walk_stretch(grid, occupancy, origin, direction, span, begin, max_samples - count, kept + count);
  return count;
}

}  // namespace

template <typename T>
int64_t sample_rays_workspace(int64_t rays, int max_samples) {
  return rays * (int64_t(sizeof(T)) + int64_t(sizeof(int32_t)) + max_samples * int64_t(sizeof(uint16_t)));
}

template <typename T>
void sample_rays_count(int threads, const T* origins, const T* directions, const T* limits, const T* jitter,
                       int64_t rays, const double* box, const uint8_t* occupancy, const OccupancySizes& sizes,
                       double step, int max_samples, int64_t budget, int32_t* offsets, int32_t* totals,
                       void* workspace) {
  const RayGrid<T> grid(box, sizes, step);
  const Kept<T> kept(workspace, rays);
  parallel_blocks(threads, rays, kRays, [&](int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) {
      const T *origin = origins + 3 * ray, *direction = directions + 3 * ray;
      const RaySpan<T> span = ray_span(grid, origin, direction, limits != nullptr ? limits + 2 * ray : nullptr,
                                       jitter != nullptr ? jitter + ray : nullptr);
      kept.first[ray] = span.first;
      kept.counts[ray] =
          walk(grid, occupancy, origin, direction, span, max_samples, kept.intervals + ray * max_samples);
    }
  });
  int64_t sum = 0, complete = 0;
  for (; complete < rays && sum + kept.counts[complete] <= budget; ++complete) {
    offsets[complete] = static_cast<int32_t>(sum);
    sum += kept.counts[complete];
  }
  for (int64_t ray = complete; ray <= rays; ++ray) offsets[ray] = static_cast<int32_t>(sum);
  totals[0] = static_cast<int32_t>(sum);
  totals[1] = static_cast<int32_t>(complete);
}

template <typename T>
void sample_rays_fill(int threads, int64_t rays, double step, int max_samples, const int32_t* offsets, T* starts,
                      T* ends, void* workspace) {
  const Kept<T> kept(workspace, rays);
  const T length = T(step);
  parallel_blocks(threads, rays, kRays, [&](int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) {
      const uint16_t* interval = kept.intervals + ray * max_samples;
      for (int32_t i = offsets[ray]; i < offsets[ray + 1]; ++i, ++interval) {
        starts[i] = kept.first[ray] + T(*interval) * length;
        ends[i] = kept.first[ray] + T(*interval + 1) * length;
      }
    }
  });
}

template <typename T>
void ray_points(int threads, const int32_t* offsets, const T* starts, const T* ends, const T* origins,
                const T* directions, int64_t rays, T* points) {
  parallel_blocks(threads, rays, kRays, [&](int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray)
      for (int64_t i = offsets[ray]; i < offsets[ray + 1]; ++i)
        for (int k = 0; k < 3; ++k)
          points[3 * i + k] = origins[3 * ray + k] + T(0.5) * (starts[i] + ends[i]) * directions[3 * ray + k];
  });
}

template <typename T>
void ray_points_backward(int threads, const int32_t* offsets, const T* starts, const T* ends, const T* v_points,
                         int64_t rays, T* v_origins, T* v_directions) {
  parallel_blocks(threads, rays, kRays, [&](int64_t begin, int64_t end) {
    for (int64_t ray = begin; ray < end; ++ray) {
      T sum[3] = {}, sum_along[3] = {};
      for (int64_t i = offsets[ray]; i < offsets[ray + 1]; ++i) {
        const T middle = T(0.5) * (starts[i] + ends[i]);
        for (int k = 0; k < 3; ++k) {
          sum[k] += v_points[3 * i + k];
          sum_along[k] += middle * v_points[3 * i + k];
        }
      }
      for (int k = 0; k < 3; ++k) {
        v_origins[3 * ray + k] = sum[k];
        v_directions[3 * ray + k] = sum_along[k];
      }
    }
  });
}

#define INSTANTIATE(T)                                                                                               \
  template int64_t sample_rays_workspace<T>(int64_t, int);                                                           \
  template void sample_rays_count<T>(int, const T*, const T*, const T*, const T*, int64_t, const double*,            \
                                     const uint8_t*, const OccupancySizes&, double, int, int64_t, int32_t*,          \
                                     int32_t*, void*);                                                               \
  template void sample_rays_fill<T>(int, int64_t, double, int, const int32_t*, T*, T*, void*);                       \
  template void ray_points<T>(int, const int32_t*, const T*, const T*, const T*, const T*, int64_t, T*);             \
  template void ray_points_backward<T>(int, const int32_t*, const T*, const T*, const T*, int64_t, T*, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
