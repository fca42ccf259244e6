// Products of bfloat16 with sums in float, for processors with AVX512_BF16: one instruction multiplies pairs of
// neighbours and adds both products to a float, so weights are stored as [pair][output].
#pragma once

#include <immintrin.h>

#include "common.h"

namespace avatar {
namespace avx512_bf16 {
namespace {

constexpr int kRows = 12;  // points of a register tile

int64_t padded(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

// To the nearest bfloat16, ties to even; NaN stays NaN.
uint32_t rounded(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return x == x ? (bits + 0x7fff + ((bits >> 16) & 1)) >> 16 : 0x7fc0;
}

AVATAR_HD __m512 rectified(__m512 x) { return _mm512_max_ps(_mm512_setzero_ps(), x); }  // NaN stays NaN

// kRows rows of pairs, `stride` apart, times kColumns registers of weights, plus the bias.
template <int kColumns>
AVATAR_HD void multiply(const uint32_t* rows, int64_t stride, int64_t pairs, const uint32_t* weights, int64_t width,
                        const float* bias, __m512 (&sum)[kRows][kColumns]) {
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int j = 0; j < kColumns; ++j) sum[r][j] = _mm512_loadu_ps(bias + 16 * j);
  for (int64_t k = 0; k < pairs; ++k) {
    __m512bh line[kColumns];
#pragma GCC unroll 2
    for (int j = 0; j < kColumns; ++j) line[j] = (__m512bh)_mm512_loadu_si512(weights + k * width + 16 * j);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const __m512bh pair = (__m512bh)_mm512_set1_epi32(static_cast<int>(rows[r * stride + k]));
#pragma GCC unroll 2
      for (int j = 0; j < kColumns; ++j) sum[r][j] = _mm512_dpbf16_ps(sum[r][j], pair, line[j]);
    }
  }
}

}  // namespace
}  // namespace avx512_bf16
}  // namespace avatar
