// The layers of the radiance network for a block of samples, forward and backward; radiance.cpp says what they compute.
#pragma once

#include "avatar_radiance.h"
#include "common.h"
#include "matrix.h"

namespace avatar {
namespace AVATAR_ISA {

constexpr int kSamples = 48;  // per block: a multiple of the rows of a register tile

// A fully connected layer: `weight` [inputs, wide_out] for the forward pass, `rows` [outputs, wide_in] for backward, both
// padded with zeros.
template <typename T>
struct Layer {
  int inputs, outputs;
  int64_t wide_in, wide_out;
  T *weight, *rows, *bias;

  Layer(int in, int out) : inputs(in), outputs(out), wide_in(padded<T>(in)), wide_out(padded<T>(out)) {}
  int64_t size() const { return inputs * wide_out + outputs * wide_in + wide_out; }
  int64_t gradient_size() const { return outputs * wide_in + wide_out; }

  void take(Memory<T>& memory) {
    weight = memory.take(inputs * wide_out);
    rows = memory.take(outputs * wide_in);
    bias = memory.take(wide_out);
  }
  // Row `from` of a torch layer becomes output `to`.
  void set(int to, const T* from, int64_t count, T offset) {
    for (int64_t i = 0; i < count; ++i) weight[i * wide_out + to] = rows[to * wide_in + i] = from[i];
    bias[to] = offset;
  }
  void forward(const T* in, int64_t in_stride, T* out, int64_t out_stride, int count) const {
    multiply(View<T>{in, in_stride}, weight, wide_out, out, out_stride, count, wide_out, inputs, bias, 0);
  }
  void backward(const T* v_out, int64_t v_stride, T* v_in, int64_t in_stride, int count) const {
    multiply(View<T>{v_out, v_stride}, rows, wide_in, v_in, in_stride, count, wide_in, outputs, false);
  }
  // Add to the gradients of the weights and of the bias.
  void add_gradient(const T* v_out, int64_t v_stride, const T* in, int64_t in_stride, int count, T* gradient) const {
    using V = Lanes<T>;
    multiply(Transposed<T>{v_out, v_stride}, in, in_stride, gradient, wide_in, outputs, wide_in, count, true);
    T* sums = gradient + outputs * wide_in;
    for (int64_t j = 0; j < wide_out; j += V::kCount) {
      V total = V::load(sums + j);
      for (int p = 0; p < count; ++p) total = total + V::load(v_out + p * v_stride + j);
      total.store(sums + j);
    }
  }
};

// All layers. `first` is hidden and attention side by side, each padded; the conditions are a layer without bias.
template <typename T>
struct Network {
  int geometry;
  int64_t wide_hidden;
  Layer<T> first, gate, condition, density, color, rgb;

  explicit Network(const RadianceSizes& s)
      : geometry(s.geometry()), wide_hidden(padded<T>(s.hidden)),
        first(s.inputs, static_cast<int>(wide_hidden) + s.attention), gate(s.attention, s.gates),
        condition(s.gates, s.hidden), density(s.hidden, s.outputs), color(s.outputs, s.color), rgb(s.color, kColors) {}

  int64_t size() const {
    return first.size() + gate.size() + condition.size() + density.size() + color.size() + rgb.size();
  }

  Network& load(const RadianceSizes& s, const T* p, T* workspace) {
    const RadianceOffsets at(s);
    for (int64_t i = 0; i < size(); ++i) workspace[i] = T(0);
    Memory<T> memory{workspace};
    for (Layer<T>* layer : {&first, &gate, &condition, &density, &color, &rgb}) layer->take(memory);
    const auto fill = [&](Layer<T>& layer, int64_t weight, int64_t bias, int count, int inputs, int shift, int rows) {
      for (int i = 0; i < count; ++i) layer.set((i + shift) % rows, p + weight + int64_t(i) * inputs, inputs, p[bias + i]);
    };
    fill(first, at.base_weight, at.base_bias, s.hidden, s.inputs, 0, first.outputs);
    fill(first, at.attention_weight, at.attention_bias, s.attention, s.inputs, static_cast<int>(wide_hidden),
         first.outputs);
    fill(gate, at.gate_weight, at.gate_bias, s.gates, s.attention, 0, s.gates);
    fill(density, at.density_weight, at.density_bias, s.outputs, s.hidden, geometry, s.outputs);
    fill(color, at.color_weight, at.color_bias, s.color, geometry, 0, s.color);
    fill(rgb, at.rgb_weight, at.rgb_bias, kColors, s.color, 0, kColors);
    for (int g = 0; g < s.gates; ++g)
      for (int i = 0; i < s.hidden; ++i)
        condition.weight[g * condition.wide_out + i] = condition.rows[i * condition.wide_in + g] =
            p[at.conditions + int64_t(g) * s.hidden + i];
    return *this;
  }
};

// Sums of the gradients of the parameters over a chunk of samples, padded as the layers are.
template <typename T>
struct Gradients {
  T *first, *gate, *condition, *density, *color, *rgb;

  static int64_t size(const Network<T>& n) {
    return n.first.gradient_size() + n.gate.gradient_size() + n.condition.inputs * n.wide_hidden +
           n.density.gradient_size() + n.color.gradient_size() + n.rgb.gradient_size();
  }

  Gradients(const Network<T>& n, T* workspace) {
    Memory<T> memory{workspace};
    first = memory.take(n.first.gradient_size());
    gate = memory.take(n.gate.gradient_size());
    condition = memory.take(n.condition.inputs * n.wide_hidden);
    density = memory.take(n.density.gradient_size());
    color = memory.take(n.color.gradient_size());
    rgb = memory.take(n.rgb.gradient_size());
  }
};

// Each register of a block of rows becomes function(register).
template <typename T, typename Function>
AVATAR_HD void map_rows(T* rows, int64_t stride, int count, int64_t width, const Function& function) {
  for (int p = 0; p < count; ++p)
    for (int64_t j = 0; j < width; j += Lanes<T>::kCount) {
      T* at = rows + p * stride + j;
      function(Lanes<T>::load(at)).store(at);
    }
}

// Cotangents stay where the values are positive: behind a relu.
template <typename T>
AVATAR_HD void keep_positive(const T* values, T* cotangents, int64_t stride, int count, int64_t width) {
  using V = Lanes<T>;
  for (int p = 0; p < count; ++p)
    for (int64_t j = p * stride; j < p * stride + width; j += V::kCount)
      keep(V::load(values + j) > V(0.0), V::load(cotangents + j)).store(cotangents + j);
}

// Cotangents behind a sigmoid.
template <typename T>
AVATAR_HD void scale_by_slope(const T* values, T* cotangents, int64_t size) {
  using V = Lanes<T>;
  for (int64_t i = 0; i < size; i += V::kCount) {
    const V y = V::load(values + i);
    (V::load(cotangents + i) * (y - y * y)).store(cotangents + i);
  }
}

// The layers of one block of samples, and their cotangents. code: hidden and attention.
template <typename T>
struct Block {
  const Network<T>& net;
  int64_t wide_in, wide_code, wide_gates, wide_out, wide_color, wide_rgb;
  T *features, *code, *gates, *out, *second, *rgb, *densities;
  T *v_features, *v_code, *v_gates, *v_out, *v_second, *v_rgb;

  static int64_t size(const Network<T>& n) {
    return kSamples * (1 + 2 * (n.first.wide_in + n.first.wide_out + n.gate.wide_out + n.density.wide_out +
                                n.color.wide_out + n.rgb.wide_out));
  }

  Block(const Network<T>& n, T* workspace)
      : net(n), wide_in(n.first.wide_in), wide_code(n.first.wide_out), wide_gates(n.gate.wide_out),
        wide_out(n.density.wide_out), wide_color(n.color.wide_out), wide_rgb(n.rgb.wide_out) {
    for (int64_t i = 0; i < size(net); ++i) workspace[i] = T(0);  // the padding
    Memory<T> memory{workspace};
    const auto take = [&](T*& value, T*& cotangent, int64_t width) {
      value = memory.take(kSamples * width);
      cotangent = memory.take(kSamples * width);
    };
    take(features, v_features, wide_in);
    take(code, v_code, wide_code);
    take(gates, v_gates, wide_gates);
    take(out, v_out, wide_out);
    take(second, v_second, wide_color);
    take(rgb, v_rgb, wide_rgb);
    densities = memory.take(kSamples);
  }

  // `next`: samples behind these whose features are fetched ahead.
  void forward(const T* from, int count, int64_t next) {
    using V = Lanes<T>;
    const int inputs = net.first.inputs;
    const char* ahead = reinterpret_cast<const char*>(from + int64_t(count) * inputs);
    for (int64_t byte = 0; byte < next * inputs * int64_t(sizeof(T)); byte += 64) __builtin_prefetch(ahead + byte);
    const int64_t hidden = net.wide_hidden;
    const auto relu = [](V x) { return rectified(x); };
    const auto squash = [](V x) { return sigmoid(x); };
    for (int p = 0; p < count; ++p)
      for (int j = 0; j < inputs; ++j) features[p * wide_in + j] = from[int64_t(p) * inputs + j];
    net.first.forward(features, wide_in, code, wide_code, count);
    map_rows(code + hidden, wide_code, count, wide_code - hidden, relu);
    net.gate.forward(code + hidden, wide_code, gates, wide_gates, count);
    map_rows(gates, wide_gates, count, wide_gates, squash);
    multiply(View<T>{gates, wide_gates}, net.condition.weight, hidden, code, wide_code, count, hidden,
             net.condition.inputs, true);
    map_rows(code, wide_code, count, hidden, relu);
    net.density.forward(code, wide_code, out, wide_out, count);
    for (int p = 0; p < count; ++p) densities[p] = out[p * wide_out + net.geometry];
    map_rows(densities, V::kCount, (count + V::kCount - 1) / V::kCount, V::kCount, [](V x) {
      const V most(kLogDensityMax);
      return exponential(select(most < x, most, x));
    });
    net.color.forward(out, wide_out, second, wide_color, count);
    map_rows(second, wide_color, count, wide_color, relu);
    net.rgb.forward(second, wide_color, rgb, wide_rgb, count);
    map_rows(rgb, wide_rgb, count, wide_rgb, squash);
  }

  // `to_gates` null: the gates are not asked for.
  void store(int count, T* to_densities, T* to_colors, T* to_gates) const {
    const int number = to_gates != nullptr ? net.gate.outputs : 0;
    for (int p = 0; p < count; ++p) {
      to_densities[p] = densities[p];
      for (int c = 0; c < kColors; ++c) to_colors[p * kColors + c] = rgb[p * wide_rgb + c];
      for (int g = 0; g < number; ++g) to_gates[p * number + g] = gates[p * wide_gates + g];
    }
  }

  // Cotangents of the features to `to`, those of the parameters into the sums.
  void backward(int count, const T* v_densities, const T* v_colors, const T* v_to_gates, T* to, const Gradients<T>& v) {
    const int number = net.gate.outputs, inputs = net.first.inputs;
    const int64_t hidden = net.wide_hidden;
    for (int p = 0; p < count; ++p)
      for (int c = 0; c < kColors; ++c) v_rgb[p * wide_rgb + c] = v_colors[p * kColors + c];
    scale_by_slope(rgb, v_rgb, count * wide_rgb);
    net.rgb.add_gradient(v_rgb, wide_rgb, second, wide_color, count, v.rgb);
    net.rgb.backward(v_rgb, wide_rgb, v_second, wide_color, count);
    keep_positive(second, v_second, wide_color, count, wide_color);
    net.color.add_gradient(v_second, wide_color, out, wide_out, count, v.color);
    net.color.backward(v_second, wide_color, v_out, wide_out, count);
    for (int p = 0; p < count; ++p) v_out[p * wide_out + net.geometry] = v_densities[p] * densities[p];
    net.density.add_gradient(v_out, wide_out, code, wide_code, count, v.density);
    net.density.backward(v_out, wide_out, v_code, wide_code, count);
    keep_positive(code, v_code, wide_code, count, hidden);
    multiply(Transposed<T>{gates, wide_gates}, v_code, wide_code, v.condition, hidden, number, hidden, count, true);
    net.condition.backward(v_code, wide_code, v_gates, wide_gates, count);
    for (int p = 0; p < count; ++p)
      for (int g = 0; g < number; ++g) v_gates[p * wide_gates + g] += v_to_gates[p * number + g];
    scale_by_slope(gates, v_gates, count * wide_gates);
    net.gate.add_gradient(v_gates, wide_gates, code + hidden, wide_code, count, v.gate);
    net.gate.backward(v_gates, wide_gates, v_code + hidden, wide_code, count);
    keep_positive(code + hidden, v_code + hidden, wide_code, count, wide_code - hidden);
    net.first.add_gradient(v_code, wide_code, features, wide_in, count, v.first);
    net.first.backward(v_code, wide_code, v_features, wide_in, count);
    for (int p = 0; p < count; ++p)
      for (int j = 0; j < inputs; ++j) to[int64_t(p) * inputs + j] = v_features[p * wide_in + j];
  }
};

}  // namespace AVATAR_ISA
}  // namespace avatar
