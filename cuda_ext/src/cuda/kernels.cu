// CUDA twins of the CPU loops, over the same per-element mathematics (include/avatar_math.h). So far: projection and the
// tri-plane encoder, forward. One thread per Gaussian, and per (point, plane, level).
#define AVATAR_ISA cuda
#include "avatar_cuda.h"

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>

#include "avatar_math.h"

namespace avatar {
namespace cuda {
namespace {

constexpr int kThreads = 256;

int32_t launch_status(avatar_call* call) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return AVATAR_OK;
  std::snprintf(call->message, sizeof(call->message), "%s", cudaGetErrorString(error));
  return AVATAR_UNSUPPORTED;
}

unsigned blocks_for(int64_t items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

template <typename T>
__global__ void project_kernel(const T* means, const T* quats, const T* scales, const T* viewmat, const T* intrinsics,
                               int64_t n, int width, int height, double eps2d, double near_plane, int32_t* radii,
                               T* means2d, T* depths, T* conics) {
  const int64_t g = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (g >= n) return;
  const CameraModel<T> camera = camera_model(viewmat, intrinsics, width, height, eps2d);
  const ProjectedGaussian<T> p = project_gaussian(camera, means + 3 * g, quats + 4 * g, scales + 3 * g);
  const T reach = T(3) * root(p.largest);
  const bool seen = p.depth >= T(near_plane) && p.determinant > T(0) && reach < T(1e9) && p.x + reach > T(0) &&
                    p.x - reach < T(width) && p.y + reach > T(0) && p.y - reach < T(height);
  radii[g] = seen ? static_cast<int32_t>(ceil(reach)) : 0;
  means2d[2 * g] = seen ? p.x : T(0);
  means2d[2 * g + 1] = seen ? p.y : T(0);
  depths[g] = seen ? p.depth : T(0);
  conics[3 * g] = seen ? p.a : T(0);
  conics[3 * g + 1] = seen ? p.b : T(0);
  conics[3 * g + 2] = seen ? p.c : T(0);
}

template <typename T>
__global__ void triplane_kernel(const T* points, const T* table, const int32_t* resolutions, int64_t n, int levels,
                                int64_t rows, int features, T* out) {
  const int64_t item = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int slices = 3 * levels;
  if (item >= n * slices) return;
  const int64_t point = item / slices;
  const int slice = static_cast<int>(item % slices), plane = slice / levels;
  const uint32_t resolution = static_cast<uint32_t>(resolutions[slice % levels]), size = static_cast<uint32_t>(rows);
  const int first_axis = plane == 1 ? 1 : 0, second_axis = plane == 0 ? 1 : 2;  // xy, yz, xz
  const GridCell<T> u = grid_cell(points[3 * point + first_axis], resolution);
  const GridCell<T> v = grid_cell(points[3 * point + second_axis], resolution);
  const T* grid = table + slice * rows * features;
  const T* corner[4];
  for (uint32_t k = 0; k < 4; ++k)
    corner[k] = grid + int64_t(grid_row(u.index + (k & 1u), v.index + (k >> 1), resolution, size)) * features;
  for (int f = 0; f < features; ++f)
    out[(point * slices + slice) * features + f] =
        bilinear(corner[0][f], corner[1][f], corner[2][f], corner[3][f], u.fraction, v.fraction);
}

template <typename T>
int32_t project(avatar_call* call, const void* means, const void* quats, const void* scales, const void* viewmat,
                const void* intrinsics, int64_t n, int32_t width, int32_t height, double eps2d, double near_plane,
                int32_t* radii, void* means2d, void* depths, void* conics, cudaStream_t stream) {
  project_kernel<T><<<blocks_for(n), kThreads, 0, stream>>>(
      static_cast<const T*>(means), static_cast<const T*>(quats), static_cast<const T*>(scales),
      static_cast<const T*>(viewmat), static_cast<const T*>(intrinsics), n, width, height, eps2d, near_plane, radii,
      static_cast<T*>(means2d), static_cast<T*>(depths), static_cast<T*>(conics));
  return launch_status(call);
}

template <typename T>
int32_t triplane(avatar_call* call, const void* points, const void* table, const int32_t* resolutions, int64_t n,
                 int32_t levels, int64_t rows, int32_t features, void* out, cudaStream_t stream) {
  triplane_kernel<T><<<blocks_for(n * 3 * levels), kThreads, 0, stream>>>(
      static_cast<const T*>(points), static_cast<const T*>(table), resolutions, n, levels, rows, features,
      static_cast<T*>(out));
  return launch_status(call);
}

}  // namespace
}  // namespace cuda
}  // namespace avatar

extern "C" {

int32_t avatar_cuda_abi_version(void) { return AVATAR_ABI_VERSION; }

int32_t avatar_cuda_project(avatar_call* call, const void* means, const void* quats, const void* scales,
                            const void* viewmat, const void* intrinsics, int64_t n, int32_t width, int32_t height,
                            double eps2d, double near_plane, int32_t* radii, void* means2d, void* depths, void* conics,
                            void* stream) {
  if (n == 0) return AVATAR_OK;
  const auto run = call->dtype == AVATAR_FLOAT32 ? avatar::cuda::project<float> : avatar::cuda::project<double>;
  return run(call, means, quats, scales, viewmat, intrinsics, n, width, height, eps2d, near_plane, radii, means2d,
             depths, conics, static_cast<cudaStream_t>(stream));
}

int32_t avatar_cuda_triplane_encode(avatar_call* call, const void* points, const void* table,
                                    const int32_t* resolutions, int64_t n, int32_t levels, int64_t rows,
                                    int32_t features, void* out, void* stream) {
  if (n == 0) return AVATAR_OK;
  const auto run = call->dtype == AVATAR_FLOAT32 ? avatar::cuda::triplane<float> : avatar::cuda::triplane<double>;
  return run(call, points, table, resolutions, n, levels, rows, features, out, static_cast<cudaStream_t>(stream));
}

}  // extern "C"
