// The layers of the radiance network in bfloat16 for a tile of samples, with sums in float.
#pragma once

#include "avatar_radiance.h"
#include "matrix_bf16.h"

namespace avatar {
namespace avx512_bf16 {
namespace {

constexpr int kLanes = 16;

// A fully connected layer: weights [pairs, width] of bfloat16 pairs.
struct Layer {
  int inputs, outputs;
  int64_t pairs, width;
  uint32_t* weights = nullptr;
  float* bias = nullptr;

  Layer(int in, int out) : inputs(in), outputs(out), pairs((in + 1) / 2), width(padded(out, kLanes)) {}
  int64_t size() const { return pairs * width + width; }  // in 4 bytes

  void load(uint32_t*& memory, const float* weight, const float* offset, int shift = 0) {
    weights = memory;
    bias = reinterpret_cast<float*>(memory + pairs * width);
    for (int64_t i = 0; i < size(); ++i) memory[i] = 0;
    memory += size();
    for (int i = 0; i < outputs; ++i) {
      const int to = (i + shift) % outputs;
      bias[to] = offset[i];
      for (int k = 0; k < inputs; ++k)
        weights[k / 2 * width + to] |= rounded(weight[int64_t(i) * inputs + k]) << k % 2 * 16;
    }
  }

  // function(row, output, sum) for each register of the sums of kRows rows.
  template <typename Function>
  AVATAR_HD void forward(const uint32_t* rows, int64_t stride, const Function& function) const {
    int64_t j = 0;
    for (; j + 2 * kLanes <= width; j += 2 * kLanes) {
      __m512 sum[kRows][2];
      multiply(rows, stride, pairs, weights + j, width, bias + j, sum);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        function(r, j, sum[r][0]);
        function(r, j + kLanes, sum[r][1]);
      }
    }
    if (j < width) {
      __m512 sum[kRows][1];
      multiply(rows, stride, pairs, weights + j, width, bias + j, sum);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) function(r, j, sum[r][0]);
    }
  }
};

AVATAR_HD void store_half(uint32_t* row, int64_t at, __m512 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + at / 2), (__m256i)_mm512_cvtneps_pbh(x));
}

AVATAR_HD __m512 sigmoid(__m512 x) {
  return (__m512)sigmoid(Lanes<float>((Vector<float>::values)x)).v;
}

struct Network {
  RadianceSizes sizes;
  Layer attention, gate, base, density, color, rgb;
  int64_t wide_hidden;
  float* conditions = nullptr;  // [gates, wide_hidden]

  explicit Network(const RadianceSizes& s)
      : sizes(s), attention(s.inputs, s.attention), gate(s.attention, s.gates), base(s.inputs, s.hidden),
        density(s.hidden, s.outputs), color(s.geometry(), s.color), rgb(s.color, kColors), wide_hidden(base.width) {}

  int64_t size() const {
    return attention.size() + gate.size() + base.size() + density.size() + color.size() + rgb.size() +
           sizes.gates * wide_hidden;
  }

  void load(uint32_t* memory, const float* p) {
    const RadianceOffsets at(sizes);
    attention.load(memory, p + at.attention_weight, p + at.attention_bias);
    gate.load(memory, p + at.gate_weight, p + at.gate_bias);
    base.load(memory, p + at.base_weight, p + at.base_bias);
    density.load(memory, p + at.density_weight, p + at.density_bias, sizes.geometry());  // the logit last
    color.load(memory, p + at.color_weight, p + at.color_bias);
    rgb.load(memory, p + at.rgb_weight, p + at.rgb_bias);
    conditions = reinterpret_cast<float*>(memory);
    for (int g = 0; g < sizes.gates; ++g)
      for (int64_t i = 0; i < wide_hidden; ++i)
        conditions[g * wide_hidden + i] = i < sizes.hidden ? p[at.conditions + int64_t(g) * sizes.hidden + i] : 0.0f;
  }
};

// The layers of one tile. Rows of bfloat16 pairs are as long as the widest layer.
struct Tile {
  int64_t stride;
  uint32_t *features, *hidden, *other;
  alignas(64) float gates[kRows][kLanes], rgb[kRows][kLanes], logits[kLanes] = {};

  static int64_t row(const Network& n) {
    int64_t widest = padded(n.sizes.inputs, kLanes);
    for (const Layer* layer : {&n.attention, &n.base, &n.density, &n.color})
      widest = layer->width > widest ? layer->width : widest;
    return widest / 2;
  }
  static int64_t size(const Network& n) { return 3 * kRows * row(n); }  // in 4 bytes

  Tile(const Network& n, uint32_t* memory)
      : stride(row(n)), features(memory), hidden(memory + kRows * stride), other(memory + 2 * kRows * stride) {}

  void load(const float* from, int inputs, int count) {
    for (int r = 0; r < kRows; ++r) {  // the last tile is filled by its last sample
      const float* row = from + int64_t(r < count ? r : count - 1) * inputs;
      for (int j = 0; j < inputs; j += kLanes) {
        const __mmask16 mask = static_cast<__mmask16>(inputs - j < kLanes ? (1u << (inputs - j)) - 1u : 0xffffu);
        store_half(features + r * stride, j, _mm512_maskz_loadu_ps(mask, row + j));
      }
    }
  }

  void forward(const Network& n) {
    n.attention.forward(features, stride, [&](int r, int64_t j, __m512 x) { store_half(other + r * stride, j, rectified(x)); });
    n.gate.forward(other, stride, [&](int r, int64_t, __m512 x) { _mm512_store_ps(gates[r], sigmoid(x)); });
    n.base.forward(features, stride, [&](int r, int64_t j, __m512 x) {
      for (int g = 0; g < n.sizes.gates; ++g)
        x = _mm512_fmadd_ps(_mm512_set1_ps(gates[r][g]), _mm512_loadu_ps(n.conditions + g * n.wide_hidden + j), x);
      store_half(hidden + r * stride, j, rectified(x));
    });
    const int64_t logit = n.sizes.geometry();
    n.density.forward(hidden, stride, [&](int r, int64_t j, __m512 x) {
      store_half(other + r * stride, j, x);
      if (logit >= j && logit < j + kLanes) {
        alignas(64) float part[kLanes];
        _mm512_store_ps(part, x);
        logits[r] = part[logit - j];
      }
    });
    n.color.forward(other, stride, [&](int r, int64_t j, __m512 x) { store_half(hidden + r * stride, j, rectified(x)); });
    n.rgb.forward(hidden, stride, [&](int r, int64_t, __m512 x) { _mm512_store_ps(rgb[r], sigmoid(x)); });
  }

  void store(int count, int number, float* densities, float* colors, float* to_gates) {
    using V = Lanes<float>;
    const V most(kLogDensityMax), x = V::load(logits);
    exponential(select(most < x, most, x)).store(logits);
    for (int r = 0; r < count; ++r) {
      densities[r] = logits[r];
      for (int c = 0; c < kColors; ++c) colors[r * kColors + c] = rgb[r][c];
      for (int g = 0; g < number; ++g) to_gates[r * number + g] = gates[r][g];
    }
  }
};

}  // namespace
}  // namespace avx512_bf16
}  // namespace avatar
