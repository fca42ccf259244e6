// Projection of 3D Gaussians and its vector-Jacobian product, one thread per Gaussian.
#include "projected.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kThreads = 128;
constexpr int kViewTerms = 12;  // rotation (9) and translation (3) of the view matrix

template <typename T>
__global__ void __launch_bounds__(kThreads)
    project_kernel(const T* means, const T* quats, const T* scales, const T* viewmat, const T* intrinsics, int64_t n,
                   int width, int height, double eps2d, T near_plane, int32_t* radii, T* means2d, T* depths,
                   T* conics) {
  const int64_t g = global_thread();
  if (g >= n) return;
  const CameraModel<T> camera = camera_model(viewmat, intrinsics, width, height, eps2d);
  const ProjectedGaussian<T> p = project_gaussian(camera, means + 3 * g, quats + 4 * g, scales + 3 * g);
  store_projected(p, g, width, height, near_plane, radii, means2d, depths, conics);
}

// kView: also sum the view matrix's cotangent over the block, into view_sums [blocks, kViewTerms].
template <typename T, bool kView>
__global__ void __launch_bounds__(kThreads)
    project_backward_kernel(const T* means, const T* quats, const T* scales, const T* viewmat, const T* intrinsics,
                            int64_t n, int width, int height, double eps2d, const int32_t* radii, const T* v_means2d,
                            const T* v_depths, const T* v_conics, T* v_means, T* v_quats, T* v_scales,
                            double* view_sums) {
  const int64_t g = global_thread();
  ProjectionCotangent<T> v = {};
  if (g < n && radii[g] > 0) {
    const CameraModel<T> camera = camera_model(viewmat, intrinsics, width, height, eps2d);
    v = project_gaussian_vjp(camera, means + 3 * g, quats + 4 * g, scales + 3 * g, v_means2d[2 * g],
                             v_means2d[2 * g + 1], v_depths[g], v_conics[3 * g], v_conics[3 * g + 1],
                             v_conics[3 * g + 2]);
  }
  if (g < n) {
    for (int i = 0; i < 3; ++i) v_means[3 * g + i] = v.mean[i];
    for (int i = 0; i < 4; ++i) v_quats[4 * g + i] = v.quat[i];
    for (int i = 0; i < 3; ++i) v_scales[3 * g + i] = v.scale[i];
  }
  if (!kView) return;

  __shared__ double sums[kThreads / kWarp][kViewTerms];
  start_as_nan(sums);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  AVATAR_UNROLL
  for (int k = 0; k < kViewTerms; ++k) {
    const double sum = warp_sum(static_cast<double>(k < 9 ? v.rotation[k] : v.translation[k - 9]));
    if (lane == 0) sums[warp][k] = sum;
  }
  __syncthreads();
  if (threadIdx.x < kViewTerms) {
    double sum = 0.0;
    for (int w = 0; w < kThreads / kWarp; ++w) sum += sums[w][threadIdx.x];
    view_sums[int64_t(blockIdx.x) * kViewTerms + threadIdx.x] = sum;
  }
}

// One block; warp k adds up term k.
template <typename T>
__global__ void __launch_bounds__(kViewTerms* kWarp)
    view_kernel(const double* view_sums, int64_t blocks, T* v_viewmat) {
  const int term = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  double sum = 0.0;
  for (int64_t block = lane; block < blocks; block += kWarp) sum += view_sums[block * kViewTerms + term];
  sum = warp_sum(sum);
  if (lane == 0) v_viewmat[term < 9 ? term / 3 * 4 + term % 3 : (term - 9) * 4 + 3] = T(sum);
  if (threadIdx.x < 4) v_viewmat[12 + threadIdx.x] = T(0);
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" {

int32_t avatar_cuda_project(avatar_call* call, const void* means, const void* quats, const void* scales,
                            const void* viewmat, const void* intrinsics, int64_t n, int32_t width, int32_t height,
                            double eps2d, double near_plane, int32_t* radii, void* means2d, void* depths, void* conics,
                            void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, 1));
  AVATAR_REQUIRE(viewmat, intrinsics);
  AVATAR_REQUIRE_IF(n, means, quats, scales, radii, means2d, depths, conics);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    if (n == 0) return int32_t(AVATAR_OK);
    return launch(call, project_kernel<T>, blocks_for(n, kThreads), kThreads, static_cast<cudaStream_t>(stream),
                  in<T>(means), in<T>(quats), in<T>(scales), in<T>(viewmat), in<T>(intrinsics), n, width, height,
                  eps2d, near_plane, radii, out<T>(means2d), out<T>(depths), out<T>(conics));
  });
}

int64_t avatar_cuda_project_workspace(int32_t, int64_t n) {
  if (!good_count(n)) return -1;
  return int64_t(blocks_for(n, kThreads)) * kViewTerms * int64_t(sizeof(double));
}

int32_t avatar_cuda_project_backward(avatar_call* call, const void* means, const void* quats, const void* scales,
                                     const void* viewmat, const void* intrinsics, int64_t n, int32_t width,
                                     int32_t height, double eps2d, const int32_t* radii, const void* v_means2d,
                                     const void* v_depths, const void* v_conics, void* v_means, void* v_quats,
                                     void* v_scales, void* v_viewmat, void* workspace, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, 1));
  AVATAR_REQUIRE(viewmat, intrinsics);
  AVATAR_REQUIRE_IF(n, means, quats, scales, radii, v_means2d, v_depths, v_conics, v_means, v_quats, v_scales,
                    workspace);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    double* sums = static_cast<double*>(workspace);
    if (n > 0) {
      const auto kernel =
          v_viewmat != nullptr ? project_backward_kernel<T, true> : project_backward_kernel<T, false>;
      AVATAR_RETURN_IF_BAD(launch(call, kernel, blocks_for(n, kThreads), kThreads, on, in<T>(means), in<T>(quats),
                                  in<T>(scales), in<T>(viewmat), in<T>(intrinsics), n, width, height, eps2d, radii,
                                  in<T>(v_means2d), in<T>(v_depths), in<T>(v_conics), out<T>(v_means),
                                  out<T>(v_quats), out<T>(v_scales), sums));
    }
    if (v_viewmat == nullptr) return int32_t(AVATAR_OK);
    return launch(call, view_kernel<T>, 1, kViewTerms * kWarp, on, sums, int64_t(blocks_for(n, kThreads)),
                  out<T>(v_viewmat));
  });
}

}  // extern "C"
