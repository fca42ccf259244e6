// Projection of 3D Gaussians and its vector-Jacobian product, one vector register of Gaussians at a time.
#include "common.h"
#include "projected.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int64_t kBlock = 1024;  // Gaussians per work item; also the unit of the fixed-order view matrix reduction
constexpr int kViewTerms = 12;

}  // namespace

template <typename T>
void project(int threads, const T* means, const T* quats, const T* scales, const T* viewmat, const T* intrinsics,
             int64_t n, int width, int height, double eps2d, double near_plane, int32_t* radii, T* means2d, T* depths,
             T* conics) {
  using V = Lanes<T>;
  const CameraModel<V> camera = broadcast(camera_model(viewmat, intrinsics, width, height, eps2d));
  parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += V::kCount) {
      V mean[3], quat[4], scale[3];
      gather_rows<3>(means, first, end, mean);
      gather_rows<4>(quats, first, end, quat);
      gather_rows<3>(scales, first, end, scale);
      const ProjectedGaussian<V> g = project_gaussian(camera, mean, quat, scale);

      store_projected(g, first, end, width, height, near_plane, radii, means2d, depths, conics);
    }
  });
}

template <typename T>
int64_t project_workspace(int64_t n) {
  return (n + kBlock - 1) / kBlock * kViewTerms * static_cast<int64_t>(sizeof(double));
}

template <typename T>
void project_backward(int threads, const T* means, const T* quats, const T* scales, const T* viewmat,
                      const T* intrinsics, int64_t n, int width, int height, double eps2d, const int32_t* radii,
                      const T* v_means2d, const T* v_depths, const T* v_conics, T* v_means, T* v_quats, T* v_scales,
                      T* v_viewmat, double* workspace) {
  using V = Lanes<T>;
  const CameraModel<V> camera = broadcast(camera_model(viewmat, intrinsics, width, height, eps2d));
  parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
    double view[kViewTerms] = {};
    for (int64_t first = begin; first < end; first += V::kCount) {
      V mean[3], quat[4], scale[3], v_center[2], v_depth[1], v_conic[3];
      gather_rows<3>(means, first, end, mean);
      gather_rows<4>(quats, first, end, quat);
      gather_rows<3>(scales, first, end, scale);
      gather_rows<2>(v_means2d, first, end, v_center);
      gather_rows<1>(v_depths, first, end, v_depth);
      gather_rows<3>(v_conics, first, end, v_conic);
      const ProjectionCotangent<V> v = project_gaussian_vjp(camera, mean, quat, scale, v_center[0], v_center[1],
                                                            v_depth[0], v_conic[0], v_conic[1], v_conic[2]);
      scatter_rows<3>(v.mean, radii, first, end, v_means);
      scatter_rows<4>(v.quat, radii, first, end, v_quats);
      scatter_rows<3>(v.scale, radii, first, end, v_scales);
      if (v_viewmat == nullptr) continue;
      for (int k = 0; k < kViewTerms; ++k) {
        T lane_values[Lanes<T>::kCount];
        (k < 9 ? v.rotation[k] : v.translation[k - 9]).store(lane_values);
        for (int lane = 0; lane < Lanes<T>::kCount && first + lane < end; ++lane)
          if (radii[first + lane] > 0) view[k] += lane_values[lane];
      }
    }
    if (v_viewmat != nullptr)
      for (int k = 0; k < kViewTerms; ++k) workspace[begin / kBlock * kViewTerms + k] = view[k];
  });
  if (v_viewmat == nullptr) return;
  double total[kViewTerms] = {};
  for (int64_t block = 0; block < (n + kBlock - 1) / kBlock; ++block)
    for (int k = 0; k < kViewTerms; ++k) total[k] += workspace[block * kViewTerms + k];
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      v_viewmat[4 * i + j] = i == 3 ? T(0) : T(j < 3 ? total[3 * i + j] : total[9 + i]);
}

#define INSTANTIATE(T)                                                                                                \
  template void project<T>(int, const T*, const T*, const T*, const T*, const T*, int64_t, int, int, double, double,  \
                           int32_t*, T*, T*, T*);                                                                     \
  template int64_t project_workspace<T>(int64_t);                                                                     \
  template void project_backward<T>(int, const T*, const T*, const T*, const T*, const T*, int64_t, int, int, double, \
                                    const int32_t*, const T*, const T*, const T*, T*, T*, T*, T*, double*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
