// Linear blend skinning and its vector-Jacobian product, one register of Gaussians at a time.
#include "common.h"
#include "avatar_skin.h"
#include "rows.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int64_t kBlock = 1024;  // Gaussians per work item; also the unit of the fixed-order sums
constexpr int kTransformTerms = 24, kQuatTerms = 8;

template <typename T>
SkinModel<Lanes<T>> broadcast(const T* transforms, const T* transform_quats) {
  SkinModel<Lanes<T>> skin;
  for (int i = 0; i < kTransformTerms; ++i) skin.transforms[i] = Lanes<T>(transforms[i]);
  for (int i = 0; i < kQuatTerms; ++i) skin.transform_quats[i] = Lanes<T>(transform_quats[i]);
  return skin;
}

}  // namespace

template <typename T>
void skin(int threads, const T* means, const T* quats, const T* weights, const T* offsets, const T* transforms,
          const T* transform_quats, int64_t n, T* posed_means, T* posed_quats) {
  using V = Lanes<T>;
  const SkinModel<V> skin = broadcast(transforms, transform_quats);
  parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += V::kCount) {
      V mean[3], quat[4], weight, offset[3], posed_mean[3], posed_quat[4];
      gather_rows<3>(means, first, end, mean);
      gather_rows<4>(quats, first, end, quat);
      gather_rows<1>(weights, first, end, &weight);
      gather_rows<3>(offsets, first, end, offset);
      skin_gaussian(skin, mean, quat, weight, offset, posed_mean, posed_quat);
      scatter_rows<3>(posed_mean, first, end, posed_means);
      scatter_rows<4>(posed_quat, first, end, posed_quats);
    }
  });
}

template <typename T>
int64_t skin_workspace(int64_t n) {
  return (n + kBlock - 1) / kBlock * (kTransformTerms + kQuatTerms) * static_cast<int64_t>(sizeof(double));
}

template <typename T>
void skin_backward(int threads, const T* means, const T* quats, const T* weights, const T* offsets, const T* transforms,
                   const T* transform_quats, int64_t n, const T* v_posed_means, const T* v_posed_quats, T* v_means, T* v_quats,
                   T* v_weights, T* v_offsets, T* v_transforms, T* v_transform_quats, double* workspace) {
  using V = Lanes<T>;
  const SkinModel<V> skin = broadcast(transforms, transform_quats);
  const bool need_transforms = v_transforms != nullptr;
  parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
    double sums[kTransformTerms + kQuatTerms] = {};
    for (int64_t first = begin; first < end; first += V::kCount) {
      V mean[3], quat[4], weight, offset[3], v_mean[3], v_quat[4];
      gather_rows<3>(means, first, end, mean);
      gather_rows<4>(quats, first, end, quat);
      gather_rows<1>(weights, first, end, &weight);
      gather_rows<3>(offsets, first, end, offset);
      gather_rows<3>(v_posed_means, first, end, v_mean);
      gather_rows<4>(v_posed_quats, first, end, v_quat);
      const SkinCotangent<V> v = skin_gaussian_vjp(skin, mean, quat, weight, offset, v_mean, v_quat);
      scatter_rows<3>(v.mean, first, end, v_means);
      scatter_rows<4>(v.quat, first, end, v_quats);
      scatter_rows<1>(&v.weight, first, end, v_weights);
      scatter_rows<3>(v.offset, first, end, v_offsets);
      if (!need_transforms) continue;
      for (int k = 0; k < kTransformTerms + kQuatTerms; ++k) {
        T lane_values[V::kCount];
        v.skin[k].store(lane_values);
        for (int lane = 0; lane < V::kCount && first + lane < end; ++lane) sums[k] += lane_values[lane];
      }
    }
    if (need_transforms)
      for (int k = 0; k < kTransformTerms + kQuatTerms; ++k) workspace[begin / kBlock * (kTransformTerms + kQuatTerms) + k] = sums[k];
  });
  if (!need_transforms) return;
  double total[kTransformTerms + kQuatTerms] = {};
  for (int64_t block = 0; block < (n + kBlock - 1) / kBlock; ++block)
    for (int k = 0; k < kTransformTerms + kQuatTerms; ++k) total[k] += workspace[block * (kTransformTerms + kQuatTerms) + k];
  for (int k = 0; k < kTransformTerms; ++k) v_transforms[k] = T(total[k]);
  for (int k = 0; k < kQuatTerms; ++k) v_transform_quats[k] = T(total[kTransformTerms + k]);
}

#define INSTANTIATE(T)                                                                                               \
  template void skin<T>(int, const T*, const T*, const T*, const T*, const T*, const T*, int64_t, T*, T*);           \
  template int64_t skin_workspace<T>(int64_t);                                                                       \
  template void skin_backward<T>(int, const T*, const T*, const T*, const T*, const T*, const T*, int64_t, const T*, \
                                 const T*, T*, T*, T*, T*, T*, T*, double*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
