// Linear blend skinning and its vector-Jacobian product, one thread per Gaussian.
#include "skin.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kThreads = 128;
constexpr int kTransformTerms = 24, kTerms = 32;  // of both transforms, then with their quaternions

template <typename T>
__global__ void __launch_bounds__(kThreads)
    skin_kernel(const T* means, const T* quats, const T* weights, const T* offsets, const T* transforms, const T* transform_quats,
                int64_t n, T* posed_means, T* posed_quats) {
  const int64_t g = global_thread();
  if (g >= n) return;
  T mean[3], quat[4];
  skin_gaussian(skin_model(transforms, transform_quats), means + 3 * g, quats + 4 * g, weights[g], offsets + 3 * g, mean, quat);
  for (int i = 0; i < 3; ++i) posed_means[3 * g + i] = mean[i];
  for (int i = 0; i < 4; ++i) posed_quats[4 * g + i] = quat[i];
}

// kTransforms: also sum the skin's cotangents over the block, into sums [blocks, kTerms].
template <typename T, bool kTransforms>
__global__ void __launch_bounds__(kThreads)
    skin_backward_kernel(const T* means, const T* quats, const T* weights, const T* offsets, const T* transforms,
                         const T* transform_quats, int64_t n, const T* v_posed_means, const T* v_posed_quats, T* v_means,
                         T* v_quats, T* v_weights, T* v_offsets, double* sums) {
  const int64_t g = global_thread();
  SkinCotangent<T> v = {};
  if (g < n) {
    v = skin_gaussian_vjp(skin_model(transforms, transform_quats), means + 3 * g, quats + 4 * g, weights[g], offsets + 3 * g,
                          v_posed_means + 3 * g, v_posed_quats + 4 * g);
    for (int i = 0; i < 3; ++i) v_means[3 * g + i] = v.mean[i];
    for (int i = 0; i < 4; ++i) v_quats[4 * g + i] = v.quat[i];
    for (int i = 0; i < 3; ++i) v_offsets[3 * g + i] = v.offset[i];
    v_weights[g] = v.weight;
  }
  if (!kTransforms) return;

  __shared__ double warps[kThreads / kWarp][kTerms];
  start_as_nan(warps);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  AVATAR_UNROLL
  for (int k = 0; k < kTerms; ++k) {
    const double sum = warp_sum(static_cast<double>(v.skin[k]));
    if (lane == 0) warps[warp][k] = sum;
  }
  __syncthreads();
  if (threadIdx.x < kTerms) {
    double sum = 0.0;
    for (int w = 0; w < kThreads / kWarp; ++w) sum += warps[w][threadIdx.x];
    sums[int64_t(blockIdx.x) * kTerms + threadIdx.x] = sum;
  }
}

// One block; warp k adds up term k.
template <typename T>
__global__ void __launch_bounds__(kTerms* kWarp)
    transforms_kernel(const double* sums, int64_t blocks, T* v_transforms, T* v_transform_quats) {
  const int term = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  double sum = 0.0;
  for (int64_t block = lane; block < blocks; block += kWarp) sum += sums[block * kTerms + term];
  sum = warp_sum(sum);
  if (lane != 0) return;
  if (term < kTransformTerms)
    v_transforms[term] = T(sum);
  else
    v_transform_quats[term - kTransformTerms] = T(sum);
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" {

int32_t avatar_cuda_skin(avatar_call* call, const void* means, const void* quats, const void* weights,
                         const void* offsets, const void* transforms, const void* transform_quats, int64_t n, void* posed_means,
                         void* posed_quats, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_REQUIRE(transforms, transform_quats);
  AVATAR_REQUIRE_IF(n, means, quats, weights, offsets, posed_means, posed_quats);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    if (n == 0) return int32_t(AVATAR_OK);
    return launch(call, skin_kernel<T>, blocks_for(n, kThreads), kThreads, static_cast<cudaStream_t>(stream),
                  in<T>(means), in<T>(quats), in<T>(weights), in<T>(offsets), in<T>(transforms), in<T>(transform_quats), n,
                  out<T>(posed_means), out<T>(posed_quats));
  });
}

int64_t avatar_cuda_skin_workspace(int32_t, int64_t n) {
  if (!good_count(n)) return -1;
  return int64_t(blocks_for(n, kThreads)) * kTerms * int64_t(sizeof(double));
}

int32_t avatar_cuda_skin_backward(avatar_call* call, const void* means, const void* quats, const void* weights,
                                  const void* offsets, const void* transforms, const void* transform_quats, int64_t n,
                                  const void* v_posed_means, const void* v_posed_quats, void* v_means, void* v_quats,
                                  void* v_weights, void* v_offsets, void* v_transforms, void* v_transform_quats, void* workspace,
                                  void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_REQUIRE(transforms, transform_quats);
  AVATAR_REQUIRE_IF(n, means, quats, weights, offsets, v_posed_means, v_posed_quats, v_means, v_quats, v_weights,
                    v_offsets, workspace);
  if (v_transforms != nullptr) AVATAR_REQUIRE(v_transform_quats);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    double* sums = static_cast<double*>(workspace);
    if (n > 0) {
      const auto kernel = v_transforms != nullptr ? skin_backward_kernel<T, true> : skin_backward_kernel<T, false>;
      AVATAR_RETURN_IF_BAD(launch(call, kernel, blocks_for(n, kThreads), kThreads, on, in<T>(means), in<T>(quats),
                                  in<T>(weights), in<T>(offsets), in<T>(transforms), in<T>(transform_quats), n, in<T>(v_posed_means),
                                  in<T>(v_posed_quats), out<T>(v_means), out<T>(v_quats), out<T>(v_weights),
                                  out<T>(v_offsets), sums));
    }
    if (v_transforms == nullptr) return int32_t(AVATAR_OK);
    return launch(call, transforms_kernel<T>, 1, kTerms * kWarp, on, sums, int64_t(blocks_for(n, kThreads)), out<T>(v_transforms),
                  out<T>(v_transform_quats));
  });
}

}  // extern "C"
