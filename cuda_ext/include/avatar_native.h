/* C ABI of the native kernels.
 *
 * Rules: no torch, no globals, no allocation but of threads (the caller passes outputs and workspace), no abort. Every
 * function returns an avatar_status and, when it is not AVATAR_OK, writes a sentence to call->message. Arrays are dense,
 * row-major; `void*` arrays hold float or double according to call->dtype. Results do not depend on num_threads.
 * Sizes that are negative or too large for the index types (avatar_checks.h) and missing arrays are AVATAR_BAD_ARGUMENT;
 * an array may be null where it has no elements. A workspace is -1 bytes where the sizes are refused.
 *
 * avatar/native/_abi.py is generated from this file by cuda_ext/generate_abi.py; keep one declaration per function.
 */
#ifndef AVATAR_NATIVE_H
#define AVATAR_NATIVE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define AVATAR_API __declspec(dllexport)
#else
#define AVATAR_API __attribute__((visibility("default")))
#endif

#define AVATAR_ABI_VERSION 11

enum avatar_status { AVATAR_OK = 0, AVATAR_BAD_ARGUMENT = 1, AVATAR_UNSUPPORTED = 2 };
enum avatar_dtype { AVATAR_FLOAT32 = 0, AVATAR_FLOAT64 = 1 };
enum avatar_isa {
  AVATAR_ISA_AUTO = 0,
  AVATAR_ISA_BASELINE = 1,
  AVATAR_ISA_AVX2 = 2,
  AVATAR_ISA_AVX512 = 3,
  AVATAR_ISA_AVX512_BF16 = 4
};

typedef struct avatar_call {
  int32_t dtype;       /* enum avatar_dtype */
  int32_t num_threads; /* at least 1 */
  int32_t isa;         /* enum avatar_isa; one that this machine lacks is AVATAR_UNSUPPORTED */
  int32_t reserved;
  char message[240];
} avatar_call;

AVATAR_API int32_t avatar_abi_version(void);

/* The best instruction set of this machine that was compiled in (enum avatar_isa). */
AVATAR_API int32_t avatar_best_isa(void);

/* points [n,3] in [-1,1] (clamped), table [3,levels,rows,features], resolutions [levels] -> out [n,3*levels*features].
 * Planes are xy, yz, xz. */
AVATAR_API int32_t avatar_triplane_encode(avatar_call* call, const void* points, const void* table,
                                          const int32_t* resolutions, int64_t n, int32_t levels, int64_t rows,
                                          int32_t features, void* out);

/* v_points [n,3] and v_table (shape of table) may each be null. */
AVATAR_API int32_t avatar_triplane_encode_backward(avatar_call* call, const void* points, const void* table,
                                                   const int32_t* resolutions, int64_t n, int32_t levels,
                                                   int64_t rows, int32_t features, const void* v_out, void* v_points,
                                                   void* v_table);

/* means [n,3], quats [n,4] wxyz of any length, scales [n,3], viewmat [4,4] world to camera, K [3,3]
 * -> radii [n] pixels (0: culled, other outputs zero), means2d [n,2], depths [n], conics [n,3]. */
AVATAR_API int32_t avatar_project(avatar_call* call, const void* means, const void* quats, const void* scales,
                                  const void* viewmat, const void* intrinsics, int64_t n, int32_t width,
                                  int32_t height, double eps2d, double near_plane, int32_t* radii, void* means2d,
                                  void* depths, void* conics);

/* Bytes of workspace of avatar_project_backward. */
AVATAR_API int64_t avatar_project_workspace(int32_t dtype, int64_t n);

/* v_viewmat [4,4] may be null (its last row is written as zero). */
AVATAR_API int32_t avatar_project_backward(avatar_call* call, const void* means, const void* quats,
                                           const void* scales, const void* viewmat, const void* intrinsics, int64_t n,
                                           int32_t width, int32_t height, double eps2d, const int32_t* radii,
                                           const void* v_means2d, const void* v_depths, const void* v_conics,
                                           void* v_means, void* v_quats, void* v_scales, void* v_viewmat,
                                           void* workspace);

/* The skin: means [n,3], quats [n,4], weights [n], offsets [n,3], transforms [2,3,4] (affine), transform_quats [2,4] (wxyz)
 * -> posed_means [n,3] = weight * move_0(mean) + (1 - weight) * move_1(mean + offset),
 *    posed_quats [n,4] = (weight * turn_0 + (1 - weight) * turn_1) * quat. */
AVATAR_API int32_t avatar_skin(avatar_call* call, const void* means, const void* quats, const void* weights,
                               const void* offsets, const void* transforms, const void* transform_quats, int64_t n, void* posed_means,
                               void* posed_quats);

/* Bytes of workspace of avatar_skin_backward. */
AVATAR_API int64_t avatar_skin_workspace(int32_t dtype, int64_t n);

/* v_transforms and v_transform_quats may both be null. */
AVATAR_API int32_t avatar_skin_backward(avatar_call* call, const void* means, const void* quats, const void* weights,
                                        const void* offsets, const void* transforms, const void* transform_quats, int64_t n,
                                        const void* v_posed_means, const void* v_posed_quats, void* v_means,
                                        void* v_quats, void* v_weights, void* v_offsets, void* v_transforms, void* v_transform_quats,
                                        void* workspace);

/* One frame of playback: canonical Gaussians as they are learned (scales as logarithms, opacities as logits; weights
 * [n] of skinning, 0..1) to projected ones. bind_index [n,3] and bind_weight [n,3]: the vertices [num_vertices,3],
 * displacements of the face mesh, that move a Gaussian. changes [changed,10]: of mean (3), scale (3), opacity (1) and
 * color (3) of the first `changed`. warp [warp_rows,warp_columns,2]: displacements of the torso at the nodes of a grid;
 * warp_frame [7]: its pivot (3), and its lower (2) and upper (2) corner from there. The rest as avatar_skin and
 * avatar_project; posed_opacities [n], posed_colors [n,3]. */
AVATAR_API int32_t avatar_animate(avatar_call* call, const void* means, const void* quats, const void* scales,
                                   const void* opacities, const void* colors, const void* weights,
                                   const int32_t* bind_index, const void* bind_weight, int64_t n, const void* changes,
                                   int64_t changed, const void* vertices, int32_t num_vertices, const void* transforms,
                                   const void* transform_quats, const void* warp, int32_t warp_rows,
                                   int32_t warp_columns, const void* warp_frame, const void* viewmat,
                                   const void* intrinsics, int32_t width, int32_t height, double eps2d, double near_plane, int32_t* radii,
                                   void* means2d, void* depths, void* conics, void* posed_opacities,
                                   void* posed_colors);

/* Bytes of workspace of avatar_bin_count, to be handed on unchanged to avatar_bin_fill. */
AVATAR_API int64_t avatar_bin_workspace(int32_t dtype, int64_t n, int32_t width, int32_t height);

/* Count the (tile, Gaussian) pairs: tiles are 16x16 pixels, row-major; a Gaussian is in a tile when its ellipse of
 * alpha >= 1/255 reaches the tile's rows and columns. Writes slot_offsets [n+1] (pairs of each Gaussian, summed),
 * tile_offsets [tiles+1], *num_pairs and limits [n]: alpha >= 1/255 where 2 sigma <= limit. AVATAR_UNSUPPORTED where
 * slot_offsets and tile_offsets do not end alike: avatar_bin_fill would write past its arrays. */
AVATAR_API int32_t avatar_bin_count(avatar_call* call, const void* means2d, const void* conics, const void* opacities,
                                    const void* depths, const int32_t* radii, int64_t n, int32_t width,
                                    int32_t height, int32_t* slot_offsets, int32_t* tile_offsets, int64_t* num_pairs,
                                    void* limits, void* workspace);

/* Write the tile lists, front to back, equal depths by index: ids [num_pairs] Gaussian of each pair, and slots
 * [num_pairs] its place when pairs are ordered by Gaussian. slots may be null; only the backward pass reads them. */
AVATAR_API int32_t avatar_bin_fill(avatar_call* call, const void* means2d, const void* conics, const void* opacities,
                                   int64_t n, int32_t width, int32_t height, const int32_t* slot_offsets,
                                   int32_t* ids, int32_t* slots, void* workspace);

/* Bytes of workspace of avatar_rasterize (num_pairs = 0) and avatar_rasterize_backward. */
AVATAR_API int64_t avatar_rasterize_workspace(int32_t dtype, int64_t n, int64_t num_pairs, int32_t channels);

/* Blend the tile lists: image [height,width,channels], final_t [height,width] (transmittance left), last [height,width]
 * (index in the tile's list of the last Gaussian before blending stopped: the end of the list, mostly; -1: none). background may be null; background_stride is 0
 * for one color [channels], or `channels` for an image. */
AVATAR_API int32_t avatar_rasterize(avatar_call* call, const void* means2d, const void* conics, const void* colors,
                                    const void* opacities, int64_t n, int32_t channels, const void* background,
                                    int32_t background_stride, int32_t width, int32_t height,
                                    const void* limits, const int32_t* tile_offsets, const int32_t* ids, void* image,
                                    void* final_t, int32_t* last, void* workspace);

/* Cotangents of avatar_rasterize. v_final_t [height,width] may be null. */
AVATAR_API int32_t avatar_rasterize_backward(avatar_call* call, const void* means2d, const void* conics,
                                             const void* colors, const void* opacities, int64_t n, int32_t channels,
                                             const void* background, int32_t background_stride, int32_t width,
                                             int32_t height, const void* limits, const int32_t* tile_offsets,
                                             const int32_t* ids, const int32_t* slots, const int32_t* slot_offsets, const void* final_t,
                                             const int32_t* last, const void* v_image, const void* v_final_t,
                                             void* v_means2d, void* v_conics, void* v_colors, void* v_opacities,
                                             void* workspace);

/* For playback: avatar_rasterize to bytes, image [height,width,channels] of uint8_t, 255 for 1 and above. */
AVATAR_API int32_t avatar_draw(avatar_call* call, const void* means2d, const void* conics, const void* colors,
                                const void* opacities, int64_t n, int32_t channels, const void* background,
                                int32_t background_stride, int32_t width, int32_t height, const void* limits,
                                const int32_t* tile_offsets, const int32_t* ids, void* image,
                                void* workspace);

/* Bytes of workspace of avatar_ssim and avatar_ssim_backward. */
AVATAR_API int64_t avatar_ssim_workspace(int32_t dtype, int32_t num_threads, int32_t height, int32_t width,
                                         int32_t channels);

/* a, b [height,width,channels] -> *mean. `partials` [3,height,width,channels] (null: not wanted) receives the
 * derivatives of the local SSIM by mean, square and product, with respect to a; partials_b likewise for b. */
AVATAR_API int32_t avatar_ssim(avatar_call* call, const void* a, const void* b, int32_t height, int32_t width,
                               int32_t channels, void* mean, void* partials, void* partials_b, void* workspace);

/* v_a [height,width,channels] = v_mean * d mean / d a. */
AVATAR_API int32_t avatar_ssim_backward(avatar_call* call, const void* a, const void* b, const void* partials,
                                        double v_mean, int32_t height, int32_t width, int32_t channels, void* v_a,
                                        void* workspace);

/* Bytes of workspace of avatar_l1_ssim. */
AVATAR_API int64_t avatar_l1_ssim_workspace(int32_t dtype, int32_t num_threads, int32_t height, int32_t width,
                                            int32_t channels);

/* image, target [height,width,channels], weight [height,width] (null: 1) -> terms [4]: loss, L1, SSIM, squared error,
 * each a mean, with L1 weighted and loss = (1 - ssim_weight) L1 + ssim_weight (1 - SSIM). v_image (null: not wanted)
 * receives d loss / d image. */
AVATAR_API int32_t avatar_l1_ssim(avatar_call* call, const void* image, const void* target, const void* weight,
                                  double ssim_weight, int32_t height, int32_t width, int32_t channels, void* terms,
                                  void* v_image, void* workspace);

/* Bytes of workspace of avatar_deform_mlp and avatar_deform_mlp_backward. */
AVATAR_API int64_t avatar_deform_mlp_workspace(int32_t dtype, int32_t num_threads, int32_t inputs, int32_t hidden,
                                               int32_t outputs);

/* The deformation network -> out [n,outputs]:
 *   [base, gate] = features spatial_weight^T + spatial_bias, attention = 2 sigmoid(gate)
 *   out = (relu(relu(base + attention condition) middle_weight^T + middle_bias) head_weight^T + head_bias) scale
 * features [n,inputs], or null and code [n,2*hidden] = [base, attention] (then inputs is 1 and the spatial arrays are
 * null); spatial_weight [2*hidden,inputs], condition [hidden], middle_weight [hidden,hidden],
 * head_weight [outputs,hidden], scale [outputs]. */
AVATAR_API int32_t avatar_deform_mlp(avatar_call* call, const void* features, const void* code, int64_t n,
                                     int32_t inputs, int32_t hidden, int32_t outputs, const void* spatial_weight,
                                     const void* spatial_bias, const void* condition, const void* middle_weight,
                                     const void* middle_bias, const void* head_weight, const void* head_bias,
                                     const void* scale, void* out, void* workspace);

/* Cotangents of all inputs but the scale. */
AVATAR_API int32_t avatar_deform_mlp_backward(
    avatar_call* call, const void* features, int64_t n, int32_t inputs, int32_t hidden, int32_t outputs,
    const void* spatial_weight, const void* spatial_bias, const void* condition, const void* middle_weight,
    const void* middle_bias, const void* head_weight, const void* head_bias, const void* scale, const void* v_out,
    void* v_features, void* v_spatial_weight, void* v_spatial_bias, void* v_condition, void* v_middle_weight,
    void* v_middle_bias, void* v_head_weight, void* v_head_bias, void* workspace);

/* Bytes of workspace of avatar_deform_code_bf16; dtype is float32. */
AVATAR_API int64_t avatar_deform_code_bf16_workspace(int32_t dtype, int32_t num_threads, int32_t hidden,
                                                     int32_t outputs);

/* avatar_deform_mlp from a code [n,2*hidden] of bfloat16: weights and activations are rounded to bfloat16, all else is
 * float. Instruction sets before AVATAR_ISA_AVX512_BF16 are AVATAR_UNSUPPORTED. */
AVATAR_API int32_t avatar_deform_code_bf16(avatar_call* call, const void* code, int64_t n, int32_t hidden,
                                           int32_t outputs, const void* condition, const void* middle_weight,
                                           const void* middle_bias, const void* head_weight, const void* head_bias,
                                           const void* scale, void* out, void* workspace);

/* Bytes of workspace of avatar_radiance_mlp and avatar_radiance_mlp_backward. */
AVATAR_API int64_t avatar_radiance_mlp_workspace(int32_t dtype, int32_t num_threads, int32_t inputs, int32_t attention,
                                                 int32_t gates, int32_t hidden, int32_t outputs, int32_t color);

/* The radiance network -> densities [n], colors [n,3], gates [n,gates]:
 *   gates = sigmoid(relu(features attention_weight^T + attention_bias) gate_weight^T + gate_bias)
 *   hidden = relu(features base_weight^T + base_bias + gates conditions)
 *   [logit, geometry] = hidden density_weight^T + density_bias, density = exp(min(logit, 11))
 *   colors = sigmoid(relu(geometry color_weight^T + color_bias) rgb_weight^T + rgb_bias)
 * features [n,inputs]; parameters: attention_weight [attention,inputs], attention_bias, gate_weight [gates,attention],
 * gate_bias, base_weight [hidden,inputs], base_bias, conditions [gates,hidden], density_weight [outputs,hidden],
 * density_bias, color_weight [color,outputs-1], color_bias, rgb_weight [3,color], rgb_bias, one after the other. */
AVATAR_API int32_t avatar_radiance_mlp(avatar_call* call, const void* features, int64_t n, int32_t inputs,
                                       int32_t attention, int32_t gates, int32_t hidden, int32_t outputs, int32_t color,
                                       const void* parameters, void* densities, void* colors, void* gate_values,
                                       void* workspace);

/* Cotangents of features and parameters; that of the density does not vanish where its logit is cut. */
AVATAR_API int32_t avatar_radiance_mlp_backward(avatar_call* call, const void* features, int64_t n, int32_t inputs,
                                                int32_t attention, int32_t gates, int32_t hidden, int32_t outputs,
                                                int32_t color, const void* parameters, const void* v_densities,
                                                const void* v_colors, const void* v_gates, void* v_features,
                                                void* v_parameters, void* workspace);

/* Bytes of workspace of avatar_radiance_mlp_bf16; dtype is float32. */
AVATAR_API int64_t avatar_radiance_mlp_bf16_workspace(int32_t dtype, int32_t num_threads, int32_t inputs,
                                                      int32_t attention, int32_t gates, int32_t hidden, int32_t outputs,
                                                      int32_t color);

/* avatar_radiance_mlp with features, weights and activations rounded to bfloat16; all else is float. Instruction sets
 * before AVATAR_ISA_AVX512_BF16 are AVATAR_UNSUPPORTED. */
AVATAR_API int32_t avatar_radiance_mlp_bf16(avatar_call* call, const void* features, int64_t n, int32_t inputs,
                                            int32_t attention, int32_t gates, int32_t hidden, int32_t outputs,
                                            int32_t color, const void* parameters, void* densities, void* colors,
                                            void* gate_values, void* workspace);

/* Bytes of workspace of avatar_sample_rays_count, to be handed on unchanged to avatar_sample_rays_fill. */
AVATAR_API int64_t avatar_sample_rays_workspace(int32_t dtype, int64_t rays, int32_t max_samples);

/* Find the samples of rays: origins, directions [rays,3]; limits [rays,2] (nearest and farthest distance) and jitter
 * [rays] (in steps) may be null; box [6] of double: lower and upper corner; occupancy [depth,height,bytes], one bit per
 * cell, x fastest, the first cell lowest. From first = max(0, limit, box) + jitter step, interval k is
 * [first + k step, first + (k + 1) step], k below 4096. It is a sample where its middle lies before the exit and in a
 * cell that is set, up to max_samples of a ray. Writes offsets [rays+1] and totals [2]: samples, and rays from the first
 * on whose samples fit into the budget (1 or more); rays behind them have none. */
AVATAR_API int32_t avatar_sample_rays_count(avatar_call* call, const void* origins, const void* directions,
                                            const void* limits, const void* jitter, int64_t rays, const double* box,
                                            const uint8_t* occupancy, int32_t depth, int32_t height, int32_t bytes,
                                            double step, int32_t max_samples, int64_t budget, int32_t* offsets,
                                            int32_t* totals, void* workspace);

/* Write starts and ends of the samples. */
AVATAR_API int32_t avatar_sample_rays_fill(avatar_call* call, int64_t rays, double step, int32_t max_samples,
                                           const int32_t* offsets, void* starts, void* ends, void* workspace);

/* Points of samples in the middle of their intervals: points [samples,3] = origin + middle direction of their ray. */
AVATAR_API int32_t avatar_ray_points(avatar_call* call, const int32_t* offsets, const void* starts, const void* ends,
                                     const void* origins, const void* directions, int64_t rays, void* points);

/* Cotangents of origins and directions. */
AVATAR_API int32_t avatar_ray_points_backward(avatar_call* call, const int32_t* offsets, const void* starts,
                                              const void* ends, const void* v_points, int64_t rays, void* v_origins,
                                              void* v_directions);

/* Volume rendering: ray r owns the samples offsets[r] to offsets[r+1], intervals [starts, ends] of constant density and
 * color [channels] -> color [rays,channels], opacity [rays], depth [rays] (mean of the middles by weight), and
 * transmittance before each sample. offsets [rays+1] must not go down. */
AVATAR_API int32_t avatar_march_rays(avatar_call* call, const int32_t* offsets, const void* starts, const void* ends,
                                const void* densities, const void* colors, int64_t rays, int32_t channels,
                                void* color, void* opacity, void* depth, void* transmittance);

/* Cotangents of densities and colors. */
AVATAR_API int32_t avatar_march_rays_backward(avatar_call* call, const int32_t* offsets, const void* starts,
                                         const void* ends, const void* densities, const void* colors, int64_t rays,
                                         int32_t channels, const void* opacity, const void* depth,
                                         const void* transmittance, const void* v_color, const void* v_opacity,
                                         const void* v_depth, void* v_densities, void* v_colors);

/* Bytes of workspace of avatar_draw_field. */
AVATAR_API int64_t avatar_draw_field_workspace(int32_t dtype, int32_t num_threads, int32_t inputs, int32_t attention,
                                               int32_t gates, int32_t hidden, int32_t outputs, int32_t color);

/* A radiance field drawn in one pass, for playback: image [height,width,4], color times opacity, and opacity. view
 * [12]: the origin of all rays, then the matrix that takes (x + 1/2, y + 1/2, 1) of a pixel to its direction; pixels
 * from (x, y) on, or where places [height,width,2] says, if it is not null: 1/2, 1/2 is the first pixel's. Samples as by avatar_sample_rays_count from occupancy [depth,cells_high,bytes], from front to back
 * until less than `darkest` of the light behind shows; held is the part of the box outside of which no cell is set.
 * Their density counts behind front [front_rows,front_columns], the depth (z) over the box from which on it rises
 * within `rise`. neck [4]: it fades within neck[3] below y = neck[0] + neck[2] max(z - neck[1], 0), at rest: a sample
 * is evaluated at its place less what moved [3,nodes_z,nodes_y,nodes_x] is there, nodes on the corners of moved_box.
 * bounds: of the tri-plane, as for avatar_triplane_encode; network as for avatar_radiance_mlp. All boxes [6]: lower
 * and upper corner; arrays of double as declared, void ones of the call's type. */
AVATAR_API int32_t avatar_draw_field(avatar_call* call, const double* view, int32_t x, int32_t y, int32_t width,
                                     int32_t height, const void* places, const double* box, const double* held,
                                     const uint8_t* occupancy, int32_t depth, int32_t cells_high, int32_t bytes,
                                     double step, double darkest, int32_t max_samples, const void* front, int32_t front_rows,
                                     int32_t front_columns, double rise, const double* neck, const void* moved,
                                     int32_t nodes_x, int32_t nodes_y, int32_t nodes_z, const double* moved_box,
                                     const double* bounds, const void* table, const int32_t* resolutions,
                                     int32_t levels, int64_t rows, int32_t features, int32_t inputs,
                                     int32_t attention, int32_t gates, int32_t hidden, int32_t outputs, int32_t color,
                                     const void* parameters, void* image, void* workspace);

/* Bytes of workspace of avatar_draw_field_bf16; dtype is float32. */
AVATAR_API int64_t avatar_draw_field_bf16_workspace(int32_t dtype, int32_t num_threads, int32_t inputs,
                                                    int32_t attention, int32_t gates, int32_t hidden, int32_t outputs,
                                                    int32_t color);

/* avatar_draw_field with the network as in avatar_radiance_mlp_bf16. */
AVATAR_API int32_t avatar_draw_field_bf16(avatar_call* call, const double* view, int32_t x, int32_t y, int32_t width,
                                          int32_t height, const void* places, const double* box, const double* held,
                                          const uint8_t* occupancy, int32_t depth, int32_t cells_high, int32_t bytes,
                                          double step, double darkest, int32_t max_samples, const void* front,
                                          int32_t front_rows, int32_t front_columns, double rise, const double* neck,
                                          const void* moved, int32_t nodes_x, int32_t nodes_y, int32_t nodes_z,
                                          const double* moved_box, const double* bounds, const void* table,
                                          const int32_t* resolutions, int32_t levels, int64_t rows, int32_t features,
                                          int32_t inputs, int32_t attention, int32_t gates, int32_t hidden,
                                          int32_t outputs, int32_t color, const void* parameters, void* image,
                                          void* workspace);

/* One Adam step in place on flat arrays of n elements. `step` counts from 1. */
AVATAR_API int32_t avatar_adam_step(avatar_call* call, void* param, const void* grad, void* exp_avg, void* exp_avg_sq,
                                    int64_t n, double lr, double beta1, double beta2, double eps, int64_t step);

#ifdef __cplusplus
}
#endif

#endif
