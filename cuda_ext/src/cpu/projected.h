// Projected Gaussians, one vector register of them at a time, to the arrays of the C ABI.
#pragma once

#include "common.h"
#include "rows.h"

namespace avatar {
namespace AVATAR_ISA {

template <typename T>
CameraModel<Lanes<T>> broadcast(const CameraModel<T>& camera) {
  using V = Lanes<T>;
  CameraModel<V> out;
  for (int i = 0; i < 9; ++i) out.rotation[i] = V(camera.rotation[i]);
  for (int i = 0; i < 3; ++i) out.translation[i] = V(camera.translation[i]);
  out.fx = V(camera.fx);
  out.fy = V(camera.fy);
  out.cx = V(camera.cx);
  out.cy = V(camera.cy);
  out.low_x = V(camera.low_x);
  out.high_x = V(camera.high_x);
  out.low_y = V(camera.low_y);
  out.high_y = V(camera.high_y);
  out.eps2d = V(camera.eps2d);
  return out;
}

// Write the rows of the lanes whose radius is positive, and zeros for the others.
template <int Columns, typename T>
void scatter_rows(const Lanes<T> in[Columns], const int32_t* radii, int64_t first, int64_t end, T* array) {
  T column[Columns][Lanes<T>::kCount];
  for (int k = 0; k < Columns; ++k) in[k].store(column[k]);
  for (int lane = 0; lane < Lanes<T>::kCount && first + lane < end; ++lane)
    for (int k = 0; k < Columns; ++k)
      array[(first + lane) * Columns + k] = radii[first + lane] > 0 ? column[k][lane] : T(0);
}

// Decide which lanes are seen, and write them; zeros for the others.
template <typename T>
void store_projected(const ProjectedGaussian<Lanes<T>>& g, int64_t first, int64_t end, int width, int height,
                     double near_plane, int32_t* radii, T* means2d, T* depths, T* conics) {
  constexpr int kCount = Lanes<T>::kCount;
  T x[kCount], y[kCount], depth[kCount], reach[kCount], determinant[kCount];
  g.x.store(x);
  g.y.store(y);
  g.depth.store(depth);
  g.determinant.store(determinant);
  (Lanes<T>(3.0) * root(g.largest)).store(reach);
  for (int lane = 0; lane < kCount && first + lane < end; ++lane) {
    // Phrased so that a NaN anywhere culls the Gaussian.
    const bool seen = depth[lane] >= T(near_plane) && determinant[lane] > T(0) && reach[lane] < T(1e9) &&
                      x[lane] + reach[lane] > T(0) && x[lane] - reach[lane] < T(width) &&
                      y[lane] + reach[lane] > T(0) && y[lane] - reach[lane] < T(height);
    radii[first + lane] = seen ? static_cast<int32_t>(::ceil(reach[lane])) : 0;
  }
  const Lanes<T> center[2] = {g.x, g.y}, conic[3] = {g.a, g.b, g.c};
  scatter_rows<2>(center, radii, first, end, means2d);
  scatter_rows<1>(&g.depth, radii, first, end, depths);
  scatter_rows<3>(conic, radii, first, end, conics);
}

}  // namespace AVATAR_ISA
}  // namespace avatar
