// The C ABI: the radiance field.
#include "api.h"
#include "avatar_radiance.h"
#include "avatar_rays.h"

using avatar::RadianceSizes;

extern "C" {

int64_t avatar_radiance_mlp_workspace(int32_t dtype, int32_t num_threads, int32_t inputs, int32_t attention,
                                      int32_t gates, int32_t hidden, int32_t outputs, int32_t color) {
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  if (num_threads < 1 || !avatar::good_radiance(sizes)) return -1;
  return BY_DTYPE(radiance_mlp_workspace, at_most_threads(num_threads), sizes);
}

int32_t avatar_radiance_mlp(avatar_call* call, const void* features, int64_t n, int32_t inputs, int32_t attention,
                            int32_t gates, int32_t hidden, int32_t outputs, int32_t color, const void* parameters,
                            void* densities, void* colors, void* gate_values, void* workspace) {
  int32_t isa;
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(avatar::check_radiance(call, sizes));
  AVATAR_REQUIRE(parameters, workspace);
  AVATAR_REQUIRE_IF(n, features, densities, colors, gate_values);
  DISPATCH(K::radiance_mlp<T>(threads_of(call), in<T>(features), n, sizes, in<T>(parameters), out<T>(densities),
                              out<T>(colors), out<T>(gate_values), out<T>(workspace)));
}

int32_t avatar_radiance_mlp_backward(avatar_call* call, const void* features, int64_t n, int32_t inputs,
                                     int32_t attention, int32_t gates, int32_t hidden, int32_t outputs, int32_t color,
                                     const void* parameters, const void* v_densities, const void* v_colors,
                                     const void* v_gates, void* v_features, void* v_parameters, void* workspace) {
  int32_t isa;
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(avatar::check_radiance(call, sizes));
  AVATAR_REQUIRE(parameters, v_parameters, workspace);
  AVATAR_REQUIRE_IF(n, features, v_densities, v_colors, v_gates, v_features);
  DISPATCH(K::radiance_mlp_backward<T>(threads_of(call), in<T>(features), n, sizes, in<T>(parameters),
                                       in<T>(v_densities), in<T>(v_colors), in<T>(v_gates), out<T>(v_features),
                                       out<T>(v_parameters), out<T>(workspace)));
}

int64_t avatar_radiance_mlp_bf16_workspace(int32_t dtype, int32_t num_threads, int32_t inputs, int32_t attention,
                                           int32_t gates, int32_t hidden, int32_t outputs, int32_t color) {
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  if (dtype != AVATAR_FLOAT32 || num_threads < 1 || !avatar::good_radiance(sizes)) return -1;
  if (avatar::best_isa() < AVATAR_ISA_AVX512_BF16) return 0;
#if defined(AVATAR_WITH_BF16)
  return avatar::avx512_bf16::radiance_mlp_bf16_workspace(at_most_threads(num_threads), sizes);
#else
  return 0;
#endif
}

int32_t avatar_radiance_mlp_bf16(avatar_call* call, const void* features, int64_t n, int32_t inputs, int32_t attention,
                                 int32_t gates, int32_t hidden, int32_t outputs, int32_t color, const void* parameters,
                                 void* densities, void* colors, void* gate_values, void* workspace) {
  int32_t isa;
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_bf16(call, isa));
  AVATAR_RETURN_IF_BAD(avatar::check_radiance(call, sizes));
  AVATAR_REQUIRE(parameters, workspace);
  AVATAR_REQUIRE_IF(n, features, densities, colors, gate_values);
#if defined(AVATAR_WITH_BF16)
  avatar::avx512_bf16::radiance_mlp_bf16(threads_of(call), in<float>(features), n, sizes, in<float>(parameters),
                                         out<float>(densities), out<float>(colors), out<float>(gate_values), workspace);
#endif
  return AVATAR_OK;
}

int64_t avatar_sample_rays_workspace(int32_t dtype, int64_t rays, int32_t max_samples) {
  return avatar::good_ray_samples(rays, max_samples) ? BY_DTYPE(sample_rays_workspace, rays, max_samples) : -1;
}

int32_t avatar_sample_rays_count(avatar_call* call, const void* origins, const void* directions, const void* limits,
                                 const void* jitter, int64_t rays, const double* box, const uint8_t* occupancy,
                                 int32_t depth, int32_t height, int32_t bytes, double step, int32_t max_samples,
                                 int64_t budget, int32_t* offsets, int32_t* totals, void* workspace) {
  int32_t isa;
  const avatar::OccupancySizes sizes = {depth, height, bytes};
  AVATAR_RETURN_IF_BAD(check(call, rays, &isa));
  AVATAR_RETURN_IF_BAD(avatar::check_ray_samples(call, rays, max_samples, step));
  AVATAR_RETURN_IF_BAD(avatar::check_occupancy(call, box, sizes, budget));
  AVATAR_REQUIRE(occupancy, offsets, totals);
  AVATAR_REQUIRE_IF(rays, origins, directions, workspace);
  DISPATCH(K::sample_rays_count<T>(threads_of(call), in<T>(origins), in<T>(directions), in<T>(limits), in<T>(jitter),
                                   rays, box, occupancy, sizes, step, max_samples, budget, offsets, totals,
                                   workspace));
}

int32_t avatar_sample_rays_fill(avatar_call* call, int64_t rays, double step, int32_t max_samples,
                                const int32_t* offsets, void* starts, void* ends, void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, rays, &isa));
  AVATAR_RETURN_IF_BAD(avatar::check_ray_samples(call, rays, max_samples, step));
  AVATAR_REQUIRE_IF(rays, offsets, workspace);
  DISPATCH(K::sample_rays_fill<T>(threads_of(call), rays, step, max_samples, offsets, out<T>(starts), out<T>(ends),
                                  workspace));
}

int32_t avatar_ray_points(avatar_call* call, const int32_t* offsets, const void* starts, const void* ends,
                          const void* origins, const void* directions, int64_t rays, void* points) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, rays, &isa));
  AVATAR_REQUIRE_IF(rays, offsets, origins, directions);
  DISPATCH(K::ray_points<T>(threads_of(call), offsets, in<T>(starts), in<T>(ends), in<T>(origins), in<T>(directions),
                            rays, out<T>(points)));
}

int32_t avatar_ray_points_backward(avatar_call* call, const int32_t* offsets, const void* starts, const void* ends,
                                   const void* v_points, int64_t rays, void* v_origins, void* v_directions) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, rays, &isa));
  AVATAR_REQUIRE_IF(rays, offsets, v_origins, v_directions);
  DISPATCH(K::ray_points_backward<T>(threads_of(call), offsets, in<T>(starts), in<T>(ends), in<T>(v_points), rays,
                                     out<T>(v_origins), out<T>(v_directions)));
}

}  // extern "C"
