// Canonical Gaussians to projected ones under the motion of one frame, one thread per Gaussian.
#include "projected.h"
#include "skin.h"

#include "avatar_animate.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kThreads = 128;

// The arrays of the C ABI, in its order.
template <typename T>
struct Animation {
  const T *means, *quats, *scales, *opacities, *colors, *weights;
  const int32_t* bind_index;
  const T* bind_weight;
  int64_t n;
  const T* changes;
  int64_t changed;
  const T* vertices;
  int32_t num_vertices;
  const T *transforms, *transform_quats, *warp;
  int32_t warp_rows, warp_columns;
  const T *warp_frame, *viewmat, *intrinsics;
  int32_t width, height;
  double eps2d;
  T near_plane;
  int32_t* radii;
  T *means2d, *depths, *conics, *posed_opacities, *posed_colors;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) animate_kernel(Animation<T> a) {
  const int64_t g = global_thread();
  if (g >= a.n) return;
  T mean[3], scale[3], color[3], moved[3], opacity = a.opacities[g];
  bound_displacement(a.vertices, a.num_vertices, a.bind_index + kBinds * g, a.bind_weight + kBinds * g, moved);
  const bool changes = g < a.changed;
  const T* change = a.changes + kChanges * g;
  for (int i = 0; i < 3; ++i) {
    mean[i] = a.means[3 * g + i] + moved[i] + (changes ? change[i] : T(0));
    scale[i] = a.scales[3 * g + i] + (changes ? change[3 + i] : T(0));
    color[i] = a.colors[3 * g + i] + (changes ? change[7 + i] : T(0));
  }
  if (changes) opacity += change[6];
  WarpFrame<T> frame;
  for (int i = 0; i < 3; ++i) frame.pivot[i] = a.warp_frame[i];
  for (int i = 0; i < 2; ++i) {
    frame.low[i] = a.warp_frame[3 + i];
    frame.high[i] = a.warp_frame[5 + i];
  }
  const WarpPlace<T> place = warp_place(frame, a.warp_rows, a.warp_columns, mean);
  T offset[3];
  warp_at(a.warp, a.warp_rows, a.warp_columns, place.x, place.y, offset);
  for (int i = 0; i < 2; ++i) offset[i] = offset[i] / place.nearness;
  offset[2] = T(0);
  const CameraModel<T> camera = camera_model(a.viewmat, a.intrinsics, a.width, a.height, a.eps2d);
  const ProjectedGaussian<T> p = pose_and_project(camera, skin_model(a.transforms, a.transform_quats), mean,
                                                  a.quats + 4 * g, a.weights[g], offset, scale, &opacity);
  store_projected(p, g, a.width, a.height, a.near_plane, a.radii, a.means2d, a.depths, a.conics);
  a.posed_opacities[g] = opacity;
  for (int i = 0; i < 3; ++i) a.posed_colors[3 * g + i] = color[i];
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" int32_t avatar_cuda_animate(avatar_call* call, const void* means, const void* quats, const void* scales,
                                       const void* opacities, const void* colors, const void* weights,
                                       const int32_t* bind_index, const void* bind_weight, int64_t n, const void* changes,
                                       int64_t changed, const void* vertices, int32_t num_vertices, const void* transforms,
                                       const void* transform_quats, const void* warp, int32_t warp_rows,
                                       int32_t warp_columns, const void* warp_frame, const void* viewmat, const void* intrinsics,
                                       int32_t width, int32_t height, double eps2d, double near_plane, int32_t* radii,
                                       void* means2d, void* depths, void* conics, void* posed_opacities,
                                       void* posed_colors,
                                       void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, 1));
  AVATAR_RETURN_IF_BAD(avatar::check_animation(call, n, changed, num_vertices, warp_rows, warp_columns));
  AVATAR_REQUIRE(vertices, transforms, transform_quats, warp, warp_frame, viewmat, intrinsics);
  AVATAR_REQUIRE_IF(n, means, quats, scales, opacities, colors, weights, bind_index, bind_weight, radii, means2d,
                    depths, conics, posed_opacities, posed_colors);
  AVATAR_REQUIRE_IF(changed, changes);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    if (n == 0) return int32_t(AVATAR_OK);
    const Animation<T> animation = {
        in<T>(means),        in<T>(quats),      in<T>(scales),          in<T>(opacities),
        in<T>(colors),       in<T>(weights),    bind_index,             in<T>(bind_weight),
        n,                   in<T>(changes),    changed,                in<T>(vertices),
        num_vertices,        in<T>(transforms), in<T>(transform_quats), in<T>(warp),
        warp_rows,           warp_columns,      in<T>(warp_frame),      in<T>(viewmat),
        in<T>(intrinsics),   width,             height,                 eps2d,
        T(near_plane),       radii,             out<T>(means2d),        out<T>(depths),
        out<T>(conics),      out<T>(posed_opacities), out<T>(posed_colors)};
    return launch(call, animate_kernel<T>, blocks_for(n, kThreads), kThreads, static_cast<cudaStream_t>(stream),
                  animation);
  });
}
