// The radiance network in bfloat16, for processors with AVX512_BF16 (see avatar_native.h).
#pragma once

#include "avatar_radiance.h"

namespace avatar {
namespace avx512_bf16 {

int64_t radiance_mlp_bf16_workspace(int threads, const RadianceSizes& sizes);
void radiance_mlp_bf16(int threads, const float* features, int64_t n, const RadianceSizes& sizes,
                       const float* parameters, float* densities, float* colors, float* gates, void* workspace);

}  // namespace avx512_bf16
}  // namespace avatar
