// The radiance network's sizes, and where its parameters lie in their one array; for the CPU and CUDA.
#pragma once

#include <cstdint>

#include "avatar_checks.h"

namespace avatar {

constexpr int kColors = 3;
constexpr int kMostGates = 16;
constexpr double kLogDensityMax = 11.0;

// Matrices are [rows of outputs, inputs], as in torch.
struct RadianceSizes {
  int32_t inputs, attention, gates, hidden, outputs, color;  // outputs: the logit of the density, and geometry features

  int32_t geometry() const { return outputs - 1; }
};

// Offsets of the parameters, in the order of the C ABI.
struct RadianceOffsets {
  int64_t attention_weight, attention_bias, gate_weight, gate_bias, base_weight, base_bias, conditions;
  int64_t density_weight, density_bias, color_weight, color_bias, rgb_weight, rgb_bias, size;

  explicit RadianceOffsets(const RadianceSizes& s) {
    int64_t next = 0;
    const auto take = [&](int64_t count) {
      const int64_t here = next;
      next += count;
      return here;
    };
    attention_weight = take(int64_t(s.attention) * s.inputs);
    attention_bias = take(s.attention);
    gate_weight = take(int64_t(s.gates) * s.attention);
    gate_bias = take(s.gates);
    base_weight = take(int64_t(s.hidden) * s.inputs);
    base_bias = take(s.hidden);
    conditions = take(int64_t(s.gates) * s.hidden);
    density_weight = take(int64_t(s.outputs) * s.hidden);
    density_bias = take(s.outputs);
    color_weight = take(int64_t(s.color) * s.geometry());
    color_bias = take(s.color);
    rgb_weight = take(int64_t(kColors) * s.color);
    rgb_bias = take(kColors);
    size = next;
  }
};

inline bool good_radiance(const RadianceSizes& s) {
  return good_size(s.inputs, kMaxUnits) && good_size(s.attention, kMaxUnits) && good_size(s.gates, kMostGates) &&
         good_size(s.hidden, kMaxUnits) && s.outputs > 1 && good_size(s.outputs, kMaxUnits) &&
         good_size(s.color, kMaxUnits);
}

inline int32_t check_radiance(avatar_call* call, const RadianceSizes& s) {
  if (good_radiance(s)) return AVATAR_OK;
  return fail(call, AVATAR_BAD_ARGUMENT,
              "inputs, attention, gates, hidden, outputs, color are %d, %d, %d, %d, %d, %d; expected 1 to %d each, at "
              "most %d gates and at least 2 outputs",
              int(s.inputs), int(s.attention), int(s.gates), int(s.hidden), int(s.outputs), int(s.color),
              int(kMaxUnits), kMostGates);
}

}  // namespace avatar
