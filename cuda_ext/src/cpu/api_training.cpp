// The C ABI: losses, networks, rays and the optimiser.
#include "api.h"

extern "C" {

int64_t avatar_ssim_workspace(int32_t dtype, int32_t num_threads, int32_t height, int32_t width, int32_t channels) {
  if (num_threads < 1 || !avatar::good_picture(width, height, channels)) return -1;
  return BY_DTYPE(ssim_workspace, at_most_threads(num_threads), height, width, channels);
}

int32_t avatar_ssim(avatar_call* call, const void* a, const void* b, int32_t height, int32_t width, int32_t channels,
                    void* mean, void* partials, void* partials_b, void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, 0, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(a, b, mean, workspace);
  DISPATCH(K::ssim<T>(threads_of(call), in<T>(a), in<T>(b), height, width, channels, out<T>(mean), out<T>(partials),
                      out<T>(partials_b), workspace));
}

int32_t avatar_ssim_backward(avatar_call* call, const void* a, const void* b, const void* partials, double v_mean,
                             int32_t height, int32_t width, int32_t channels, void* v_a, void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, 0, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(a, b, partials, v_a, workspace);
  DISPATCH(K::ssim_backward<T>(threads_of(call), in<T>(a), in<T>(b), in<T>(partials), v_mean, height, width, channels,
                               out<T>(v_a), workspace));
}

int64_t avatar_l1_ssim_workspace(int32_t dtype, int32_t num_threads, int32_t height, int32_t width, int32_t channels) {
  if (num_threads < 1 || !avatar::good_picture(width, height, channels)) return -1;
  return BY_DTYPE(l1_ssim_workspace, at_most_threads(num_threads), height, width, channels);
}

int32_t avatar_l1_ssim(avatar_call* call, const void* image, const void* target, const void* weight, double ssim_weight,
                       int32_t height, int32_t width, int32_t channels, void* terms, void* v_image, void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, 0, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(image, target, terms, workspace);
  DISPATCH(K::l1_ssim<T>(threads_of(call), in<T>(image), in<T>(target), in<T>(weight), ssim_weight, height, width,
                         channels, out<T>(terms), out<T>(v_image), workspace));
}

int64_t avatar_deform_mlp_workspace(int32_t dtype, int32_t num_threads, int32_t inputs, int32_t hidden,
                                    int32_t outputs) {
  if (num_threads < 1 || !avatar::good_network(inputs, hidden, outputs)) return -1;
  return BY_DTYPE(deform_mlp_workspace, at_most_threads(num_threads), inputs, hidden, outputs);
}

int32_t avatar_deform_mlp(avatar_call* call, const void* features, const void* code, int64_t n, int32_t inputs,
                          int32_t hidden, int32_t outputs, const void* spatial_weight, const void* spatial_bias,
                          const void* condition, const void* middle_weight, const void* middle_bias,
                          const void* head_weight, const void* head_bias, const void* scale, void* result,
                          void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_network(call, inputs, hidden, outputs));
  AVATAR_REQUIRE(condition, middle_weight, middle_bias, head_weight, head_bias, scale, workspace);
  AVATAR_REQUIRE_IF(n, result);
  if (code == nullptr) AVATAR_REQUIRE_IF(n, features, spatial_weight, spatial_bias);
  DISPATCH(K::deform_mlp<T>(threads_of(call), in<T>(features), in<T>(code), n, inputs, hidden, outputs,
                            in<T>(spatial_weight), in<T>(spatial_bias), in<T>(condition), in<T>(middle_weight),
                            in<T>(middle_bias), in<T>(head_weight), in<T>(head_bias), in<T>(scale), out<T>(result),
                            out<T>(workspace)));
}

int32_t avatar_deform_mlp_backward(avatar_call* call, const void* features, int64_t n, int32_t inputs, int32_t hidden,
                                   int32_t outputs, const void* spatial_weight, const void* spatial_bias,
                                   const void* condition, const void* middle_weight, const void* middle_bias,
                                   const void* head_weight, const void* head_bias, const void* scale,
                                   const void* v_out, void* v_features, void* v_spatial_weight, void* v_spatial_bias,
                                   void* v_condition, void* v_middle_weight, void* v_middle_bias, void* v_head_weight,
                                   void* v_head_bias, void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_network(call, inputs, hidden, outputs));
  AVATAR_REQUIRE(spatial_weight, spatial_bias, condition, middle_weight, middle_bias, head_weight, head_bias, scale,
                 v_spatial_weight, v_spatial_bias, v_condition, v_middle_weight, v_middle_bias, v_head_weight,
                 v_head_bias, workspace);
  AVATAR_REQUIRE_IF(n, features, v_out, v_features);
  DISPATCH(K::deform_mlp_backward<T>(
      threads_of(call), in<T>(features), n, inputs, hidden, outputs, in<T>(spatial_weight), in<T>(spatial_bias),
      in<T>(condition), in<T>(middle_weight), in<T>(middle_bias), in<T>(head_weight), in<T>(head_bias), in<T>(scale),
      in<T>(v_out), out<T>(v_features), out<T>(v_spatial_weight), out<T>(v_spatial_bias), out<T>(v_condition),
      out<T>(v_middle_weight), out<T>(v_middle_bias), out<T>(v_head_weight), out<T>(v_head_bias), out<T>(workspace)));
}

int64_t avatar_deform_code_bf16_workspace(int32_t dtype, int32_t num_threads, int32_t hidden, int32_t outputs) {
  if (dtype != AVATAR_FLOAT32 || num_threads < 1 || !avatar::good_network(1, hidden, outputs)) return -1;
  if (avatar::best_isa() < AVATAR_ISA_AVX512_BF16) return 0;
#if defined(AVATAR_WITH_BF16)
  return avatar::avx512_bf16::deform_code_bf16_workspace(at_most_threads(num_threads), hidden, outputs);
#else
  return 0;
#endif
}

int32_t avatar_deform_code_bf16(avatar_call* call, const void* code, int64_t n, int32_t hidden, int32_t outputs,
                                const void* condition, const void* middle_weight, const void* middle_bias,
                                const void* head_weight, const void* head_bias, const void* scale, void* result,
                                void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_bf16(call, isa));
  AVATAR_RETURN_IF_BAD(check_network(call, 1, hidden, outputs));
  AVATAR_REQUIRE(condition, middle_weight, middle_bias, head_weight, head_bias, scale, workspace);
  AVATAR_REQUIRE_IF(n, code, result);
#if defined(AVATAR_WITH_BF16)
  avatar::avx512_bf16::deform_code_bf16(threads_of(call), in<uint16_t>(code), n, hidden, outputs, in<float>(condition),
                                        in<float>(middle_weight), in<float>(middle_bias), in<float>(head_weight),
                                        in<float>(head_bias), in<float>(scale), out<float>(result), workspace);
#endif
  return AVATAR_OK;
}

int32_t avatar_march_rays(avatar_call* call, const int32_t* offsets, const void* starts, const void* ends,
                     const void* densities, const void* colors, int64_t rays, int32_t channels, void* color,
                     void* opacity, void* depth, void* transmittance) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, rays, &isa));
  AVATAR_RETURN_IF_BAD(check_channels(call, channels));
  AVATAR_REQUIRE_IF(rays, offsets, color, opacity, depth);
  DISPATCH(K::march_rays<T>(threads_of(call), offsets, in<T>(starts), in<T>(ends), in<T>(densities), in<T>(colors), rays,
                       channels, out<T>(color), out<T>(opacity), out<T>(depth), out<T>(transmittance)));
}

int32_t avatar_march_rays_backward(avatar_call* call, const int32_t* offsets, const void* starts, const void* ends,
                              const void* densities, const void* colors, int64_t rays, int32_t channels,
                              const void* opacity, const void* depth, const void* transmittance, const void* v_color,
                              const void* v_opacity, const void* v_depth, void* v_densities, void* v_colors) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, rays, &isa));
  AVATAR_RETURN_IF_BAD(check_channels(call, channels));
  AVATAR_REQUIRE_IF(rays, offsets, opacity, depth, v_color, v_opacity, v_depth);
  DISPATCH(K::march_rays_backward<T>(threads_of(call), offsets, in<T>(starts), in<T>(ends), in<T>(densities), in<T>(colors),
                                rays, channels, in<T>(opacity), in<T>(depth), in<T>(transmittance), in<T>(v_color),
                                in<T>(v_opacity), in<T>(v_depth), out<T>(v_densities), out<T>(v_colors)));
}

int32_t avatar_adam_step(avatar_call* call, void* param, const void* grad, void* exp_avg, void* exp_avg_sq, int64_t n,
                         double lr, double beta1, double beta2, double eps, int64_t step) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, 0, &isa));
  if (n < 0 || step < 1)
    return fail(call, AVATAR_BAD_ARGUMENT, "n, step are %lld, %lld; expected at least 0 and 1",
                static_cast<long long>(n), static_cast<long long>(step));
  AVATAR_REQUIRE_IF(n, param, grad, exp_avg, exp_avg_sq);
  DISPATCH(K::adam_step<T>(threads_of(call), out<T>(param), in<T>(grad), out<T>(exp_avg), out<T>(exp_avg_sq), n, lr,
                           beta1, beta2, eps, step));
}

}  // extern "C"
