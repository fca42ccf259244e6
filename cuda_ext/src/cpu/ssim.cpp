// Structural similarity (Wang et al. 2004): 11x11 Gaussian window of sigma 1.5, zero padding, data range 1.
//
// Pictures stay interleaved: a horizontal step is `channels` elements, so a row is one long vector. Each output row sums
// eleven input rows into line buffers, then filters those along the row; nothing of picture size is stored except the
// partial derivatives, when asked for.
#include "window.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kMoments = 4;  // E a, E b, E (aa + bb), E ab
constexpr int kRowsPerItem = 8;

}  // namespace

template <typename T>
int64_t ssim_workspace(int threads, int height, int width, int channels) {
  const Lines lines(width, channels);
  return height * int64_t(sizeof(double)) + threads * kMoments * lines.stride * int64_t(sizeof(T));
}

template <typename T>
void ssim(int threads, const T* a, const T* b, int height, int width, int channels, T* mean, T* partials,
          T* partials_b, void* workspace) {
  using V = Lanes<T>;
  const Window<T> window;
  const Lines lines(width, channels);
  const int64_t row_size = int64_t(width) * channels, plane = height * row_size;
  double* row_sums = static_cast<double*>(workspace);
  T* all_lines = reinterpret_cast<T*>(row_sums + height);

  parallel_for(threads, (height + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item, int worker) {
    T* line = all_lines + worker * kMoments * lines.stride;
    for (int64_t i = 0; i < kMoments * lines.stride; ++i) line[i] = T(0);
    const int end = static_cast<int>(item + 1) * kRowsPerItem;
    for (int y = end - kRowsPerItem; y < end && y < height; ++y) {
      const int first = y < kRadius ? kRadius - y : 0;
      const int last = y + kRadius >= height ? height - 1 - y + kRadius : kTaps - 1;
      for (int64_t i = 0; i < row_size; i += V::kCount) {
        V m[kMoments] = {V(0.0), V(0.0), V(0.0), V(0.0)};
        for (int k = first; k <= last; ++k) {
          const int64_t at = (y + k - kRadius) * row_size + i;
          const V va = load_part(a + at, row_size - i), vb = load_part(b + at, row_size - i);
          const V tap = window.tap[k < kRadius ? k : kTaps - 1 - k], wa = va * tap, wb = vb * tap;
          m[0] = m[0] + wa;
          m[1] = m[1] + wb;
          m[2] = m[2] + wa * va + wb * vb;
          m[3] = m[3] + wa * vb;
        }
        // The tail writes zeros into the right margin, which has room for one vector.
        for (int q = 0; q < kMoments; ++q) m[q].store(line + q * lines.stride + lines.margin + i);
      }
      double row_sum = 0.0;
      for (int64_t i = 0; i < row_size; i += V::kCount) {
        V m[kMoments];
        for (int q = 0; q < kMoments; ++q) m[q] = window.along(line + q * lines.stride + i, channels);
        const LocalSimilarity<V> local(m[0], m[1], m[2], m[3]);
        T values[V::kCount];
        local.value.store(values);
        T part = T(0);
        for (int64_t j = 0; j < V::kCount; ++j) part += i + j < row_size ? values[j] : T(0);
        row_sum += part;
        V out[3];
        for (int side = 0; side < 2; ++side) {
          T* to = side == 0 ? partials : partials_b;
          if (to == nullptr) continue;
          local.partials(m[side], m[1 - side], out);
          for (int q = 0; q < 3; ++q) store_part(out[q], to + q * plane + y * row_size + i, row_size - i);
        }
      }
      row_sums[y] = row_sum;
    }
  });
  double total = 0.0;
  for (int y = 0; y < height; ++y) total += row_sums[y];
  *mean = T(total / static_cast<double>(plane));
}

template <typename T>
void ssim_backward(int threads, const T* a, const T* b, const T* partials, double v_mean, int height, int width,
                   int channels, T* v_a, void* workspace) {
  using V = Lanes<T>;
  const Window<T> window;
  const Lines lines(width, channels);
  const int64_t row_size = int64_t(width) * channels, plane = height * row_size;
  T* all_lines = reinterpret_cast<T*>(static_cast<double*>(workspace) + height);
  const V gain(v_mean / static_cast<double>(plane)), two(2.0);

  parallel_for(threads, (height + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item, int worker) {
    T* line = all_lines + worker * kMoments * lines.stride;
    for (int64_t i = 0; i < kMoments * lines.stride; ++i) line[i] = T(0);
    const int end = static_cast<int>(item + 1) * kRowsPerItem;
    for (int y = end - kRowsPerItem; y < end && y < height; ++y) {
      const int first = y < kRadius ? kRadius - y : 0;
      const int last = y + kRadius >= height ? height - 1 - y + kRadius : kTaps - 1;
      for (int64_t i = 0; i < row_size; i += V::kCount)
        for (int q = 0; q < 3; ++q) {
          V sum(0.0);
          for (int k = first; k <= last; ++k)
            sum = sum + window.tap[k < kRadius ? k : kTaps - 1 - k] * load_part(partials + q * plane + (y + k - kRadius) * row_size + i, row_size - i);
          sum.store(line + q * lines.stride + lines.margin + i);
        }
      for (int64_t i = 0; i < row_size; i += V::kCount) {
        V m[3];
        for (int q = 0; q < 3; ++q) m[q] = window.along(line + q * lines.stride + i, channels);
        const int64_t at = y * row_size + i, left = row_size - i;
        const V value = m[0] + two * load_part(a + at, left) * m[1] + load_part(b + at, left) * m[2];
        store_part(gain * value, v_a + at, left);
      }
    }
  });
}

#define INSTANTIATE(T)                                                                                             \
  template int64_t ssim_workspace<T>(int, int, int, int);                                                          \
  template void ssim<T>(int, const T*, const T*, int, int, int, T*, T*, T*, void*);                                \
  template void ssim_backward<T>(int, const T*, const T*, const T*, double, int, int, int, T*, void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
