// The C ABI: Gaussians and their hash grid.
#include "api.h"

extern "C" {

int32_t avatar_abi_version(void) { return AVATAR_ABI_VERSION; }

int32_t avatar_best_isa(void) { return avatar::best_isa(); }

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

int32_t avatar_triplane_encode_backward(avatar_call* call, const void* points, const void* table,
                                        const int32_t* resolutions, int64_t n, int32_t levels, int64_t rows,
                                        int32_t features, const void* v_out, void* v_points, void* v_table) {
  int32_t isa;
  AVATAR_RETURN_IF_BAD(check(call, n, &isa));
  AVATAR_RETURN_IF_BAD(check_grid(call, resolutions, levels, rows, features));
  AVATAR_REQUIRE(table);
  AVATAR_REQUIRE_IF(n, points, v_out);
  DISPATCH(K::triplane_encode_backward<T>(threads_of(call), in<T>(points), in<T>(table), resolutions, n, levels, rows,
                                          features, in<T>(v_out), out<T>(v_points), out<T>(v_table)));
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
  if (*num_pairs < 0)
    return fail(call, AVATAR_UNSUPPORTED, "counting %lld Gaussians twice found different tiles; please report this",
                static_cast<long long>(n));
  if (*num_pairs > INT32_MAX)
    return fail(call, AVATAR_UNSUPPORTED,
                "%lld Gaussians cover more than 2^31-1 tiles of an image of %d x %d pixels; expected fewer or smaller",
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

}  // extern "C"
