// The deformation network in bfloat16, for processors with AVX512_BF16 (see avatar_native.h).
#pragma once

#include <cstdint>

namespace avatar {
namespace avx512_bf16 {

int64_t deform_code_bf16_workspace(int threads, int hidden, int outputs);
void deform_code_bf16(int threads, const uint16_t* code, int64_t n, int hidden, int outputs, const float* condition,
                      const float* middle_weight, const float* middle_bias, const float* head_weight,
                      const float* head_bias, const float* scale, float* out, void* workspace);

}  // namespace avx512_bf16
}  // namespace avatar
