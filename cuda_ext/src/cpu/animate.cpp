// Canonical Gaussians to projected ones under the motion of one frame, one vector register of Gaussians at a time.
#include "avatar_animate.h"
#include "projected.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int64_t kBlock = 1024;  // Gaussians per work item

template <typename T>
SkinModel<Lanes<T>> broadcast(const T* transforms, const T* transform_quats) {
  SkinModel<Lanes<T>> skin;
  for (int i = 0; i < 24; ++i) skin.transforms[i] = Lanes<T>(transforms[i]);
  for (int i = 0; i < 8; ++i) skin.transform_quats[i] = Lanes<T>(transform_quats[i]);
  return skin;
}

template <typename T>
WarpFrame<Lanes<T>> broadcast(const T* frame) {
  WarpFrame<Lanes<T>> out;
  for (int i = 0; i < 3; ++i) out.pivot[i] = Lanes<T>(frame[i]);
  for (int i = 0; i < 2; ++i) out.low[i] = Lanes<T>(frame[3 + i]);
  for (int i = 0; i < 2; ++i) out.high[i] = Lanes<T>(frame[5 + i]);
  return out;
}

// What the face mesh does to the Gaussians of a register; rows from `end` on repeat the last.
template <typename T>
void gather_displacement(const T* vertices, int32_t num_vertices, const int32_t* bind_index, const T* bind_weight,
                         int64_t first, int64_t end, Lanes<T> out[3]) {
  T column[3][Lanes<T>::kCount];
  for (int lane = 0; lane < Lanes<T>::kCount; ++lane) {
    const int64_t g = first + lane < end ? first + lane : end - 1;
    T moved[3];
    bound_displacement(vertices, num_vertices, bind_index + kBinds * g, bind_weight + kBinds * g, moved);
    for (int i = 0; i < 3; ++i) column[i][lane] = moved[i];
  }
  for (int i = 0; i < 3; ++i) out[i] = Lanes<T>::load(column[i]);
}

template <typename T>
void gather_warp(const WarpFrame<Lanes<T>>& frame, const T* warp, int rows, int columns, const Lanes<T> mean[3],
                 Lanes<T> out[3]) {
  const WarpPlace<Lanes<T>> place = warp_place(frame, rows, columns, mean);
  T x[Lanes<T>::kCount], y[Lanes<T>::kCount], column[2][Lanes<T>::kCount];
  place.x.store(x);
  place.y.store(y);
  for (int lane = 0; lane < Lanes<T>::kCount; ++lane) {
    T moved[2];
    warp_at(warp, rows, columns, x[lane], y[lane], moved);
    for (int i = 0; i < 2; ++i) column[i][lane] = moved[i];
  }
  const Lanes<T> farness = Lanes<T>(1.0) / place.nearness;
  for (int i = 0; i < 2; ++i) out[i] = Lanes<T>::load(column[i]) * farness;
  out[2] = Lanes<T>(0.0);
}

// Changes of a register of Gaussians [changed,kChanges]; zeros for those from `changed` on.
template <typename T>
void gather_changes(const T* changes, int64_t changed, int64_t first, Lanes<T> out[kChanges]) {
  T column[kChanges][Lanes<T>::kCount];
  for (int lane = 0; lane < Lanes<T>::kCount; ++lane)
    for (int k = 0; k < kChanges; ++k)
      column[k][lane] = first + lane < changed ? changes[(first + lane) * kChanges + k] : T(0);
  for (int k = 0; k < kChanges; ++k) out[k] = Lanes<T>::load(column[k]);
}

}  // namespace

template <typename T>
void animate(int threads, const T* means, const T* quats, const T* scales, const T* opacities, const T* colors,
             const T* weights, const int32_t* bind_index, const T* bind_weight, int64_t n, const T* changes,
             int64_t changed, const T* vertices, int32_t num_vertices, const T* transforms, const T* transform_quats,
             const T* warp, int warp_rows, int warp_columns, const T* warp_frame, const T* viewmat, const T* intrinsics,
             int width, int height, double eps2d, double near_plane, int32_t* radii, T* means2d, T* depths, T* conics,
             T* posed_opacities, T* posed_colors) {
  using V = Lanes<T>;
  const CameraModel<V> camera = broadcast(camera_model(viewmat, intrinsics, width, height, eps2d));
  const SkinModel<V> skin = broadcast(transforms, transform_quats);
  const WarpFrame<V> frame = broadcast(warp_frame);
  parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += V::kCount) {
      V mean[3], quat[4], scale[3], opacity, color[3], weight, offset[3];
      gather_rows<3>(means, first, end, mean);
      gather_rows<4>(quats, first, end, quat);
      gather_rows<3>(scales, first, end, scale);
      gather_rows<1>(opacities, first, end, &opacity);
      gather_rows<3>(colors, first, end, color);
      gather_rows<1>(weights, first, end, &weight);
      gather_displacement(vertices, num_vertices, bind_index, bind_weight, first, end, offset);
      for (int i = 0; i < 3; ++i) mean[i] = mean[i] + offset[i];
      if (first < changed) {  // those from `changed` on get zeros
        V change[kChanges];
        gather_changes(changes, changed, first, change);
        for (int i = 0; i < 3; ++i) mean[i] = mean[i] + change[i];
        for (int i = 0; i < 3; ++i) scale[i] = scale[i] + change[3 + i];
        opacity = opacity + change[6];
        for (int i = 0; i < 3; ++i) color[i] = color[i] + change[7 + i];
      }
      gather_warp(frame, warp, warp_rows, warp_columns, mean, offset);
      const ProjectedGaussian<V> g = pose_and_project(camera, skin, mean, quat, weight, offset, scale, &opacity);
      store_projected(g, first, end, width, height, near_plane, radii, means2d, depths, conics);
      scatter_rows<1>(&opacity, first, end, posed_opacities);
      scatter_rows<3>(color, first, end, posed_colors);
    }
  });
}

#define INSTANTIATE(T)                                                                                                \
  template void animate<T>(int, const T*, const T*, const T*, const T*, const T*, const T*, const int32_t*, const T*, \
                           int64_t, const T*, int64_t, const T*, int32_t, const T*, const T*, const T*, int, int,     \
                           const T*, const T*, const T*, int, int, double, double, int32_t*, T*, T*, T*, T*, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
