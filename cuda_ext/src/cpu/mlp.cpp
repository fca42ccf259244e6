// The deformation network, forward and backward, a block of points at a time: no layer's output ever reaches memory.
//
//   [base, gate] = features spatial^T + bias       attention = 2 sigmoid(gate)
//   first = relu(base + attention condition)       second = relu(first middle^T + bias)
//   out = (second head^T + bias) scale
//
// The backward pass computes the layers of a block again. Weight gradients are summed within a fixed number of chunks
// of points and then over the chunks, so results do not depend on the number of threads.
#include "common.h"
#include "matrix.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kPoints = 48;  // points per block: a multiple of the rows of a register tile
constexpr int kChunks = 16;

// Sizes, and the same rounded up to whole registers.
template <typename T>
struct Shape {
  int inputs, hidden, outputs;
  int64_t wide_inputs, wide_hidden, wide_outputs;

  Shape(int in, int middle, int out)
      : inputs(in), hidden(middle), outputs(out), wide_inputs(padded<T>(in)), wide_hidden(padded<T>(middle)),
        wide_outputs(padded<T>(out)) {}
};

// Weights as the products need them: rows padded with zeros, and for the forward pass transposed.
template <typename T>
struct Weights {
  T *spatial, *spatial_bias, *condition, *middle, *middle_bias, *head, *head_bias, *scale;
  T *spatial_rows, *middle_rows, *head_rows;  // not transposed, for the backward pass

  static int64_t size(const Shape<T>& s) {
    return s.inputs * 2 * s.wide_hidden + 2 * s.hidden * s.wide_inputs + 2 * s.hidden * s.wide_hidden +
           s.hidden * s.wide_outputs + s.outputs * s.wide_hidden + 4 * s.wide_hidden + 2 * s.wide_outputs;
  }

  Weights(Memory<T> memory, const Shape<T>& s, const T* spatial_weight, const T* spatial_offset, const T* modulation,
          const T* middle_weight, const T* middle_offset, const T* head_weight, const T* head_offset, const T* factor) {
    for (int64_t i = 0; i < size(s); ++i) memory.next[i] = T(0);
    spatial = memory.take(s.inputs * 2 * s.wide_hidden);
    spatial_rows = memory.take(2 * s.hidden * s.wide_inputs);
    middle = memory.take(s.hidden * s.wide_hidden);
    middle_rows = memory.take(s.hidden * s.wide_hidden);
    head = memory.take(s.hidden * s.wide_outputs);
    head_rows = memory.take(s.outputs * s.wide_hidden);
    spatial_bias = memory.take(2 * s.wide_hidden);
    condition = memory.take(s.wide_hidden);
    middle_bias = memory.take(s.wide_hidden);
    head_bias = memory.take(s.wide_outputs);
    scale = memory.take(s.wide_outputs);
    for (int i = 0; i < s.hidden; ++i) {
      condition[i] = modulation[i];
      middle_bias[i] = middle_offset[i];
      for (int j = 0; j < s.hidden; ++j)
        middle[j * s.wide_hidden + i] = middle_rows[i * s.wide_hidden + j] = middle_weight[i * s.hidden + j];
      for (int half = 0; half < 2 && spatial_weight != nullptr; ++half) {
        const int row = half * s.hidden + i;
        spatial_bias[half * s.wide_hidden + i] = spatial_offset[row];
        for (int j = 0; j < s.inputs; ++j)
          spatial[j * 2 * s.wide_hidden + half * s.wide_hidden + i] = spatial_rows[row * s.wide_inputs + j] =
              spatial_weight[row * s.inputs + j];
      }
    }
    for (int i = 0; i < s.outputs; ++i) {
      head_bias[i] = head_offset[i];
      scale[i] = factor[i];
      for (int j = 0; j < s.hidden; ++j)
        head[j * s.wide_outputs + i] = head_rows[i * s.wide_hidden + j] = head_weight[i * s.hidden + j];
    }
  }
};

// The layers of one block of points.
template <typename T>
struct Block {
  T *features, *code, *first, *second, *out;  // code: base and attention, each padded
  T *v_code, *v_first, *v_second, *v_out, *v_features;

  static int64_t size(const Shape<T>& s) {
    return kPoints * (2 * s.wide_inputs + 8 * s.wide_hidden + 2 * s.wide_outputs);
  }

  Block(Memory<T> memory, const Shape<T>& s) {
    features = memory.take(kPoints * s.wide_inputs);
    v_features = memory.take(kPoints * s.wide_inputs);
    code = memory.take(kPoints * 2 * s.wide_hidden);
    v_code = memory.take(kPoints * 2 * s.wide_hidden);
    first = memory.take(kPoints * s.wide_hidden);
    v_first = memory.take(kPoints * s.wide_hidden);
    second = memory.take(kPoints * s.wide_hidden);
    v_second = memory.take(kPoints * s.wide_hidden);
    out = memory.take(kPoints * s.wide_outputs);
    v_out = memory.take(kPoints * s.wide_outputs);
  }

  // Base and attention from features [count, inputs].
  void encode(const Shape<T>& s, const Weights<T>& w, const T* from, int count) {
    using V = Lanes<T>;
    for (int p = 0; p < count; ++p)
      for (int j = 0; j < s.inputs; ++j) features[p * s.wide_inputs + j] = from[int64_t(p) * s.inputs + j];
    const int64_t width = 2 * s.wide_hidden;
    multiply(View<T>{features, s.wide_inputs}, w.spatial, width, code, width, count, width, s.inputs, false);
    for (int p = 0; p < count; ++p)
      for (int64_t j = 0; j < s.wide_hidden; j += V::kCount) {
        T* base = code + p * width + j;
        T* gate = base + s.wide_hidden;
        (V::load(base) + V::load(w.spatial_bias + j)).store(base);
        const V x = V::load(gate) + V::load(w.spatial_bias + s.wide_hidden + j);
        const V other = exp2_approximate(at_most(x * V(-1.44269504088896341), V(120.0)));
        select(x <= x, V(2.0) / (V(1.0) + other), x).store(gate);  // NaN stays NaN
      }
  }

  // Base and attention that are known already, [count, 2 hidden], with padded rows: where they are if they need none.
  const T* padded_code(const Shape<T>& s, const T* from, int count) {
    if (s.hidden == s.wide_hidden) return from;
    for (int row = 0; row < 2 * count; ++row)
      for (int64_t j = 0; j < s.wide_hidden; ++j)
        code[row * s.wide_hidden + j] = j < s.hidden ? from[int64_t(row) * s.hidden + j] : T(0);
    return code;
  }

  // From base and attention, both padded.
  void hidden_layers(const Shape<T>& s, const Weights<T>& w, const T* from, int count) {
    using V = Lanes<T>;
    for (int p = 0; p < count; ++p)
      for (int64_t j = 0; j < s.wide_hidden; j += V::kCount) {
        const T* base = from + p * 2 * s.wide_hidden + j;
        const V sum = V::load(base) + V::load(base + s.wide_hidden) * V::load(w.condition + j);
        rectified(sum).store(first + p * s.wide_hidden + j);
      }
    multiply(View<T>{first, s.wide_hidden}, w.middle, s.wide_hidden, second, s.wide_hidden, count, s.wide_hidden,
             s.hidden, false);
    for (int p = 0; p < count; ++p)
      for (int64_t j = 0; j < s.wide_hidden; j += V::kCount) {
        T* here = second + p * s.wide_hidden + j;
        rectified(V::load(here) + V::load(w.middle_bias + j)).store(here);
      }
  }

  void outputs(const Shape<T>& s, const Weights<T>& w, int count, T* to) {
    multiply(View<T>{second, s.wide_hidden}, w.head, s.wide_outputs, out, s.wide_outputs, count, s.wide_outputs,
             s.hidden, false);
    for (int p = 0; p < count; ++p)
      for (int j = 0; j < s.outputs; ++j)
        to[int64_t(p) * s.outputs + j] = (out[p * s.wide_outputs + j] + w.head_bias[j]) * w.scale[j];
  }
};

// Gradients by the weights, summed over a chunk of points; rows padded.
template <typename T>
struct WeightGradients {
  T *spatial, *spatial_bias, *condition, *middle, *middle_bias, *head, *head_bias;

  static int64_t size(const Shape<T>& s) {
    return 2 * s.hidden * s.wide_inputs + s.hidden * s.wide_hidden + s.outputs * s.wide_hidden + 4 * s.wide_hidden +
           s.wide_outputs;
  }

  WeightGradients(Memory<T> memory, const Shape<T>& s) {
    spatial = memory.take(2 * s.hidden * s.wide_inputs);
    middle = memory.take(s.hidden * s.wide_hidden);
    head = memory.take(s.outputs * s.wide_hidden);
    spatial_bias = memory.take(2 * s.wide_hidden);
    condition = memory.take(s.wide_hidden);
    middle_bias = memory.take(s.wide_hidden);
    head_bias = memory.take(s.wide_outputs);
  }
};

template <typename T>
void backward_block(const Shape<T>& s, const Weights<T>& w, Block<T>& b, int count, const T* v_out, T* v_features,
                    const WeightGradients<T>& v) {
  using V = Lanes<T>;
  const V zero(0.0);
  for (int p = 0; p < count; ++p)
    for (int j = 0; j < s.outputs; ++j)
      b.v_out[p * s.wide_outputs + j] = v_out[int64_t(p) * s.outputs + j] * w.scale[j];
  multiply(Transposed<T>{b.v_out, s.wide_outputs}, b.second, s.wide_hidden, v.head, s.wide_hidden, s.outputs,
           s.wide_hidden, count, true);
  add_rows(b.v_out, count, s.wide_outputs, v.head_bias);

  multiply(View<T>{b.v_out, s.wide_outputs}, w.head_rows, s.wide_hidden, b.v_second, s.wide_hidden, count,
           s.wide_hidden, s.outputs, false);
  for (int64_t i = 0; i < count * s.wide_hidden; i += V::kCount)
    keep(V::load(b.second + i) > zero, V::load(b.v_second + i)).store(b.v_second + i);
  multiply(Transposed<T>{b.v_second, s.wide_hidden}, b.first, s.wide_hidden, v.middle, s.wide_hidden, s.hidden,
           s.wide_hidden, count, true);
  add_rows(b.v_second, count, s.wide_hidden, v.middle_bias);

  multiply(View<T>{b.v_second, s.wide_hidden}, w.middle_rows, s.wide_hidden, b.v_first, s.wide_hidden, count,
           s.wide_hidden, s.hidden, false);
  for (int64_t j = 0; j < s.wide_hidden; j += V::kCount) {
    V v_condition = V::load(v.condition + j);
    const V condition = V::load(w.condition + j);
    for (int p = 0; p < count; ++p) {
      const V v_sum = keep(V::load(b.first + p * s.wide_hidden + j) > zero, V::load(b.v_first + p * s.wide_hidden + j));
      const V attention = V::load(b.code + (2 * p + 1) * s.wide_hidden + j);
      v_condition = v_condition + v_sum * attention;
      v_sum.store(b.v_code + 2 * p * s.wide_hidden + j);
      const V slope = attention * (V(1.0) - V(0.5) * attention);
      (v_sum * condition * slope).store(b.v_code + (2 * p + 1) * s.wide_hidden + j);
    }
    v_condition.store(v.condition + j);
  }
  for (int half = 0; half < 2; ++half)
    multiply(Transposed<T>{b.v_code + half * s.wide_hidden, 2 * s.wide_hidden}, b.features, s.wide_inputs,
             v.spatial + half * s.hidden * s.wide_inputs, s.wide_inputs, s.hidden, s.wide_inputs, count, true);
  add_rows(b.v_code, count, 2 * s.wide_hidden, v.spatial_bias);
  for (int half = 0; half < 2; ++half)
    multiply(View<T>{b.v_code + half * s.wide_hidden, 2 * s.wide_hidden},
             w.spatial_rows + half * s.hidden * s.wide_inputs, s.wide_inputs, b.v_features, s.wide_inputs, count,
             s.wide_inputs, s.hidden, half == 1);
  for (int p = 0; p < count; ++p)
    for (int j = 0; j < s.inputs; ++j) v_features[int64_t(p) * s.inputs + j] = b.v_features[p * s.wide_inputs + j];
}

// out [rows, columns] = sum over the chunks of a padded matrix; `stride` lies between chunks.
template <typename T>
void collect(const T* first, int64_t stride, int rows, int columns, int64_t width, T* out) {
  for (int r = 0; r < rows; ++r)
    for (int j = 0; j < columns; ++j) {
      T sum = T(0);
      for (int chunk = 0; chunk < kChunks; ++chunk) sum += first[chunk * stride + r * width + j];
      out[int64_t(r) * columns + j] = sum;
    }
}

}  // namespace

template <typename T>
int64_t deform_mlp_workspace(int threads, int inputs, int hidden, int outputs) {
  const Shape<T> s(inputs, hidden, outputs);
  const int64_t numbers = Weights<T>::size(s) + threads * Block<T>::size(s) + kChunks * WeightGradients<T>::size(s);
  return numbers * static_cast<int64_t>(sizeof(T));
}

template <typename T>
void deform_mlp(int threads, const T* features, const T* code, int64_t n, int inputs, int hidden, int outputs,
                const T* spatial_weight, const T* spatial_bias, const T* condition, const T* middle_weight,
                const T* middle_bias, const T* head_weight, const T* head_bias, const T* scale, T* out, T* workspace) {
  const Shape<T> s(inputs, hidden, outputs);
  const Weights<T> w(Memory<T>{workspace}, s, spatial_weight, spatial_bias, condition, middle_weight, middle_bias,
                     head_weight, head_bias, scale);
  T* blocks = workspace + Weights<T>::size(s);
  parallel_for(threads, (n + 4 * kPoints - 1) / (4 * kPoints), [&](int64_t item, int worker) {
    Block<T> block(Memory<T>{blocks + worker * Block<T>::size(s)}, s);
    const int64_t end = (item + 1) * 4 * kPoints < n ? (item + 1) * 4 * kPoints : n;
    for (int64_t p = item * 4 * kPoints; p < end; p += kPoints) {
      const int count = static_cast<int>(end - p < kPoints ? end - p : kPoints);
      const T* known = block.code;
      if (features != nullptr)
        block.encode(s, w, features + p * inputs, count);
      else
        known = block.padded_code(s, code + p * 2 * hidden, count);
      block.hidden_layers(s, w, known, count);
      block.outputs(s, w, count, out + p * outputs);
    }
  });
}

template <typename T>
void deform_mlp_backward(int threads, const T* features, int64_t n, int inputs, int hidden, int outputs,
                         const T* spatial_weight, const T* spatial_bias, const T* condition, const T* middle_weight,
                         const T* middle_bias, const T* head_weight, const T* head_bias, const T* scale, const T* v_out,
                         T* v_features, T* v_spatial_weight, T* v_spatial_bias, T* v_condition, T* v_middle_weight,
                         T* v_middle_bias, T* v_head_weight, T* v_head_bias, T* workspace) {
  const Shape<T> s(inputs, hidden, outputs);
  const Weights<T> w(Memory<T>{workspace}, s, spatial_weight, spatial_bias, condition, middle_weight, middle_bias,
                     head_weight, head_bias, scale);
  T* blocks = workspace + Weights<T>::size(s);
  T* sums = blocks + threads * Block<T>::size(s);
  const int64_t stride = WeightGradients<T>::size(s);
  const int64_t chunk_size = ((n + kChunks - 1) / kChunks + kPoints - 1) / kPoints * kPoints;
  parallel_for(threads, kChunks, [&](int64_t chunk, int worker) {
    T* own_block = blocks + worker * Block<T>::size(s);
    for (int64_t i = 0; i < Block<T>::size(s); ++i) own_block[i] = T(0);  // the padding
    Block<T> block(Memory<T>{own_block}, s);
    T* own = sums + chunk * stride;
    for (int64_t i = 0; i < stride; ++i) own[i] = T(0);
    const WeightGradients<T> v(Memory<T>{own}, s);
    const int64_t end = (chunk + 1) * chunk_size < n ? (chunk + 1) * chunk_size : n;
    for (int64_t p = chunk * chunk_size; p < end; p += kPoints) {
      const int count = static_cast<int>(end - p < kPoints ? end - p : kPoints);
      block.encode(s, w, features + p * inputs, count);
      block.hidden_layers(s, w, block.code, count);
      backward_block(s, w, block, count, v_out + p * outputs, v_features + p * inputs, v);
    }
  });
  const WeightGradients<T> v(Memory<T>{sums}, s);
  collect(v.spatial, stride, 2 * hidden, inputs, s.wide_inputs, v_spatial_weight);
  for (int half = 0; half < 2; ++half)
    collect(v.spatial_bias + half * s.wide_hidden, stride, 1, hidden, s.wide_hidden, v_spatial_bias + half * hidden);
  collect(v.condition, stride, 1, hidden, s.wide_hidden, v_condition);
  collect(v.middle, stride, hidden, hidden, s.wide_hidden, v_middle_weight);
  collect(v.middle_bias, stride, 1, hidden, s.wide_hidden, v_middle_bias);
  collect(v.head, stride, outputs, hidden, s.wide_hidden, v_head_weight);
  collect(v.head_bias, stride, 1, outputs, s.wide_outputs, v_head_bias);
}

#define INSTANTIATE(T)                                                                                              \
  template int64_t deform_mlp_workspace<T>(int, int, int, int);                                                     \
  template void deform_mlp<T>(int, const T*, const T*, int64_t, int, int, int, const T*, const T*, const T*,        \
                              const T*, const T*, const T*, const T*, const T*, T*, T*);                            \
  template void deform_mlp_backward<T>(int, const T*, int64_t, int, int, int, const T*, const T*, const T*,         \
                                       const T*, const T*, const T*, const T*, const T*, const T*, T*, T*, T*, T*,  \
                                       T*, T*, T*, T*, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
