// Reading the two transforms of skinning.
#pragma once

#include "device.h"  // first: it names the namespace

#include "avatar_skin.h"

namespace avatar {
namespace AVATAR_ISA {

template <typename T>
__device__ __forceinline__ SkinModel<T> skin_model(const T* transforms, const T* transform_quats) {
  SkinModel<T> skin;
  AVATAR_UNROLL
  for (int i = 0; i < 24; ++i) skin.transforms[i] = transforms[i];
  AVATAR_UNROLL
  for (int i = 0; i < 8; ++i) skin.transform_quats[i] = transform_quats[i];
  return skin;
}

}  // namespace AVATAR_ISA
}  // namespace avatar
