// The deformation network from its cached first layer, in bfloat16 with sums in float; see mlp.cpp for the layers.
//
// One instruction multiplies pairs of neighbouring bfloat16 and adds both products to a float: the rows of points are
// read as pairs, and the weights are stored as [pair][output].
#include "matrix_bf16.h"
#include "mlp_bf16.h"

namespace avatar {
namespace avx512_bf16 {
namespace {

constexpr int kPoints = 4 * kRows;   // points whose layers are kept at a time
constexpr int kStep = 32;            // bfloat16 in a register
constexpr int kItem = 4 * kPoints;   // points handed to a thread at a time

struct Shape {
  int hidden, outputs;
  int64_t wide_hidden, wide_outputs;

  Shape(int middle, int last)
      : hidden(middle), outputs(last), wide_hidden(padded(middle, kStep)), wide_outputs(padded(last, 16)) {}
  int64_t pairs() const { return wide_hidden / 2; }
};

// Weights as the products need them, padded with zeros.
struct Weights {
  float *condition, *middle_bias, *head_bias, *scale;  // condition in the order of place()
  uint32_t *middle, *head;                             // [pairs, wide_hidden] and [pairs, wide_outputs]

  static int64_t size(const Shape& s) {  // in 4 bytes
    return 2 * s.wide_hidden + 2 * s.wide_outputs + s.pairs() * (s.wide_hidden + s.wide_outputs);
  }

  // Where the first layer keeps unit k: of each 32, the even ones and then the odd ones.
  static int place(int k) { return k / kStep * kStep + k % 2 * (kStep / 2) + k % kStep / 2; }

  Weights(uint32_t* memory, const Shape& s, const float* modulation, const float* middle_weight,
          const float* middle_offset, const float* head_weight, const float* head_offset, const float* factor) {
    for (int64_t i = 0; i < size(s); ++i) memory[i] = 0;
    condition = reinterpret_cast<float*>(memory);
    middle_bias = condition + s.wide_hidden;
    head_bias = middle_bias + s.wide_hidden;
    scale = head_bias + s.wide_outputs;
    middle = memory + 2 * s.wide_hidden + 2 * s.wide_outputs;
    head = middle + s.pairs() * s.wide_hidden;
    for (int i = 0; i < s.hidden; ++i) {
      condition[place(i)] = modulation[i];
      middle_bias[i] = middle_offset[i];
      for (int k = 0; k < s.hidden; ++k)
        middle[place(k) / 2 * s.wide_hidden + i] |= rounded(middle_weight[i * s.hidden + k]) << place(k) % 2 * 16;
    }
    for (int i = 0; i < s.outputs; ++i) {
      head_bias[i] = head_offset[i];
      scale[i] = factor[i];
      for (int k = 0; k < s.hidden; ++k)
        head[k / 2 * s.wide_outputs + i] |= rounded(head_weight[i * s.hidden + k]) << k % 2 * 16;
    }
  }
};

AVATAR_HD __m512i narrowed(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

// relu(base + attention condition) of one point.
void first_layer(const Shape& s, const Weights& w, const uint16_t* code, uint32_t* to) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  for (int j = 0; j < s.hidden; j += kStep) {
    const __mmask32 mask = s.hidden - j < kStep ? (1u << (s.hidden - j)) - 1u : 0xffffffffu;
    const __m512i base = _mm512_maskz_loadu_epi16(mask, code + j);
    const __m512i attention = _mm512_maskz_loadu_epi16(mask, code + s.hidden + j);
    const __m512 even =
        _mm512_fmadd_ps((__m512)_mm512_slli_epi32(attention, 16), _mm512_loadu_ps(w.condition + j),
                        (__m512)_mm512_slli_epi32(base, 16));
    const __m512 odd =
        _mm512_fmadd_ps((__m512)_mm512_and_si512(attention, upper), _mm512_loadu_ps(w.condition + j + kStep / 2),
                        (__m512)_mm512_and_si512(base, upper));
    _mm512_storeu_si512(to + j / 2, narrowed(rectified(even), rectified(odd)));
  }
}

void second_layer(const Shape& s, const Weights& w, const uint32_t* first, uint32_t* to) {
  for (int64_t j = 0; j < s.wide_hidden; j += kStep) {
    __m512 sum[kRows][2];
    multiply(first, s.pairs(), s.pairs(), w.middle + j, s.wide_hidden, w.middle_bias + j, sum);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r)
      _mm512_storeu_si512(to + r * s.pairs() + j / 2, narrowed(rectified(sum[r][0]), rectified(sum[r][1])));
  }
}

void last_layer(const Shape& s, const Weights& w, const uint32_t* second, int count, float* out) {
  for (int64_t j = 0; j < s.outputs; j += 16) {
    __m512 sum[kRows][1];
    multiply(second, s.pairs(), s.pairs(), w.head + j, s.wide_outputs, w.head_bias + j, sum);
    const __mmask16 mask = static_cast<__mmask16>(s.outputs - j < 16 ? (1u << (s.outputs - j)) - 1u : 0xffffu);
    for (int r = 0; r < count; ++r)
      _mm512_mask_storeu_ps(out + r * int64_t(s.outputs) + j, mask,
                            _mm512_mul_ps(sum[r][0], _mm512_loadu_ps(w.scale + j)));
  }
}

int64_t block_size(const Shape& s) { return 2 * kPoints * s.pairs(); }

}  // namespace

int64_t deform_code_bf16_workspace(int threads, int hidden, int outputs) {
  const Shape s(hidden, outputs);
  return (Weights::size(s) + threads * block_size(s)) * static_cast<int64_t>(sizeof(uint32_t));
}

void deform_code_bf16(int threads, const uint16_t* code, int64_t n, int hidden, int outputs, const float* condition,
                      const float* middle_weight, const float* middle_bias, const float* head_weight,
                      const float* head_bias, const float* scale, float* out, void* workspace) {
  const Shape s(hidden, outputs);
  uint32_t* memory = static_cast<uint32_t*>(workspace);
  const Weights w(memory, s, condition, middle_weight, middle_bias, head_weight, head_bias, scale);
  uint32_t* blocks = memory + Weights::size(s);
  parallel_for(threads, (n + kItem - 1) / kItem, [&](int64_t item, int worker) {
    uint32_t* first = blocks + worker * block_size(s);
    uint32_t* second = first + kPoints * s.pairs();
    const int64_t end = (item + 1) * kItem < n ? (item + 1) * kItem : n;
    for (int64_t p = item * kItem; p < end; p += kPoints) {
      const int count = static_cast<int>(end - p < kPoints ? end - p : kPoints);
      const int rows = (count + kRows - 1) / kRows * kRows;  // the last tile is filled by its last point
      // The next block is fetched while this one is multiplied: the codes of all points do not fit into the caches.
      const int64_t next = p + kPoints, ahead = next + kPoints < n ? kPoints : (next < n ? n - next : 0);
      for (int64_t byte = 0; byte < ahead * 4 * hidden; byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(code + next * 2 * hidden) + byte);
      for (int r = 0; r < rows; ++r)
        first_layer(s, w, code + (p + (r < count ? r : count - 1)) * 2 * hidden, first + r * s.pairs());
      for (int r = 0; r < rows; r += kRows) {
        second_layer(s, w, first + r * s.pairs(), second + r * s.pairs());
        last_layer(s, w, second + r * s.pairs(), count - r < kRows ? count - r : kRows, out + (p + r) * outputs);
      }
    }
  });
}

}  // namespace avx512_bf16
}  // namespace avatar
