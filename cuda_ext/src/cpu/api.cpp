// The C ABI: checks what cannot be left to the caller, then calls the kernels of the chosen instruction set.
#include <cstdint>

#include "avatar_checks.h"

#define AVATAR_ISA baseline
#include "kernels.inc"
#undef AVATAR_ISA
#if defined(AVATAR_WITH_X86)
#define AVATAR_ISA avx2
#include "kernels.inc"
#undef AVATAR_ISA
#define AVATAR_ISA avx512
#include "kernels.inc"
#undef AVATAR_ISA
#endif
#if defined(AVATAR_WITH_BF16)
#include "mlp_bf16.h"
#endif

namespace {

constexpr int32_t kMaxThreads = 64;

int32_t best_isa() {
#if defined(AVATAR_WITH_X86)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2");
  if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd")) {
#if defined(AVATAR_WITH_BF16)
    if (__builtin_cpu_supports("avx512bf16")) return AVATAR_ISA_AVX512_BF16;
#endif
    return AVATAR_ISA_AVX512;
  }
  if (v3) return AVATAR_ISA_AVX2;
#endif
  return AVATAR_ISA_BASELINE;
}

// Common checks; on success `*isa` is the instruction set to use.
int32_t check(avatar_call* call, int64_t n, int32_t* isa) {
  AVATAR_RETURN_IF_BAD(avatar::check_call(call, n));
  const int32_t best = best_isa();
  *isa = call->isa == AVATAR_ISA_AUTO ? best : call->isa;
  if (*isa < AVATAR_ISA_BASELINE || *isa > best)
    return avatar::fail(call, AVATAR_UNSUPPORTED, "isa is %d; this machine or build has 1 to %d", int(call->isa),
                        int(best));
  return AVATAR_OK;
}

int32_t at_most_threads(int32_t threads) { return threads < kMaxThreads ? threads : kMaxThreads; }
int32_t threads_of(const avatar_call* call) { return at_most_threads(call->num_threads); }

template <typename T>
const T* in(const void* pointer) {
  return static_cast<const T*>(pointer);
}
template <typename T>
T* out(void* pointer) {
  return static_cast<T*>(pointer);
}

}  // namespace

// Run `expression`, in which `K` is the namespace of an instruction set and `T` the number type.
#if defined(AVATAR_WITH_X86)
#define WITH_ISA(expression)                  \
  if (isa >= AVATAR_ISA_AVX512) {             \
    namespace K = avatar::avx512;             \
    expression;                               \
  } else if (isa == AVATAR_ISA_AVX2) {        \
    namespace K = avatar::avx2;               \
    expression;                               \
  } else {                                    \
    namespace K = avatar::baseline;           \
    expression;                               \
  }
#else
#define WITH_ISA(expression)        \
  {                                 \
    namespace K = avatar::baseline; \
    expression;                     \
  }
#endif
#define DISPATCH(...)                      \
  if (call->dtype == AVATAR_FLOAT32) {     \
    using T = float;                       \
    WITH_ISA((__VA_ARGS__))                \
  } else {                                 \
    using T = double;                      \
    WITH_ISA((__VA_ARGS__))                \
  }                                        \
  return AVATAR_OK
#define BY_DTYPE(function, ...)                                             \
  (dtype == AVATAR_FLOAT32 ? avatar::baseline::function<float>(__VA_ARGS__) \
                           : avatar::baseline::function<double>(__VA_ARGS__))

using avatar::check_channels;
using avatar::check_grid;
using avatar::check_network;
using avatar::check_picture;
using avatar::fail;

extern "C" {

int32_t avatar_abi_version(void) { return AVATAR_ABI_VERSION; }

int32_t avatar_best_isa(void) { return best_isa(); }

int32_t avatar_triplane_encode(avatar_call* call, const void* points, const void* table, const int32_t* resolutions,
                               int64_t n, int32_t levels, int64_t rows, int32_t features, void* encoded) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_grid(call, resolutions, levels, rows, features));
  AVATAR_REQUIRE(table);
  AVATAR_REQUIRE_IF(n, points, encoded);
  DISPATCH(K::triplane_encode<T>(threads_of(call), in<T>(points), in<T>(table), resolutions, n, levels, rows, features,
                                 out<T>(encoded)));
}

int64_t avatar_triplane_workspace(int32_t dtype, int64_t n, int32_t levels, int32_t features) {
  if (!avatar::good_count(n) || !avatar::good_grid(levels, features)) return -1;
  return BY_DTYPE(triplane_workspace, n, levels, features);
}

int32_t avatar_triplane_encode_backward(avatar_call* call, const void* points, const void* table,
                                        const int32_t* resolutions, int64_t n, int32_t levels, int64_t rows,
                                        int32_t features, const void* v_out, void* v_points, void* v_table,
                                        void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_grid(call, resolutions, levels, rows, features));
  AVATAR_REQUIRE(table);
  AVATAR_REQUIRE_IF(n, points, v_out);
  if (v_table != nullptr) AVATAR_REQUIRE_IF(n, workspace);
  DISPATCH(K::triplane_encode_backward<T>(threads_of(call), in<T>(points), in<T>(table), resolutions, n, levels, rows,
                                          features, in<T>(v_out), out<T>(v_points), out<T>(v_table),
                                          out<T>(workspace)));
}

int32_t avatar_project(avatar_call* call, const void* means, const void* quats, const void* scales,
                       const void* viewmat, const void* intrinsics, int64_t n, int32_t width, int32_t height,
                       double eps2d, double near_plane, int32_t* radii, void* means2d, void* depths, void* conics) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, 1));
  AVATAR_REQUIRE(viewmat, intrinsics);
  AVATAR_REQUIRE_IF(n, means, quats, scales, radii, means2d, depths, conics);
  DISPATCH(K::project<T>(threads_of(call), in<T>(means), in<T>(quats), in<T>(scales), in<T>(viewmat),
                         in<T>(intrinsics), n, width, height, eps2d, near_plane, radii, out<T>(means2d),
                         out<T>(depths), out<T>(conics)));
}

int64_t avatar_project_workspace(int32_t dtype, int64_t n) {
  return avatar::good_count(n) ? BY_DTYPE(project_workspace, n) : -1;
}

int32_t avatar_project_backward(avatar_call* call, const void* means, const void* quats, const void* scales,
                                const void* viewmat, const void* intrinsics, int64_t n, int32_t width, int32_t height,
                                double eps2d, const int32_t* radii, const void* v_means2d, const void* v_depths,
                                const void* v_conics, void* v_means, void* v_quats, void* v_scales, void* v_viewmat,
                                void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, 1));
  AVATAR_REQUIRE(viewmat, intrinsics);
  AVATAR_REQUIRE_IF(n, means, quats, scales, radii, v_means2d, v_depths, v_conics, v_means, v_quats, v_scales,
                    workspace);
  DISPATCH(K::project_backward<T>(threads_of(call), in<T>(means), in<T>(quats), in<T>(scales), in<T>(viewmat),
                                  in<T>(intrinsics), n, width, height, eps2d, radii, in<T>(v_means2d),
                                  in<T>(v_depths), in<T>(v_conics), out<T>(v_means), out<T>(v_quats), out<T>(v_scales),
                                  out<T>(v_viewmat), static_cast<double*>(workspace)));
}

int32_t avatar_skin(avatar_call* call, const void* means, const void* quats, const void* weights, const void* offsets,
                    const void* transforms, const void* transform_quats, int64_t n, void* posed_means, void* posed_quats) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_REQUIRE(transforms, transform_quats);
  AVATAR_REQUIRE_IF(n, means, quats, weights, offsets, posed_means, posed_quats);
  DISPATCH(K::skin<T>(threads_of(call), in<T>(means), in<T>(quats), in<T>(weights), in<T>(offsets), in<T>(transforms),
                      in<T>(transform_quats), n, out<T>(posed_means), out<T>(posed_quats)));
}

int64_t avatar_skin_workspace(int32_t dtype, int64_t n) {
  return avatar::good_count(n) ? BY_DTYPE(skin_workspace, n) : -1;
}

int32_t avatar_skin_backward(avatar_call* call, const void* means, const void* quats, const void* weights,
                             const void* offsets, const void* transforms, const void* transform_quats, int64_t n,
                             const void* v_posed_means, const void* v_posed_quats, void* v_means, void* v_quats,
                             void* v_weights, void* v_offsets, void* v_transforms, void* v_transform_quats, void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_REQUIRE(transforms, transform_quats);
  AVATAR_REQUIRE_IF(n, means, quats, weights, offsets, v_posed_means, v_posed_quats, v_means, v_quats, v_weights,
                    v_offsets, workspace);
  if (v_transforms != nullptr) AVATAR_REQUIRE(v_transform_quats);
  DISPATCH(K::skin_backward<T>(threads_of(call), in<T>(means), in<T>(quats), in<T>(weights), in<T>(offsets),
                               in<T>(transforms), in<T>(transform_quats), n, in<T>(v_posed_means), in<T>(v_posed_quats),
                               out<T>(v_means), out<T>(v_quats), out<T>(v_weights), out<T>(v_offsets), out<T>(v_transforms),
                               out<T>(v_transform_quats), static_cast<double*>(workspace)));
}

int32_t avatar_animate(avatar_call* call, const void* means, const void* quats, const void* scales,
                       const void* opacities, const void* colors, const void* weights,
                       const int32_t* bind_index, const void* bind_weight, int64_t n, const void* changes,
                       int64_t changed, const void* vertices, int32_t num_vertices, const void* transforms,
                       const void* transform_quats, const void* warp, int32_t warp_rows,
                       int32_t warp_columns, const void* warp_frame, const void* viewmat, const void* intrinsics,
                       int32_t width, int32_t height, double eps2d, double near_plane, int32_t* radii,
                       void* means2d, void* depths, void* conics, void* posed_opacities,
                       void* posed_colors) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, 1));
  AVATAR_RETURN_IF_BAD(avatar::check_animation(call, n, changed, num_vertices, warp_rows, warp_columns));
  AVATAR_REQUIRE(vertices, transforms, transform_quats, warp, warp_frame, viewmat, intrinsics);
  AVATAR_REQUIRE_IF(n, means, quats, scales, opacities, colors, weights, bind_index, bind_weight, radii, means2d,
                    depths, conics, posed_opacities, posed_colors);
  AVATAR_REQUIRE_IF(changed, changes);
  DISPATCH(K::animate<T>(threads_of(call), in<T>(means), in<T>(quats), in<T>(scales), in<T>(opacities), in<T>(colors),
                         in<T>(weights), bind_index, in<T>(bind_weight), n, in<T>(changes), changed, in<T>(vertices),
                         num_vertices, in<T>(transforms), in<T>(transform_quats), in<T>(warp), warp_rows, warp_columns,
                         in<T>(warp_frame), in<T>(viewmat), in<T>(intrinsics), width, height, eps2d, near_plane, radii,
                         out<T>(means2d), out<T>(depths), out<T>(conics), out<T>(posed_opacities),
                         out<T>(posed_colors)));
}

int64_t avatar_bin_workspace(int32_t dtype, int64_t n, int32_t width, int32_t height) {
  if (!avatar::good_count(n) || !avatar::good_picture(width, height, 1)) return -1;
  return BY_DTYPE(bin_workspace, n, width, height);
}

int32_t avatar_bin_count(avatar_call* call, const void* means2d, const void* conics, const void* opacities,
                         const void* depths, const int32_t* radii, int64_t n, int32_t width, int32_t height,
                         int32_t* slot_offsets, int32_t* tile_offsets, int64_t* num_pairs, void* limits,
                         void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, 1));
  AVATAR_REQUIRE(slot_offsets, tile_offsets, num_pairs, workspace);
  AVATAR_REQUIRE_IF(n, means2d, conics, opacities, depths, radii, limits);
  const auto run = [&]() -> int32_t {
    DISPATCH(K::bin_count<T>(threads_of(call), in<T>(means2d), in<T>(conics), in<T>(opacities), in<T>(depths), radii, n,
                             width, height, slot_offsets, tile_offsets, num_pairs, out<T>(limits), workspace));
  };
  AVATAR_RETURN_IF_BAD(run());
  if (*num_pairs > INT32_MAX)
    return fail(call, AVATAR_UNSUPPORTED,
                "%lld Gaussians cover more than 2^31-1 tiles of a picture of %d x %d pixels; expected fewer or smaller",
                static_cast<long long>(n), int(width), int(height));
  return AVATAR_OK;
}

int32_t avatar_bin_fill(avatar_call* call, const void* means2d, const void* conics, const void* opacities, int64_t n,
                        int32_t width, int32_t height, const int32_t* slot_offsets, int32_t* ids, int32_t* slots,
                        void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, 1));
  AVATAR_REQUIRE(slot_offsets, workspace);
  AVATAR_REQUIRE_IF(n, means2d, conics, opacities);
  DISPATCH(K::bin_fill<T>(threads_of(call), in<T>(means2d), in<T>(conics), in<T>(opacities), n, width, height,
                          slot_offsets, ids, slots, workspace));
}

int32_t avatar_rasterize(avatar_call* call, const void* means2d, const void* conics, const void* colors,
                         const void* opacities, int64_t n, int32_t channels, const void* background,
                         int32_t background_stride, int32_t width, int32_t height, const void* limits,
                         const int32_t* tile_offsets, const int32_t* ids, void* image, void* final_t, int32_t* last,
                         void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(tile_offsets, image, final_t, last);
  AVATAR_REQUIRE_IF(n, means2d, conics, colors, opacities, limits, workspace);
  DISPATCH(K::rasterize<T>(threads_of(call), in<T>(means2d), in<T>(conics), in<T>(colors), in<T>(opacities), n,
                           channels, in<T>(background), background_stride, width, height, in<T>(limits), tile_offsets,
                           ids, out<T>(image), out<T>(final_t), last, workspace));
}

int32_t avatar_draw(avatar_call* call, const void* means2d, const void* conics, const void* colors,
                    const void* opacities, int64_t n, int32_t channels, const void* background,
                    int32_t background_stride, int32_t width, int32_t height, const void* limits,
                    const int32_t* tile_offsets, const int32_t* ids, void* image, void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(tile_offsets, image);
  AVATAR_REQUIRE_IF(n, means2d, conics, colors, opacities, limits, workspace);
  DISPATCH(K::draw<T>(threads_of(call), in<T>(means2d), in<T>(conics), in<T>(colors), in<T>(opacities), n, channels,
                      in<T>(background), background_stride, width, height, in<T>(limits), tile_offsets, ids,
                      out<uint8_t>(image), workspace));
}

int64_t avatar_rasterize_workspace(int32_t dtype, int64_t n, int64_t num_pairs, int32_t channels) {
  const bool good_pairs = num_pairs >= 0 && num_pairs <= avatar::kMaxPairs;
  if (!avatar::good_count(n) || !good_pairs || !avatar::good_picture(1, 1, channels)) return -1;
  return BY_DTYPE(rasterize_workspace, n, num_pairs, channels);
}

int32_t avatar_rasterize_backward(avatar_call* call, const void* means2d, const void* conics, const void* colors,
                                  const void* opacities, int64_t n, int32_t channels, const void* background,
                                  int32_t background_stride, int32_t width, int32_t height, const void* limits,
                                  const int32_t* tile_offsets, const int32_t* ids, const int32_t* slots,
                                  const int32_t* slot_offsets, const void* final_t, const int32_t* last,
                                  const void* v_image, const void* v_final_t, void* v_means2d, void* v_conics,
                                  void* v_colors, void* v_opacities, void* workspace) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(tile_offsets, slot_offsets, final_t, last, v_image);
  AVATAR_REQUIRE_IF(n, means2d, conics, colors, opacities, limits, v_means2d, v_conics, v_colors, v_opacities,
                    workspace);
  DISPATCH(K::rasterize_backward<T>(threads_of(call), in<T>(means2d), in<T>(conics), in<T>(colors), in<T>(opacities), n,
                                    channels, in<T>(background), background_stride, width, height, in<T>(limits),
                                    tile_offsets, ids, slots, slot_offsets, in<T>(final_t), last, in<T>(v_image),
                                    in<T>(v_final_t), out<T>(v_means2d), out<T>(v_conics), out<T>(v_colors),
                                    out<T>(v_opacities), workspace));
}

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
  // Registers of other instruction sets are narrower or as wide, so the widest padding is enough for all.
  const auto wide = [](int32_t size) { return (size + 15) / 16 * 16; };
  return BY_DTYPE(deform_mlp_workspace, at_most_threads(num_threads), wide(inputs), wide(hidden), wide(outputs));
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
  if (isa < AVATAR_ISA_AVX512_BF16 || call->dtype != AVATAR_FLOAT32)
    return fail(call, AVATAR_UNSUPPORTED, "isa, dtype are %d, %d; expected %d (AVX512_BF16) and float32 (0)", int(isa),
                int(call->dtype), int(AVATAR_ISA_AVX512_BF16));
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
