/* C ABI of the CUDA library.
 *
 * The rules of avatar_native.h, with device pointers (but for `call`, `resolutions` and `box`) and a stream (cudaStream_t) as
 * the last argument. Every function only launches: nothing is allocated, nothing synchronises, no memory is copied
 * between host and device; so calls can be captured in a CUDA graph. Work space starts at a multiple of 256 bytes.
 *
 * Number type: float32. float64 is AVATAR_UNSUPPORTED unless the library was built with AVATAR_CUDA_FLOAT64 (meant for
 * gradient checks; the emulation of the tests has it).
 *
 * Results are the same bits on every run, but for v_table of avatar_cuda_triplane_encode_backward, which is summed by
 * atomic additions.
 *
 * avatar/native/_abi_cuda.py is generated from this file by cuda_ext/generate_abi.py; one declaration per function.
 */
#ifndef AVATAR_CUDA_H
#define AVATAR_CUDA_H

#include "avatar_native.h"

#ifdef __cplusplus
extern "C" {
#endif

#define AVATAR_CUDA_ABI_VERSION 7

AVATAR_API int32_t avatar_cuda_abi_version(void);

/* Launch a kernel that does nothing: AVATAR_OK where the library runs on the current device, else what CUDA says, such
 * as that the driver is older than the library or that there is no code for this GPU. */
AVATAR_API int32_t avatar_cuda_probe(avatar_call* call, void* stream);

/* As avatar_triplane_encode; resolutions is a host array. */
AVATAR_API int32_t avatar_cuda_triplane_encode(avatar_call* call, const void* points, const void* table,
                                               const int32_t* resolutions, int64_t n, int32_t levels, int64_t rows,
                                               int32_t features, void* out, void* stream);

/* As avatar_triplane_encode_backward. */
AVATAR_API int32_t avatar_cuda_triplane_encode_backward(avatar_call* call, const void* points, const void* table,
                                                        const int32_t* resolutions, int64_t n, int32_t levels,
                                                        int64_t rows, int32_t features, const void* v_out,
                                                        void* v_points, void* v_table, void* stream);

/* As avatar_project. */
AVATAR_API int32_t avatar_cuda_project(avatar_call* call, const void* means, const void* quats, const void* scales,
                                       const void* viewmat, const void* intrinsics, int64_t n, int32_t width,
                                       int32_t height, double eps2d, double near_plane, int32_t* radii, void* means2d,
                                       void* depths, void* conics, void* stream);

/* Bytes of workspace of avatar_cuda_project_backward. */
AVATAR_API int64_t avatar_cuda_project_workspace(int32_t dtype, int64_t n);

/* As avatar_project_backward. */
AVATAR_API int32_t avatar_cuda_project_backward(avatar_call* call, const void* means, const void* quats,
                                                const void* scales, const void* viewmat, const void* intrinsics,
                                                int64_t n, int32_t width, int32_t height, double eps2d,
                                                const int32_t* radii, const void* v_means2d, const void* v_depths,
                                                const void* v_conics, void* v_means, void* v_quats, void* v_scales,
                                                void* v_viewmat, void* workspace, void* stream);

/* As avatar_skin. */
AVATAR_API int32_t avatar_cuda_skin(avatar_call* call, const void* means, const void* quats, const void* weights,
                                    const void* offsets, const void* transforms, const void* transform_quats, int64_t n,
                                    void* posed_means, void* posed_quats, void* stream);

/* Bytes of workspace of avatar_cuda_skin_backward. */
AVATAR_API int64_t avatar_cuda_skin_workspace(int32_t dtype, int64_t n);

/* As avatar_skin_backward. */
AVATAR_API int32_t avatar_cuda_skin_backward(avatar_call* call, const void* means, const void* quats,
                                             const void* weights, const void* offsets, const void* transforms,
                                             const void* transform_quats, int64_t n, const void* v_posed_means,
                                             const void* v_posed_quats, void* v_means, void* v_quats, void* v_weights,
                                             void* v_offsets, void* v_transforms, void* v_transform_quats, void* workspace,
                                             void* stream);

/* As avatar_animate. */
AVATAR_API int32_t avatar_cuda_animate(avatar_call* call, const void* means, const void* quats, const void* scales,
                                   const void* opacities, const void* colors, const void* weights,
                                   const int32_t* bind_index, const void* bind_weight, int64_t n, const void* changes,
                                   int64_t changed, const void* vertices, int32_t num_vertices, const void* transforms,
                                   const void* transform_quats, const void* warp, int32_t warp_rows,
                                   int32_t warp_columns, const void* warp_frame, const void* viewmat,
                                   const void* intrinsics, int32_t width, int32_t height, double eps2d, double near_plane, int32_t* radii,
                                   void* means2d, void* depths, void* conics, void* posed_opacities,
                                   void* posed_colors, void* stream);

/* Bytes of workspace of avatar_cuda_bin_count. */
AVATAR_API int64_t avatar_cuda_bin_count_workspace(int32_t dtype, int64_t n);

/* As avatar_bin_count, but for tile_offsets, which come with the lists: slot_offsets [n+1] and limits [n]. The number
 * of pairs is slot_offsets[n]; 2^31-1 stands for that many or more. */
AVATAR_API int32_t avatar_cuda_bin_count(avatar_call* call, const void* means2d, const void* conics,
                                         const void* opacities, const int32_t* radii, int64_t n, int32_t width,
                                         int32_t height, int32_t* slot_offsets, void* limits, void* workspace,
                                         void* stream);

/* Bytes of workspace of avatar_cuda_bin_fill. */
AVATAR_API int64_t avatar_cuda_bin_fill_workspace(int32_t dtype, int64_t capacity, int32_t width,
                                                  int32_t height);

/* Sort at most `capacity` pairs into tile lists: tile_offsets [tiles+1], ids and slots [capacity], as avatar_bin_fill
 * writes them. A caller who has read slot_offsets[n] passes that as capacity. One who must not wait passes an upper
 * bound; entries behind the last pair are then filled up and in no list. Where there are more pairs than capacity,
 * those of the last Gaussians are left out and *overflow (may be null) is set to 1; otherwise it is left as it is. */
AVATAR_API int32_t avatar_cuda_bin_fill(avatar_call* call, const void* means2d, const void* conics,
                                        const void* opacities, const void* depths, const int32_t* radii, int64_t n,
                                        int32_t width, int32_t height, const int32_t* slot_offsets, int64_t capacity,
                                        int32_t* tile_offsets, int32_t* ids, int32_t* slots, int32_t* overflow,
                                        void* workspace, void* stream);

/* As avatar_rasterize, but last [height,width] is the index in the tile's list of the last Gaussian blended, or -1. */
AVATAR_API int32_t avatar_cuda_rasterize(avatar_call* call, const void* means2d, const void* conics,
                                         const void* colors, const void* opacities, int64_t n, int32_t channels,
                                         const void* background, int32_t background_stride, int32_t width,
                                         int32_t height, const void* limits, const int32_t* tile_offsets,
                                         const int32_t* ids, void* image, void* final_t, int32_t* last, void* stream);

/* As avatar_draw. */
AVATAR_API int32_t avatar_cuda_draw(avatar_call* call, const void* means2d, const void* conics, const void* colors,
                                const void* opacities, int64_t n, int32_t channels, const void* background,
                                int32_t background_stride, int32_t width, int32_t height, const void* limits,
                                const int32_t* tile_offsets, const int32_t* ids, void* image,
                                void* stream);

/* Bytes of workspace of avatar_cuda_rasterize_backward. */
AVATAR_API int64_t avatar_cuda_rasterize_workspace(int32_t dtype, int64_t capacity, int32_t channels, int32_t width,
                                                   int32_t height);

/* As avatar_rasterize_backward; capacity is the length of ids and slots. */
AVATAR_API int32_t avatar_cuda_rasterize_backward(
    avatar_call* call, const void* means2d, const void* conics, const void* colors, const void* opacities, int64_t n,
    int32_t channels, const void* background, int32_t background_stride, int32_t width, int32_t height,
    const void* limits, const int32_t* tile_offsets, const int32_t* ids, const int32_t* slots,
    const int32_t* slot_offsets, int64_t capacity, const void* final_t, const int32_t* last, const void* v_image,
    const void* v_final_t, void* v_means2d, void* v_conics, void* v_colors, void* v_opacities, void* workspace,
    void* stream);

/* Bytes of workspace of avatar_cuda_ssim. */
AVATAR_API int64_t avatar_cuda_ssim_workspace(int32_t dtype, int32_t height, int32_t width, int32_t channels);

/* As avatar_ssim; mean [1] is on the device. */
AVATAR_API int32_t avatar_cuda_ssim(avatar_call* call, const void* a, const void* b, int32_t height, int32_t width,
                                    int32_t channels, void* mean, void* partials, void* partials_b, void* workspace,
                                    void* stream);

/* As avatar_ssim_backward; v_mean [1] is on the device. */
AVATAR_API int32_t avatar_cuda_ssim_backward(avatar_call* call, const void* a, const void* b, const void* partials,
                                             const void* v_mean, int32_t height, int32_t width, int32_t channels,
                                             void* v_a, void* stream);

/* Bytes of workspace of avatar_cuda_l1_ssim. */
AVATAR_API int64_t avatar_cuda_l1_ssim_workspace(int32_t dtype, int32_t height, int32_t width, int32_t channels);

/* The image loss of training with its gradient: image, target [height,width,channels], weight [height,width] (null:
 * 1) -> terms [4]: loss, L1, SSIM, squared error, each a mean, with L1 weighted and
 * loss = (1 - ssim_weight) L1 + ssim_weight (1 - SSIM). v_image (null: not wanted) receives d loss / d image. */
AVATAR_API int32_t avatar_cuda_l1_ssim(avatar_call* call, const void* image, const void* target, const void* weight,
                                       double ssim_weight, int32_t height, int32_t width, int32_t channels,
                                       void* terms, void* v_image, void* workspace, void* stream);

/* As avatar_adam_step. */
AVATAR_API int32_t avatar_cuda_adam_step(avatar_call* call, void* param, const void* grad, void* exp_avg,
                                         void* exp_avg_sq, int64_t n, double lr, double beta1, double beta2, double eps,
                                         int64_t step, void* stream);

/* The deformation network behind its cached spatial code (avatar/fields/deformation.py):
 * out = scale * (head_weight relu(middle_weight relu(base + attention * condition) + middle_bias) + head_bias), with
 * code [n,2*hidden] = base, attention; condition [hidden], middle_weight [hidden,hidden], middle_bias [hidden],
 * head_weight [outputs,hidden], head_bias and scale [outputs] -> out [n,outputs].
 * float32, hidden 64, 1 to 16 outputs; others are AVATAR_UNSUPPORTED. */
AVATAR_API int32_t avatar_cuda_deform_code(avatar_call* call, const void* code, const void* condition,
                                           const void* middle_weight, const void* middle_bias, const void* head_weight,
                                           const void* head_bias, const void* scale, int64_t n, int32_t hidden,
                                           int32_t outputs, void* out, void* stream);

/* As avatar_radiance_mlp, for inputs, attention, gates, hidden, outputs, color of 36, 16, 3, 32, 16, 32 and, in float32,
 * 36, 16, 3, 64, 32, 64; others are AVATAR_UNSUPPORTED. */
AVATAR_API int32_t avatar_cuda_radiance_mlp(avatar_call* call, const void* features, int64_t n, int32_t inputs,
                                            int32_t attention, int32_t gates, int32_t hidden, int32_t outputs,
                                            int32_t color, const void* parameters, void* densities, void* colors,
                                            void* gate_values, void* stream);

/* What the gradients of the radiance network are products of, one row of n samples per unit. layers: attention, hidden,
 * gates, outputs (geometry; the row of the logit is zero), color. v_layers, cotangents before the activation:
 * attention, hidden, gates, outputs, color, rgb. */
AVATAR_API int32_t avatar_cuda_radiance_mlp_backward(avatar_call* call, const void* features, int64_t n, int32_t inputs,
                                                     int32_t attention, int32_t gates, int32_t hidden, int32_t outputs,
                                                     int32_t color, const void* parameters, const void* v_densities,
                                                     const void* v_colors, const void* v_gates, void* layers,
                                                     void* v_layers, void* stream);

/* Bytes of workspace of avatar_cuda_sample_rays_count, to be handed on unchanged to avatar_cuda_sample_rays_fill. */
AVATAR_API int64_t avatar_cuda_sample_rays_workspace(int32_t dtype, int64_t rays, int32_t max_samples);

/* As avatar_sample_rays_count; box is a host array. */
AVATAR_API int32_t avatar_cuda_sample_rays_count(avatar_call* call, const void* origins, const void* directions,
                                                 const void* limits, const void* jitter, int64_t rays,
                                                 const double* box, const uint8_t* occupancy, int32_t depth,
                                                 int32_t height, int32_t bytes, double step, int32_t max_samples,
                                                 int64_t budget, int32_t* offsets, int32_t* totals, void* workspace,
                                                 void* stream);

/* As avatar_sample_rays_fill. */
AVATAR_API int32_t avatar_cuda_sample_rays_fill(avatar_call* call, int64_t rays, double step, int32_t max_samples,
                                                const int32_t* offsets, void* starts, void* ends, void* workspace,
                                                void* stream);

/* As avatar_ray_points. */
AVATAR_API int32_t avatar_cuda_ray_points(avatar_call* call, const int32_t* offsets, const void* starts,
                                          const void* ends, const void* origins, const void* directions, int64_t rays,
                                          void* points, void* stream);

/* As avatar_ray_points_backward. */
AVATAR_API int32_t avatar_cuda_ray_points_backward(avatar_call* call, const int32_t* offsets, const void* starts,
                                                   const void* ends, const void* v_points, int64_t rays,
                                                   void* v_origins, void* v_directions, void* stream);

/* Volume rendering of packed samples (Max 1995; nerfacc's `rendering` without background): ray r owns the samples
 * [offsets[r], offsets[r+1]), ordered along the ray, of interval [starts, ends] and constant density in it.
 * colors [samples,channels] -> color [rays,channels], opacity [rays], depth [rays] (mean of the intervals' middles by
 * weight, over the opacity), transmittance [samples] (what is left before each sample; backward needs it). */
AVATAR_API int32_t avatar_cuda_march_rays(avatar_call* call, const int32_t* offsets, const void* starts, const void* ends,
                                     const void* densities, const void* colors, int64_t rays, int32_t channels,
                                     void* color, void* opacity, void* depth, void* transmittance, void* stream);

/* Cotangents of avatar_cuda_march_rays for densities [samples] and colors [samples,channels]. */
AVATAR_API int32_t avatar_cuda_march_rays_backward(avatar_call* call, const int32_t* offsets, const void* starts,
                                              const void* ends, const void* densities, const void* colors,
                                              int64_t rays, int32_t channels, const void* opacity, const void* depth,
                                              const void* transmittance, const void* v_color, const void* v_opacity,
                                              const void* v_depth, void* v_densities, void* v_colors, void* stream);

#ifdef __cplusplus
}
#endif

#endif
