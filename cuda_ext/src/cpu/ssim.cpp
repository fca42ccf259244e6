// Structural similarity (Wang et al. 2004): 11x11 Gaussian window of sigma 1.5, zero padding, data range 1.
//
// Pictures stay interleaved: a horizontal step is `channels` elements, so a row is one long vector. Each output row sums
// eleven input rows into line buffers, then filters those along the row; nothing of picture size is stored except the
// partial derivatives, when asked for.
#include "common.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kRadius = 5;
constexpr int kTaps = 2 * kRadius + 1;
constexpr double kC1 = 0.01 * 0.01, kC2 = 0.03 * 0.03;
constexpr int kMoments = 5;  // E a, E b, E aa, E bb, E ab
constexpr int kRowsPerItem = 8;
constexpr int kWidest = 16;  // lanes of the widest register

struct Window {
  double tap[kTaps];
  Window() {
    double sum = 0.0;
    for (int k = 0; k < kTaps; ++k) sum += tap[k] = ::exp(-(k - kRadius) * (k - kRadius) / (2.0 * 1.5 * 1.5));
    for (double& value : tap) value /= sum;
  }
};

template <typename T>
AVATAR_HD Lanes<T> load_part(const T* from, int64_t count) {
  if (count >= Lanes<T>::kCount) return Lanes<T>::load(from);
  T part[Lanes<T>::kCount] = {};
  for (int64_t i = 0; i < count; ++i) part[i] = from[i];
  return Lanes<T>::load(part);
}

template <typename T>
AVATAR_HD void store_part(Lanes<T> value, T* to, int64_t count) {
  if (count >= Lanes<T>::kCount) return value.store(to);
  T part[Lanes<T>::kCount];
  value.store(part);
  for (int64_t i = 0; i < count; ++i) to[i] = part[i];
}

// Line buffers of one worker: `lines` rows with a zero margin on both sides, rounded up to whole vectors.
struct Lines {
  int64_t margin, stride;
  Lines(int width, int channels)
      : margin(int64_t(kRadius) * channels),
        stride((int64_t(width) * channels + 2 * margin + 2 * kWidest - 1) / kWidest * kWidest) {}
};

template <typename T>
AVATAR_HD Lanes<T> filter_along(const T* line, int channels, const Lanes<T> tap[kTaps]) {
  Lanes<T> sum = Lanes<T>::load(line) * tap[0];
  for (int k = 1; k < kTaps; ++k) sum = sum + Lanes<T>::load(line + int64_t(k) * channels) * tap[k];
  return sum;
}

// Derivatives of the local SSIM by E a, E aa and E ab.
template <typename V>
AVATAR_HD void local_partials(V mu_a, V mu_b, V similarity, V top_mu, V top_product, V bottom_mu, V bottom_var,
                              V out[3]) {
  const V two(2.0), inverse = V(1.0) / (bottom_mu * bottom_var);
  const V by_square = V(0.0) - similarity / bottom_var;
  const V by_product = two * top_mu * inverse;
  out[0] = two * mu_b * top_product * inverse - two * mu_a * similarity / bottom_mu - two * mu_a * by_square -
           mu_b * by_product;
  out[1] = by_square;
  out[2] = by_product;
}

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
  const Window window;
  const Lines lines(width, channels);
  const int64_t row_size = int64_t(width) * channels, plane = height * row_size;
  double* row_sums = static_cast<double*>(workspace);
  T* all_lines = reinterpret_cast<T*>(row_sums + height);
  V tap[kTaps];
  for (int k = 0; k < kTaps; ++k) tap[k] = V(window.tap[k]);

  parallel_for(threads, (height + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item, int worker) {
    T* line = all_lines + worker * kMoments * lines.stride;
    for (int64_t i = 0; i < kMoments * lines.stride; ++i) line[i] = T(0);
    const int end = static_cast<int>(item + 1) * kRowsPerItem;
    for (int y = end - kRowsPerItem; y < end && y < height; ++y) {
      const int first = y < kRadius ? kRadius - y : 0;
      const int last = y + kRadius >= height ? height - 1 - y + kRadius : kTaps - 1;
      for (int64_t i = 0; i < row_size; i += V::kCount) {
        V m[kMoments] = {V(0.0), V(0.0), V(0.0), V(0.0), V(0.0)};
        for (int k = first; k <= last; ++k) {
          const int64_t at = (y + k - kRadius) * row_size + i;
          const V va = load_part(a + at, row_size - i), vb = load_part(b + at, row_size - i);
          const V wa = va * tap[k], wb = vb * tap[k];
          m[0] = m[0] + wa;
          m[1] = m[1] + wb;
          m[2] = m[2] + wa * va;
          m[3] = m[3] + wb * vb;
          m[4] = m[4] + wa * vb;
        }
        // The tail writes zeros into the right margin, which has room for one vector.
        for (int q = 0; q < kMoments; ++q) m[q].store(line + q * lines.stride + lines.margin + i);
      }
      double row_sum = 0.0;
      for (int64_t i = 0; i < row_size; i += V::kCount) {
        V m[kMoments];
        for (int q = 0; q < kMoments; ++q) m[q] = filter_along(line + q * lines.stride + i, channels, tap);
        const V mu_ab = m[0] * m[1], mu_aa = m[0] * m[0], mu_bb = m[1] * m[1], two(2.0);
        const V top_mu = two * mu_ab + V(kC1), top_product = two * (m[4] - mu_ab) + V(kC2);
        const V bottom_mu = mu_aa + mu_bb + V(kC1), bottom_var = (m[2] - mu_aa) + (m[3] - mu_bb) + V(kC2);
        const V similarity = top_mu * top_product / (bottom_mu * bottom_var);
        T values[V::kCount];
        similarity.store(values);
        T part = T(0);
        for (int64_t j = 0; j < V::kCount; ++j) part += i + j < row_size ? values[j] : T(0);
        row_sum += part;
        V out[3];
        for (int side = 0; side < 2; ++side) {
          T* to = side == 0 ? partials : partials_b;
          if (to == nullptr) continue;
          local_partials(m[side], m[1 - side], similarity, top_mu, top_product, bottom_mu, bottom_var, out);
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
  const Window window;
  const Lines lines(width, channels);
  const int64_t row_size = int64_t(width) * channels, plane = height * row_size;
  T* all_lines = reinterpret_cast<T*>(static_cast<double*>(workspace) + height);
  const V gain(v_mean / static_cast<double>(plane)), two(2.0);
  V tap[kTaps];
  for (int k = 0; k < kTaps; ++k) tap[k] = V(window.tap[k]);

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
            sum = sum + tap[k] * load_part(partials + q * plane + (y + k - kRadius) * row_size + i, row_size - i);
          sum.store(line + q * lines.stride + lines.margin + i);
        }
      for (int64_t i = 0; i < row_size; i += V::kCount) {
        V m[3];
        for (int q = 0; q < 3; ++q) m[q] = filter_along(line + q * lines.stride + i, channels, tap);
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
