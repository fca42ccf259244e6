// Volume rendering along rays, one warp per ray and one lane per sample, 32 samples at a time; the mathematics is in
// avatar_math.h.
#include "device.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kThreads = 128;

// kChannels: 3 is exact, 32 is an upper bound.
template <typename T, int kChannels>
__global__ void __launch_bounds__(kThreads)
    march_rays_kernel(const int32_t* offsets, const T* starts, const T* ends, const T* densities, const T* colors,
                 int64_t rays, int channel_count, T* color, T* opacity, T* depth, T* transmittance) {
  const int64_t ray = global_thread() / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, channels = kChannels == 3 ? 3 : channel_count;
  if (ray >= rays) return;  // the whole warp
  const int64_t begin = offsets[ray], end = offsets[ray + 1];
  T before = T(0), sum = T(0), sum_depth = T(0), sum_color[kChannels];
  AVATAR_UNROLL
  for (int c = 0; c < kChannels; ++c) sum_color[c] = T(0);
  for (int64_t base = begin; base < end; base += kWarp) {
    const int64_t i = base + lane;
    const bool exists = i < end;
    const T low = exists ? starts[i] : T(0), high = exists ? ends[i] : T(0);
    const T tau = exists ? densities[i] * (high - low) : T(0);
    T inclusive = tau;
    AVATAR_UNROLL
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const T other = __shfl_up_sync(kWholeWarp, inclusive, distance);
      if (lane >= distance) inclusive += other;
    }
    const T previous = __shfl_up_sync(kWholeWarp, inclusive, 1);
    const T t = exp_negative(before + (lane > 0 ? previous : T(0)));
    before += __shfl_sync(kWholeWarp, inclusive, kWarp - 1);
    if (!exists) continue;  // on the last round only; the warp meets again behind the loop
    const T weight = t * opacity_of(tau);
    transmittance[i] = t;
    sum += weight;
    sum_depth += weight * T(0.5) * (low + high);
    AVATAR_UNROLL
    for (int c = 0; c < kChannels; ++c)
      if (c < channels) sum_color[c] += weight * colors[i * channels + c];
  }
  sum = warp_sum(sum);
  sum_depth = warp_sum(sum_depth);
  if (lane == 0) {
    opacity[ray] = sum;
    depth[ray] = sum_depth / at_least(sum, spacing<T>());
  }
  AVATAR_UNROLL
  for (int c = 0; c < kChannels; ++c) {
    if (c >= channels) break;
    const T total = warp_sum(sum_color[c]);
    if (lane == 0) color[ray * channels + c] = total;
  }
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kThreads)
    march_rays_backward_kernel(const int32_t* offsets, const T* starts, const T* ends, const T* densities, const T* colors,
                          int64_t rays, int channel_count, const T* opacity, const T* depth, const T* transmittance,
                          const T* v_color, const T* v_opacity, const T* v_depth, T* v_densities, T* v_colors) {
  const int64_t ray = global_thread() / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, channels = kChannels == 3 ? 3 : channel_count;
  if (ray >= rays) return;
  const int64_t begin = offsets[ray], end = offsets[ray + 1];
  T v[kChannels];
  AVATAR_UNROLL
  for (int c = 0; c < kChannels; ++c) v[c] = c < channels ? v_color[ray * channels + c] : T(0);
  const RayCotangent<T> v_ray = ray_cotangent(opacity[ray], depth[ray], v_opacity[ray], v_depth[ray]);
  T behind = T(0);  // sum of weight * g over the samples of later rounds
  for (int64_t base = begin + (end - begin - 1) / kWarp * kWarp; end > begin && base >= begin; base -= kWarp) {
    const int64_t i = base + lane;
    const bool exists = i < end;
    const T low = exists ? starts[i] : T(0), high = exists ? ends[i] : T(0);
    const T tau = exists ? densities[i] * (high - low) : T(0);
    const T t = exists ? transmittance[i] : T(0), weight = t * opacity_of(tau);
    T g = v_ray.of_weight(T(0.5) * (low + high));
    AVATAR_UNROLL
    for (int c = 0; c < kChannels; ++c)
      if (exists && c < channels) {
        g += v[c] * colors[i * channels + c];
        v_colors[i * channels + c] = weight * v[c];
      }
    T inclusive = weight * g;
    AVATAR_UNROLL
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const T other = __shfl_down_sync(kWholeWarp, inclusive, distance);
      if (lane + distance < kWarp) inclusive += other;
    }
    const T next = __shfl_down_sync(kWholeWarp, inclusive, 1);
    const T later = behind + (lane < kWarp - 1 ? next : T(0));
    behind += __shfl_sync(kWholeWarp, inclusive, 0);
    if (exists) v_densities[i] = (high - low) * (t * exp_negative(tau) * g - later);
  }
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" {

int32_t avatar_cuda_march_rays(avatar_call* call, const int32_t* offsets, const void* starts, const void* ends,
                          const void* densities, const void* colors, int64_t rays, int32_t channels, void* color,
                          void* opacity, void* depth, void* transmittance, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, rays));
  AVATAR_RETURN_IF_BAD(check_channels(call, channels));
  AVATAR_REQUIRE_IF(rays, offsets, color, opacity, depth);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    if (rays == 0) return int32_t(AVATAR_OK);
    const auto kernel = channels == 3 ? march_rays_kernel<T, 3> : march_rays_kernel<T, kMaxChannels>;
    return launch(call, kernel, blocks_for(rays * kWarp, kThreads), kThreads, static_cast<cudaStream_t>(stream),
                  offsets, in<T>(starts), in<T>(ends), in<T>(densities), in<T>(colors), rays, channels, out<T>(color),
                  out<T>(opacity), out<T>(depth), out<T>(transmittance));
  });
}

int32_t avatar_cuda_march_rays_backward(avatar_call* call, const int32_t* offsets, const void* starts, const void* ends,
                                   const void* densities, const void* colors, int64_t rays, int32_t channels,
                                   const void* opacity, const void* depth, const void* transmittance,
                                   const void* v_color, const void* v_opacity, const void* v_depth, void* v_densities,
                                   void* v_colors, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, rays));
  AVATAR_RETURN_IF_BAD(check_channels(call, channels));
  AVATAR_REQUIRE_IF(rays, offsets, opacity, depth, v_color, v_opacity, v_depth);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    if (rays == 0) return int32_t(AVATAR_OK);
    const auto kernel = channels == 3 ? march_rays_backward_kernel<T, 3> : march_rays_backward_kernel<T, kMaxChannels>;
    return launch(call, kernel, blocks_for(rays * kWarp, kThreads), kThreads, static_cast<cudaStream_t>(stream),
                  offsets, in<T>(starts), in<T>(ends), in<T>(densities), in<T>(colors), rays, channels, in<T>(opacity),
                  in<T>(depth), in<T>(transmittance), in<T>(v_color), in<T>(v_opacity), in<T>(v_depth),
                  out<T>(v_densities), out<T>(v_colors));
  });
}

}  // extern "C"
