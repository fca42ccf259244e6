// A canonical Gaussian to a posed one, shared by the CPU loops and the CUDA kernels: displacement by the face mesh,
// deformation, torso warp, linear blend skinning, and activations.
#pragma once

#include "avatar_skin.h"

namespace avatar {
namespace AVATAR_ISA {

constexpr int kChanges = 10;      // of means (3), log scales (3), opacity logit (1) and color (3)
constexpr int kBinds = 3;         // vertices of the face mesh that displace a Gaussian
constexpr int kWarpFrame = 7;     // numbers of a WarpFrame
constexpr double kNearest = 1e-3;  // centimetres; keeps the perspective of the warp finite


// Sum of the displacements [num_vertices,3] of a Gaussian's vertices by their weights. An index out of range reads the
// last vertex.
template <typename T>
AVATAR_HD void bound_displacement(const T* vertices, int32_t num_vertices, const int32_t* index, const T* weight,
                                  T out[3]) {
  out[0] = out[1] = out[2] = T(0);
  for (int k = 0; k < kBinds; ++k) {
    const uint32_t last = static_cast<uint32_t>(num_vertices - 1), given = static_cast<uint32_t>(index[k]);
    const T* vertex = vertices + 3 * int64_t(given < last ? given : last);
    for (int i = 0; i < 3; ++i) out[i] = out[i] + weight[k] * vertex[i];
  }
}

// Where the warp's grid lies: in the plane of the pivot, its box given from there.
template <typename T>
struct WarpFrame {
  T pivot[3];
  T low[2], high[2];
};

template <typename T>
struct WarpPlace {
  T x, y;      // in cells from the first node
  T nearness;  // depth of the plane over that of the point
};

template <typename T>
AVATAR_HD WarpPlace<T> warp_place(const WarpFrame<T>& frame, int rows, int columns, const T mean[3]) {
  WarpPlace<T> place;
  place.nearness = frame.pivot[2] / at_least(mean[2], T(kNearest));
  const T x = (mean[0] * place.nearness - frame.pivot[0] - frame.low[0]) / (frame.high[0] - frame.low[0]);
  const T y = (mean[1] * place.nearness - frame.pivot[1] - frame.low[1]) / (frame.high[1] - frame.low[1]);
  place.x = at_most(at_least(x, T(0)), T(1)) * T(columns - 1);
  place.y = at_most(at_least(y, T(0)), T(1)) * T(rows - 1);
  return place;
}

// Bilinear displacement at a place in cells, which lies in the grid.
template <typename T>
AVATAR_HD void warp_at(const T* nodes, int rows, int columns, T x, T y, T out[2]) {
  int left = static_cast<int>(x), top = static_cast<int>(y);
  left = left < columns - 2 ? left : columns - 2;
  top = top < rows - 2 ? top : rows - 2;
  const T fx = x - T(left), fy = y - T(top);
  const T* corner = nodes + 2 * (top * columns + left);
  for (int i = 0; i < 2; ++i)
    out[i] = bilinear(corner[i], corner[2 + i], corner[2 * columns + i], corner[2 * columns + 2 + i], fx, fy);
}

// Skin a Gaussian whose mean is deformed already, apply the activations, and project it. `scale` and `opacity` are
// logarithm and logit on entry; opacity and color are results.
template <typename T>
AVATAR_HD ProjectedGaussian<T> pose_and_project(const CameraModel<T>& camera, const SkinModel<T>& skin,
                                                const T mean[3], const T quat[4], T weight, const T offset[3],
                                                const T scale[3], T* opacity) {
  T posed_mean[3], posed_quat[4], size[3];
  skin_gaussian(skin, mean, quat, weight, offset, posed_mean, posed_quat);
  for (int i = 0; i < 3; ++i) size[i] = exponential(scale[i]);
  *opacity = T(1) / (T(1) + exponential(T(0) - *opacity));
  return project_gaussian(camera, posed_mean, posed_quat, size);
}

}  // namespace AVATAR_ISA
}  // namespace avatar
