// The radiance network, forward and backward, a block of samples at a time: no layer's output ever reaches memory.
//
//   attention = relu(features W_a^T + b)         gates = sigmoid(attention W_g^T + b)
//   hidden = relu(features W_h^T + b + gates conditions)
//   [geometry, logit] = hidden W_d^T + b         density = exp(min(logit, 11))
//   colors = sigmoid(relu(geometry W_c^T + b) W_rgb^T + b)
//
// Geometry features come before the logit in here, so that the color layer reads whole registers. The backward pass
// computes the layers of a block again. Parameter gradients are summed within a fixed number of chunks of samples and
// then over the chunks, so results do not depend on the number of threads.
#include "radiance_layers.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kItem = 4 * kSamples;
constexpr int kChunks = 16;

// Sums over the chunks, `stride` apart, to the parameters' gradients in the order of the C ABI.
template <typename T>
void collect(const Network<T>& n, const RadianceSizes& s, const Gradients<T>& v, int64_t stride, T* out) {
  const RadianceOffsets at(s);
  const auto sum = [&](const T* from) {
    T total = T(0);
    for (int chunk = 0; chunk < kChunks; ++chunk) total += from[chunk * stride];
    return total;
  };
  const auto layer = [&](const Layer<T>& l, const T* from, int64_t weight, int64_t bias, int count, int inputs,
                         int shift, int rows) {
    for (int i = 0; i < count; ++i) {
      const int64_t row = (i + shift) % rows;
      for (int j = 0; j < inputs; ++j) out[weight + int64_t(i) * inputs + j] = sum(from + row * l.wide_in + j);
      out[bias + i] = sum(from + l.outputs * l.wide_in + row);
    }
  };
  layer(n.first, v.first, at.base_weight, at.base_bias, s.hidden, s.inputs, 0, n.first.outputs);
  layer(n.first, v.first, at.attention_weight, at.attention_bias, s.attention, s.inputs,
        static_cast<int>(n.wide_hidden), n.first.outputs);
  layer(n.gate, v.gate, at.gate_weight, at.gate_bias, s.gates, s.attention, 0, s.gates);
  layer(n.density, v.density, at.density_weight, at.density_bias, s.outputs, s.hidden, n.geometry, s.outputs);
  layer(n.color, v.color, at.color_weight, at.color_bias, s.color, n.geometry, 0, s.color);
  layer(n.rgb, v.rgb, at.rgb_weight, at.rgb_bias, kColors, s.color, 0, kColors);
  for (int g = 0; g < s.gates; ++g)
    for (int i = 0; i < s.hidden; ++i)
      out[at.conditions + int64_t(g) * s.hidden + i] = sum(v.condition + g * n.wide_hidden + i);
}

}  // namespace

template <typename T>
int64_t radiance_mlp_workspace(int threads, const RadianceSizes& sizes) {
  const Network<T> n(sizes);
  return (n.size() + threads * Block<T>::size(n) + kChunks * Gradients<T>::size(n)) * static_cast<int64_t>(sizeof(T));
}

template <typename T>
void radiance_mlp(int threads, const T* features, int64_t n, const RadianceSizes& sizes, const T* parameters,
                  T* densities, T* colors, T* gates, T* workspace) {
  Network<T> net(sizes);
  net.load(sizes, parameters, workspace);
  T* blocks = workspace + net.size();
  parallel_for(threads, (n + kItem - 1) / kItem, [&](int64_t item, int worker) {
    Block<T> block(net, blocks + worker * Block<T>::size(net));
    const int64_t end = (item + 1) * kItem < n ? (item + 1) * kItem : n;
    for (int64_t p = item * kItem; p < end; p += kSamples) {
      const int count = static_cast<int>(end - p < kSamples ? end - p : kSamples);
      block.forward(features + p * sizes.inputs, count, end - p - count < kSamples ? end - p - count : kSamples);
      block.store(count, densities + p, colors + p * kColors, gates + p * sizes.gates);
    }
  });
}

template <typename T>
void radiance_mlp_backward(int threads, const T* features, int64_t n, const RadianceSizes& sizes, const T* parameters,
                           const T* v_densities, const T* v_colors, const T* v_gates, T* v_features, T* v_parameters,
                           T* workspace) {
  Network<T> net(sizes);
  net.load(sizes, parameters, workspace);
  T* blocks = workspace + net.size();
  T* sums = blocks + threads * Block<T>::size(net);
  const int64_t stride = Gradients<T>::size(net);
  const int64_t chunk_size = ((n + kChunks - 1) / kChunks + kSamples - 1) / kSamples * kSamples;
  parallel_for(threads, kChunks, [&](int64_t chunk, int worker) {
    Block<T> block(net, blocks + worker * Block<T>::size(net));
    T* own = sums + chunk * stride;
    for (int64_t i = 0; i < stride; ++i) own[i] = T(0);
    const Gradients<T> v(net, own);
    const int64_t end = (chunk + 1) * chunk_size < n ? (chunk + 1) * chunk_size : n;
    for (int64_t p = chunk * chunk_size; p < end; p += kSamples) {
      const int count = static_cast<int>(end - p < kSamples ? end - p : kSamples);
      block.forward(features + p * sizes.inputs, count, end - p - count < kSamples ? end - p - count : kSamples);
      block.backward(count, v_densities + p, v_colors + p * kColors, v_gates + p * sizes.gates,
                     v_features + p * sizes.inputs, v);
    }
  });
  collect(net, sizes, Gradients<T>(net, sums), stride, v_parameters);
}

#define INSTANTIATE(T)                                                                                               \
  template int64_t radiance_mlp_workspace<T>(int, const RadianceSizes&);                                            \
  template void radiance_mlp<T>(int, const T*, int64_t, const RadianceSizes&, const T*, T*, T*, T*, T*);             \
  template void radiance_mlp_backward<T>(int, const T*, int64_t, const RadianceSizes&, const T*, const T*, const T*, \
                                         const T*, T*, T*, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
