// The 11x11 Gaussian window of structural similarity (Wang et al. 2004) on interleaved pictures: a horizontal step is
// `channels` elements, so a row is one long vector.
#pragma once

#include "common.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kRadius = 5;
constexpr int kTaps = 2 * kRadius + 1;
constexpr double kC1 = 0.01 * 0.01, kC2 = 0.03 * 0.03;
constexpr int kWidest = 16;  // lanes of the widest register

// One side of the window, the middle last; the other side is its mirror image.
template <typename T>
struct Window {
  Lanes<T> tap[kRadius + 1];

  Window() {
    double value[kRadius + 1], sum = 0.0;
    for (int k = 0; k <= kRadius; ++k) {
      value[k] = ::exp(-(k - kRadius) * (k - kRadius) / (2.0 * 1.5 * 1.5));
      sum += (k < kRadius ? 2.0 : 1.0) * value[k];
    }
    for (int k = 0; k <= kRadius; ++k) tap[k] = Lanes<T>(value[k] / sum);
  }

  // Sum along a line that begins kRadius steps before the pixel.
  AVATAR_HD Lanes<T> along(const T* line, int channels) const {
    Lanes<T> sum = Lanes<T>::load(line + kRadius * channels) * tap[kRadius];
    for (int k = 0; k < kRadius; ++k)
      sum = sum + (Lanes<T>::load(line + k * channels) + Lanes<T>::load(line + (kTaps - 1 - k) * channels)) * tap[k];
    return sum;
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

// Line buffers: rows with a zero margin on both sides, rounded up to whole vectors.
struct Lines {
  int64_t margin, stride;
  Lines(int width, int channels)
      : margin(int64_t(kRadius) * channels),
        stride((int64_t(width) * channels + 2 * margin + 2 * kWidest - 1) / kWidest * kWidest) {}
};

// Local means, similarity of one place and what its derivatives share.
template <typename V>
struct LocalSimilarity {
  V mu_a, mu_b, top_mu, top_product, bottom_mu, bottom_var, value;

  // From E a, E b, E (aa + bb) and E ab.
  AVATAR_HD LocalSimilarity(V mean_a, V mean_b, V squares, V product) : mu_a(mean_a), mu_b(mean_b) {
    const V mu_ab = mu_a * mu_b, mu_squares = mu_a * mu_a + mu_b * mu_b, two(2.0);
    top_mu = two * mu_ab + V(kC1);
    top_product = two * (product - mu_ab) + V(kC2);
    bottom_mu = mu_squares + V(kC1);
    bottom_var = (squares - mu_squares) + V(kC2);
    value = top_mu * top_product / (bottom_mu * bottom_var);
  }

  // Derivatives by E a, E aa and E ab.
  AVATAR_HD void partials(V own_mu, V other_mu, V out[3]) const {
    const V two(2.0), inverse = V(1.0) / (bottom_mu * bottom_var);
    out[1] = V(0.0) - value * bottom_mu * inverse;
    out[2] = two * top_mu * inverse;
    out[0] = two * other_mu * top_product * inverse - two * own_mu * value * bottom_var * inverse -
             two * own_mu * out[1] - other_mu * out[2];
  }
};

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar
