// A radiance field drawn in one pass with its network in bfloat16, for processors with AVX512_BF16 (see avatar_native.h).
#pragma once

#include "avatar_field.h"

namespace avatar {
namespace avx512_bf16 {

int64_t draw_field_bf16_workspace(int threads, const RadianceSizes& sizes);
void draw_field_bf16(int threads, const FieldScene& field, float* image, void* workspace);

}  // namespace avx512_bf16
}  // namespace avatar
