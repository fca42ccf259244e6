// The radiance network, one thread per sample; weights lie in shared memory, and a whole warp reads the same one at once.
//
// Each hidden unit is used up as soon as it is known, so only features and outputs are kept in registers. The backward
// kernel computes the layers again and writes them, and the cotangents of what goes into them, one row per unit: the
// gradients of the weights are then matrix products over the samples.
#include "device.h"

#include "avatar_radiance.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

#if defined(AVATAR_CUDA_EMULATED)
#define AVATAR_ONE_BY_ONE
#else
#define AVATAR_ONE_BY_ONE _Pragma("unroll 1")  // more units at once would not fit into the registers
#endif

constexpr int kThreads = 128;
constexpr int kInputs = 36;     // three planes of twelve levels
constexpr int kAttention = 16;
constexpr int kGates = 3;       // mouth, eyes, pose
constexpr int kPadded = 4;      // of 3 gates or colors

template <int kHidden>
struct Sizes {
  static constexpr int kOutputs = kHidden / 2, kColor = kHidden;
  static constexpr RadianceSizes kAll = {kInputs, kAttention, kGates, kHidden, kOutputs, kColor};
};

bool same(const RadianceSizes& a, const RadianceSizes& b) {
  return a.inputs == b.inputs && a.attention == b.attention && a.gates == b.gates && a.hidden == b.hidden &&
         a.outputs == b.outputs && a.color == b.color;
}

// Rows of what belongs to one unit: [unit][...], so that each row is a few loads of four numbers.
template <typename T, int kHidden>
struct alignas(16) Weights {
  static constexpr int kOutputs = Sizes<kHidden>::kOutputs, kColor = Sizes<kHidden>::kColor;
  T attention[kAttention][kInputs], gate[kAttention][kPadded];
  T base[kHidden][kInputs], condition[kHidden][kPadded], density[kHidden][kOutputs];
  T color[kColor][kOutputs];  // the first for the logit, zero
  T rgb[kColor][kPadded];
  T attention_bias[kAttention], gate_bias[kPadded], base_bias[kHidden], density_bias[kOutputs], color_bias[kColor];
  T rgb_bias[kPadded];

  // to[i][k] = from[i * row + k * column] for k < used, else zero.
  template <int kRows, int kColumns>
  static __device__ void copy(T (&to)[kRows][kColumns], const T* from, int row, int column, int used, int skipped = 0) {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kColumns; i += kThreads) {
      const int r = i / kColumns, k = i % kColumns;
      to[r][k] = k >= skipped && k < skipped + used ? from[r * row + (k - skipped) * column] : T(0);
    }
  }
  template <int kCount>
  static __device__ void copy(T (&to)[kCount], const T* from, int used) {
    for (int i = static_cast<int>(threadIdx.x); i < kCount; i += kThreads) to[i] = i < used ? from[i] : T(0);
  }

  __device__ void load(const T* p, const RadianceOffsets& at) {
    copy(attention, p + at.attention_weight, kInputs, 1, kInputs);
    copy(gate, p + at.gate_weight, 1, kAttention, kGates);
    copy(base, p + at.base_weight, kInputs, 1, kInputs);
    copy(condition, p + at.conditions, 1, kHidden, kGates);
    copy(density, p + at.density_weight, 1, kHidden, kOutputs);
    copy(color, p + at.color_weight, kOutputs - 1, 1, kOutputs - 1, 1);
    copy(rgb, p + at.rgb_weight, 1, kColor, kColors);
    copy(attention_bias, p + at.attention_bias, kAttention);
    copy(gate_bias, p + at.gate_bias, kGates);
    copy(base_bias, p + at.base_bias, kHidden);
    copy(density_bias, p + at.density_bias, kOutputs);
    copy(color_bias, p + at.color_bias, kColor);
    copy(rgb_bias, p + at.rgb_bias, kColors);
  }
};

template <typename T>
struct alignas(4 * sizeof(T)) Four {
  T value[4];
};

template <int kCount, typename T>
__device__ __forceinline__ T dot(const T (&row)[kCount], const T (&x)[kCount]) {
  const Four<T>* four = reinterpret_cast<const Four<T>*>(row);
  T sum[2] = {T(0), T(0)};  // neither waits for the other
  AVATAR_UNROLL
  for (int k = 0; k < kCount / 4; ++k) {
    const Four<T> w = four[k];
    AVATAR_UNROLL
    for (int i = 0; i < 4; ++i) sum[i % 2] += w.value[i] * x[4 * k + i];
  }
  return sum[0] + sum[1];
}

// sum += factor row
template <int kCount, typename T>
__device__ __forceinline__ void add_scaled(const T (&row)[kCount], T factor, T (&sum)[kCount]) {
  const Four<T>* four = reinterpret_cast<const Four<T>*>(row);
  AVATAR_UNROLL
  for (int k = 0; k < kCount / 4; ++k) {
    const Four<T> w = four[k];
    AVATAR_UNROLL
    for (int i = 0; i < 4; ++i) sum[4 * k + i] += factor * w.value[i];
  }
}

template <typename T>
__device__ __forceinline__ T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}

// Layers and cotangents for the gradients of the weights, [units][n] each; null in the forward pass.
template <typename T>
struct Tape {
  T* rows;
  int64_t n, sample;

  __device__ __forceinline__ void set(int unit, T value) const {
    if (rows != nullptr) rows[unit * n + sample] = value;
  }
  __device__ __forceinline__ T get(int unit) const { return rows[unit * n + sample]; }
};

// Units of the tapes. Of the layers: attention, hidden, gates, geometry (with a first of zeros), color. Of the
// cotangents, before the activations: attention, hidden, gates, outputs, color, rgb.
template <int kHidden>
struct Units {
  static constexpr int kHiddenAt = kAttention, kGatesAt = kHiddenAt + kHidden, kOutputsAt = kGatesAt + kGates;
  static constexpr int kColorAt = kOutputsAt + Sizes<kHidden>::kOutputs;
  static constexpr int kRgbAt = kColorAt + Sizes<kHidden>::kColor;
};

template <typename T, int kHidden>
struct Sample {
  static constexpr int kOutputs = Sizes<kHidden>::kOutputs, kColor = Sizes<kHidden>::kColor;
  T gates[kPadded], out[kOutputs], rgb[kPadded], density;

  __device__ __forceinline__ void forward(const Weights<T, kHidden>& w, const T* from, const Tape<T>& layers) {
    using U = Units<kHidden>;
    T features[kInputs];
    AVATAR_UNROLL
    for (int k = 0; k < kInputs; ++k) features[k] = from[k];
    AVATAR_UNROLL
    for (int g = 0; g < kPadded; ++g) gates[g] = w.gate_bias[g];
    AVATAR_ONE_BY_ONE
    for (int unit = 0; unit < kAttention; ++unit) {
      const T active = rectified(w.attention_bias[unit] + dot(w.attention[unit], features));
      layers.set(unit, active);
      add_scaled(w.gate[unit], active, gates);
    }
    AVATAR_UNROLL
    for (int g = 0; g < kGates; ++g) {
      gates[g] = sigmoid(gates[g]);
      layers.set(U::kGatesAt + g, gates[g]);
    }
    gates[kGates] = T(0);
    AVATAR_UNROLL
    for (int o = 0; o < kOutputs; ++o) out[o] = w.density_bias[o];
    AVATAR_ONE_BY_ONE
    for (int unit = 0; unit < kHidden; ++unit) {
      const T active =
          rectified(w.base_bias[unit] + dot(w.base[unit], features) + dot(w.condition[unit], gates));
      layers.set(U::kHiddenAt + unit, active);
      add_scaled(w.density[unit], active, out);
    }
    density = exponential(out[0] > T(kLogDensityMax) ? T(kLogDensityMax) : out[0]);
    out[0] = T(0);
    AVATAR_UNROLL
    for (int o = 0; o < kOutputs; ++o) layers.set(U::kOutputsAt + o, out[o]);
    AVATAR_UNROLL
    for (int c = 0; c < kPadded; ++c) rgb[c] = w.rgb_bias[c];
    AVATAR_ONE_BY_ONE
    for (int unit = 0; unit < kColor; ++unit) {
      const T active = rectified(w.color_bias[unit] + dot(w.color[unit], out));
      layers.set(U::kColorAt + unit, active);
      add_scaled(w.rgb[unit], active, rgb);
    }
    AVATAR_UNROLL
    for (int c = 0; c < kColors; ++c) rgb[c] = sigmoid(rgb[c]);
  }

  // From the cotangents of the results to those before every activation.
  __device__ __forceinline__ void backward(const Weights<T, kHidden>& w, T v_density, const T* v_colors,
                                           const T* v_to_gates, const Tape<T>& layers, const Tape<T>& v) const {
    using U = Units<kHidden>;
    T v_rgb[kPadded] = {}, v_out[kOutputs], v_gates[kPadded] = {};
    AVATAR_UNROLL
    for (int c = 0; c < kColors; ++c) {
      v_rgb[c] = v_colors[c] * rgb[c] * (T(1) - rgb[c]);
      v.set(U::kRgbAt + c, v_rgb[c]);
    }
    AVATAR_UNROLL
    for (int o = 0; o < kOutputs; ++o) v_out[o] = T(0);
    AVATAR_ONE_BY_ONE
    for (int unit = 0; unit < kColor; ++unit) {
      const T v_color = layers.get(U::kColorAt + unit) > T(0) ? dot(w.rgb[unit], v_rgb) : T(0);
      v.set(U::kColorAt + unit, v_color);
      add_scaled(w.color[unit], v_color, v_out);
    }
    v_out[0] = v_density * density;
    AVATAR_UNROLL
    for (int o = 0; o < kOutputs; ++o) v.set(U::kOutputsAt + o, v_out[o]);
    AVATAR_ONE_BY_ONE
    for (int unit = 0; unit < kHidden; ++unit) {
      const T v_hidden = layers.get(U::kHiddenAt + unit) > T(0) ? dot(w.density[unit], v_out) : T(0);
      v.set(U::kHiddenAt + unit, v_hidden);
      add_scaled(w.condition[unit], v_hidden, v_gates);
    }
    AVATAR_UNROLL
    for (int g = 0; g < kGates; ++g) {
      v_gates[g] = (v_gates[g] + v_to_gates[g]) * gates[g] * (T(1) - gates[g]);
      v.set(U::kGatesAt + g, v_gates[g]);
    }
    v_gates[kGates] = T(0);
    AVATAR_ONE_BY_ONE
    for (int unit = 0; unit < kAttention; ++unit)
      v.set(unit, layers.get(unit) > T(0) ? dot(w.gate[unit], v_gates) : T(0));
  }
};

template <typename T, int kHidden>
__global__ void __launch_bounds__(kThreads)
    radiance_kernel(const T* features, int64_t n, const T* parameters, RadianceOffsets at, T* densities, T* colors,
                    T* gates) {
  __shared__ Weights<T, kHidden> weights;
  start_as_nan(weights);
  weights.load(parameters, at);
  __syncthreads();
  const int64_t i = global_thread();
  if (i >= n) return;
  Sample<T, kHidden> sample;
  sample.forward(weights, features + i * kInputs, Tape<T>{nullptr, 0, 0});
  densities[i] = sample.density;
  AVATAR_UNROLL
  for (int c = 0; c < kColors; ++c) colors[i * kColors + c] = sample.rgb[c];
  AVATAR_UNROLL
  for (int g = 0; g < kGates; ++g) gates[i * kGates + g] = sample.gates[g];
}

template <typename T, int kHidden>
__global__ void __launch_bounds__(kThreads)
    radiance_backward_kernel(const T* features, int64_t n, const T* parameters, RadianceOffsets at,
                             const T* v_densities, const T* v_colors, const T* v_gates, T* layers, T* v_layers) {
  __shared__ Weights<T, kHidden> weights;
  start_as_nan(weights);
  weights.load(parameters, at);
  __syncthreads();
  const int64_t i = global_thread();
  if (i >= n) return;
  const Tape<T> values = {layers, n, i}, cotangents = {v_layers, n, i};
  Sample<T, kHidden> sample;
  sample.forward(weights, features + i * kInputs, values);
  sample.backward(weights, v_densities[i], v_colors + i * kColors, v_gates + i * kGates, values, cotangents);
}

// function(number type, width) for what the kernels are compiled for: both widths in float32, and 32 in float64.
template <typename Function>
int32_t with_network(avatar_call* call, const RadianceSizes& sizes, const Function& function) {
  AVATAR_RETURN_IF_BAD(check_radiance(call, sizes));
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    if (same(sizes, Sizes<32>::kAll)) return function(zero, std::integral_constant<int, 32>());
    if constexpr (sizeof(T) == 4)
      if (same(sizes, Sizes<64>::kAll)) return function(zero, std::integral_constant<int, 64>());
    return fail(call, AVATAR_UNSUPPORTED,
                "inputs, attention, gates, hidden, outputs, color are %d, %d, %d, %d, %d, %d; the kernel is for "
                "36, 16, 3, 32, 16, 32 and, in float32, 36, 16, 3, 64, 32, 64",
                int(sizes.inputs), int(sizes.attention), int(sizes.gates), int(sizes.hidden), int(sizes.outputs),
                int(sizes.color));
  });
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;
using avatar::RadianceOffsets;
using avatar::RadianceSizes;

extern "C" {

int32_t avatar_cuda_radiance_mlp(avatar_call* call, const void* features, int64_t n, int32_t inputs, int32_t attention,
                                 int32_t gates, int32_t hidden, int32_t outputs, int32_t color, const void* parameters,
                                 void* densities, void* colors, void* gate_values, void* stream) {
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  return with_network(call, sizes, [&](auto zero, auto width) -> int32_t {
    using T = decltype(zero);
    AVATAR_REQUIRE(parameters);
    AVATAR_REQUIRE_IF(n, features, densities, colors, gate_values);
    if (n == 0) return AVATAR_OK;
    return launch(call, radiance_kernel<T, width()>, blocks_for(n, kThreads), kThreads,
                  static_cast<cudaStream_t>(stream), in<T>(features), n, in<T>(parameters), RadianceOffsets(sizes),
                  out<T>(densities), out<T>(colors), out<T>(gate_values));
  });
}

int32_t avatar_cuda_radiance_mlp_backward(avatar_call* call, const void* features, int64_t n, int32_t inputs,
                                          int32_t attention, int32_t gates, int32_t hidden, int32_t outputs,
                                          int32_t color, const void* parameters, const void* v_densities,
                                          const void* v_colors, const void* v_gates, void* layers, void* v_layers,
                                          void* stream) {
  const RadianceSizes sizes = {inputs, attention, gates, hidden, outputs, color};
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  return with_network(call, sizes, [&](auto zero, auto width) -> int32_t {
    using T = decltype(zero);
    AVATAR_REQUIRE(parameters);
    AVATAR_REQUIRE_IF(n, features, v_densities, v_colors, v_gates, layers, v_layers);
    if (n == 0) return AVATAR_OK;
    return launch(call, radiance_backward_kernel<T, width()>, blocks_for(n, kThreads), kThreads,
                  static_cast<cudaStream_t>(stream), in<T>(features), n, in<T>(parameters), RadianceOffsets(sizes),
                  in<T>(v_densities), in<T>(v_colors), in<T>(v_gates), out<T>(layers), out<T>(v_layers));
  });
}

}  // extern "C"
