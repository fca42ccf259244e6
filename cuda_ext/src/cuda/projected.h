// A projected Gaussian to the arrays of the C ABI.
#pragma once

#include "device.h"

namespace avatar {
namespace AVATAR_ISA {

// Decide whether Gaussian `g` is seen, and write it; zeros if not.
template <typename T>
__device__ __forceinline__ void store_projected(const ProjectedGaussian<T>& p, int64_t g, int width, int height,
                                                T near_plane, int32_t* radii, T* means2d, T* depths, T* conics) {
  const T reach = T(3) * root(p.largest);
  // Phrased so that a NaN anywhere culls the Gaussian.
  const bool seen = p.depth >= near_plane && p.determinant > T(0) && reach < T(1e9) && p.x + reach > T(0) &&
                    p.x - reach < T(width) && p.y + reach > T(0) && p.y - reach < T(height);
  radii[g] = seen ? static_cast<int32_t>(::ceil(reach)) : 0;
  means2d[2 * g] = seen ? p.x : T(0);
  means2d[2 * g + 1] = seen ? p.y : T(0);
  depths[g] = seen ? p.depth : T(0);
  conics[3 * g] = seen ? p.a : T(0);
  conics[3 * g + 1] = seen ? p.b : T(0);
  conics[3 * g + 2] = seen ? p.c : T(0);
}

}  // namespace AVATAR_ISA
}  // namespace avatar
