// Volume rendering along rays (Max 1995); the mathematics is in avatar_math.h. A block of rays is one work item. The
// opacities of a stretch of samples come from whole registers, what the light loses on its way is a running product.
#include "common.h"
#include "window.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int64_t kRays = 64;     // per work item
constexpr int kStretch = 64;      // samples whose opacities are computed at once
constexpr int kMostChannels = 32;

// Opacities of `count` samples, at most kStretch.
template <typename T>
void sample_opacities(const T* starts, const T* ends, const T* densities, int64_t count, T* alphas) {
  using V = Lanes<T>;
  for (int64_t i = 0; i < count; i += V::kCount) {
    const int64_t left = count - i;
    const V length = load_part(ends + i, left) - load_part(starts + i, left);
    opacity_of(load_part(densities + i, left) * length).store(alphas + i);
  }
}

// kChannels: 3 is exact, 0 stands for `number`.
template <typename T, int kChannels>
void march_block(const int32_t* offsets, const T* starts, const T* ends, const T* densities, const T* colors,
                 int64_t first_ray, int64_t end_ray, int number, T* color, T* opacity, T* depth, T* transmittance) {
  const int channels = kChannels ? kChannels : number;
  T alphas[kStretch];
  for (int64_t ray = first_ray; ray < end_ray; ++ray) {
    T left = T(1), sum = T(0), sum_depth = T(0), sum_color[kChannels ? kChannels : kMostChannels] = {};
    for (int64_t from = offsets[ray]; from < offsets[ray + 1]; from += kStretch) {
      const int64_t count = offsets[ray + 1] - from < kStretch ? offsets[ray + 1] - from : kStretch;
      sample_opacities(starts + from, ends + from, densities + from, count, alphas);
      for (int64_t k = 0; k < count; ++k) {
        const int64_t i = from + k;
        const T weight = left * alphas[k];
        transmittance[i] = left;
        sum += weight;
        sum_depth += weight * T(0.5) * (starts[i] + ends[i]);
        for (int c = 0; c < channels; ++c) sum_color[c] += weight * colors[i * channels + c];
        left -= weight;
      }
    }
    opacity[ray] = sum;
    depth[ray] = sum_depth / at_least(sum, spacing<T>());
    for (int c = 0; c < channels; ++c) color[ray * channels + c] = sum_color[c];
  }
}

template <typename T, int kChannels>
void march_backward_block(const int32_t* offsets, const T* starts, const T* ends, const T* densities, const T* colors,
                          int64_t first_ray, int64_t end_ray, int number, const T* opacity, const T* depth,
                          const T* transmittance, const T* v_color, const T* v_opacity, const T* v_depth,
                          T* v_densities, T* v_colors) {
  const int channels = kChannels ? kChannels : number;
  T alphas[kStretch];
  for (int64_t ray = first_ray; ray < end_ray; ++ray) {
    const RayCotangent<T> v = ray_cotangent(opacity[ray], depth[ray], v_opacity[ray], v_depth[ray]);
    const T* v_c = v_color + ray * channels;
    const int64_t begin = offsets[ray];
    T behind = T(0);  // sum of weight * g over the samples behind
    for (int64_t to = offsets[ray + 1]; to > begin; to -= kStretch) {
      const int64_t from = to - begin < kStretch ? begin : to - kStretch;
      sample_opacities(starts + from, ends + from, densities + from, to - from, alphas);
      for (int64_t i = to - 1; i >= from; --i) {
        const T weight = transmittance[i] * alphas[i - from];
        T g = v.of_weight(T(0.5) * (starts[i] + ends[i]));
        for (int c = 0; c < channels; ++c) {
          g += v_c[c] * colors[i * channels + c];
          v_colors[i * channels + c] = weight * v_c[c];
        }
        v_densities[i] = (ends[i] - starts[i]) * ((transmittance[i] - weight) * g - behind);
        behind += weight * g;
      }
    }
  }
}

}  // namespace

template <typename T>
void march_rays(int threads, const int32_t* offsets, const T* starts, const T* ends, const T* densities, const T* colors,
           int64_t rays, int channels, T* color, T* opacity, T* depth, T* transmittance) {
  const auto block = channels == 3 ? march_block<T, 3> : march_block<T, 0>;
  parallel_blocks(threads, rays, kRays, [&](int64_t begin, int64_t end) {
    block(offsets, starts, ends, densities, colors, begin, end, channels, color, opacity, depth, transmittance);
  });
}

template <typename T>
void march_rays_backward(int threads, const int32_t* offsets, const T* starts, const T* ends, const T* densities,
                    const T* colors, int64_t rays, int channels, const T* opacity, const T* depth,
                    const T* transmittance, const T* v_color, const T* v_opacity, const T* v_depth, T* v_densities,
                    T* v_colors) {
  const auto block = channels == 3 ? march_backward_block<T, 3> : march_backward_block<T, 0>;
  parallel_blocks(threads, rays, kRays, [&](int64_t begin, int64_t end) {
    block(offsets, starts, ends, densities, colors, begin, end, channels, opacity, depth, transmittance, v_color,
          v_opacity, v_depth, v_densities, v_colors);
  });
}

#define INSTANTIATE(T)                                                                                              \
  template void march_rays<T>(int, const int32_t*, const T*, const T*, const T*, const T*, int64_t, int, T*, T*, T*, T*); \
  template void march_rays_backward<T>(int, const int32_t*, const T*, const T*, const T*, const T*, int64_t, int,         \
                                  const T*, const T*, const T*, const T*, const T*, const T*, T*, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
