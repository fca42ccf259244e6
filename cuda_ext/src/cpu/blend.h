// Alpha blending of the tile lists, forward and backward.
//
// A tile is cut into blocks of 4 x 4 pixels (AVX-512) or fewer, one register each: small Gaussians reach few blocks,
// and a block whose pixels have all had enough is not visited again. Which blocks a Gaussian reaches follows from the
// horizontal extent of its ellipse of alpha >= 1/255 in each row of blocks.
//
// Forward, a block's state stays in registers while the Gaussians of a batch that reach it are blended. Backward, the
// sums over pixels stay in registers while one Gaussian visits its blocks, back to front. Of a pixel's state the
// backward pass needs the transmittance T and one number s, the cotangent-weighted colour that is seen from behind the
// current Gaussian: with d = <colour, v_image>, v_alpha = T (d - s), and seen from before it s becomes
// s + alpha (d - s). Each (tile, Gaussian) pair writes its own slot of partial sums; the slots of a Gaussian are then
// added in their fixed order. No atomics, same bits for any number of threads.
#pragma once

#include "common.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kTile = 16;
constexpr int kMaxChannels = 32;
constexpr int kMoments = 6;  // sums of v_power times 1, dx, dy, dx^2, dx dy, dy^2
constexpr int kBatch = 64;   // pairs prepared at a time; one bit each
constexpr double kLog2E = 1.44269504088896341;
constexpr double kSmallestPower = -7.994353436858858;  // log2 of AVATAR_ALPHA_MIN
constexpr double kLargestPower = -0.0014434168696687186;  // log2 of AVATAR_ALPHA_MAX

template <typename T>
struct Blocks {
  static constexpr int kWidth = Lanes<T>::kCount < 4 ? 2 : 4, kHeight = Lanes<T>::kCount / kWidth;  // pixels
  static constexpr int kColumns = kTile / kWidth, kRows = kTile / kHeight, kCount = kColumns * kRows;
};

// What blending needs of a Gaussian: alpha = 2^(power - a dx^2 - b dx dy - c dy^2).
template <typename T, int kChannels>
struct Splat {
  T x, y, a, b, c, power;
  T color[kChannels ? kChannels : 1];
};

template <typename T>
struct Scene {
  const T *means2d, *conics, *colors, *opacities, *background, *limits;
  int channels, background_stride, width, height, tiles_x;
  const int32_t *tile_offsets, *ids;
};

// The pixels of one tile.
struct Region {
  int left, top, columns, rows;

  template <typename T>
  Region(const Scene<T>& scene, int tile)
      : left(tile % scene.tiles_x * kTile),
        top(tile / scene.tiles_x * kTile),
        columns(scene.width - left < kTile ? scene.width - left : kTile),
        rows(scene.height - top < kTile ? scene.height - top : kTile) {}
};

template <typename T, int kChannels>
void make_splats(int threads, const Scene<T>& scene, int64_t n, Splat<T, kChannels>* splats) {
  parallel_blocks(threads, n, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      Splat<T, kChannels>& s = splats[g];
      s.x = scene.means2d[2 * g];
      s.y = scene.means2d[2 * g + 1];
      s.a = T(0.5 * kLog2E) * scene.conics[3 * g];
      s.b = T(kLog2E) * scene.conics[3 * g + 1];
      s.c = T(0.5 * kLog2E) * scene.conics[3 * g + 2];
      s.power = power_of_limit(scene.limits[g]);
      for (int c = 0; c < kChannels; ++c) s.color[c] = scene.colors[g * kChannels + c];
    }
  });
}

// Up to kBatch consecutive Gaussians of a tile list, side by side.
template <typename T, int kChannels>
struct Batch {
  T x[kBatch], y[kBatch], a[kBatch], b[kBatch], c[kBatch], power[kBatch];
  T bound[kBatch];  // upper end of the exponent: the value at the mean, or that of the largest alpha
  T color[kChannels ? kChannels : 1][kBatch];
  int32_t id[kBatch];

  void load(const Splat<T, kChannels>* splats, const int32_t* ids, int count) {
    for (int k = 0; k < count; ++k) {
      __asm__ volatile("");  // number by number: gathered into registers first, as the compiler would, it takes twice as long
      const Splat<T, kChannels>& s = splats[id[k] = ids[k]];
      x[k] = s.x;
      y[k] = s.y;
      a[k] = s.a;
      b[k] = s.b;
      c[k] = s.c;
      power[k] = s.power;
      for (int channel = 0; channel < kChannels; ++channel) color[channel][k] = s.color[channel];
    }
    for (int k = count; k % Lanes<T>::kCount != 0; ++k) {  // fill the last register with what reaches nothing
      x[k] = y[k] = b[k] = T(0);
      a[k] = c[k] = T(1);
      power[k] = T(-1e9);
    }
    for (int k = 0; k < count; k += Lanes<T>::kCount)
      at_most(Lanes<T>::load(power + k), Lanes<T>(kLargestPower)).store(bound + k);
  }

  AVATAR_HD Lanes<T> rgb(const Scene<T>& scene, int k, int channel) const {
    return Lanes<T>(kChannels ? color[channel][k] : scene.colors[int64_t(id[k]) * scene.channels + channel]);
  }

  // function(k, row, column, mask) for every block, with `mask` the Gaussians from k on, one per lane, that reach it.
  template <typename Function>
  AVATAR_HD void for_each_block(const Region& region, int count, const Function& function) const {
    using V = Lanes<T>;
    for (int k = 0; k < count; k += V::kCount) {
      const V zero(0.0), margin(2e-3), va = V::load(a + k), vc = V::load(c + k), vb = V(0.5) * V::load(b + k);
      // The ellipse a dx^2 + 2 b dx dy + c dy^2 <= limit. The determinant suffers from cancellation; it is rounded
      // down, which widens the ellipse.
      const V limit = V::load(power + k) + V(1e-5 - kSmallestPower), product = va * vc;
      const V determinant = at_least(product - vb * vb - V(sizeof(T) == 4 ? 1e-6 : 1e-14) * product, V(1e-30));
      const V level = limit * va, inverse_a = V(1.0) / va, gain = at_least(limit, zero) / determinant;
      const V half_height = root(gain * va);
      const V lean = zero - vb / vc * root(gain * vc);  // dy at the rightmost point
      const V center = V::load(x + k) - V(region.left + 0.5), above = V(region.top + 0.5) - V::load(y + k);
      const Mask<T> visible = limit > zero;
      for (int row = 0; row < Blocks<T>::kRows; ++row) {
        const V first = above + V(row * Blocks<T>::kHeight), last = first + V(Blocks<T>::kHeight - 1.0);
        const V low = at_least(first, zero - half_height), high = at_most(last, half_height);
        const V at_right = at_least(at_most(lean, high), low), at_left = at_least(at_most(zero - lean, high), low);
        const V right_root = root(at_least(level - determinant * at_right * at_right, zero));
        const V left_root = root(at_least(level - determinant * at_left * at_left, zero));
        const V right = (right_root - vb * at_right) * inverse_a + center + margin;
        const V left = (zero - left_root - vb * at_left) * inverse_a + center - margin;
        const Mask<T> row_reached = visible & (low <= high + margin);
        for (int column = 0; column < Blocks<T>::kColumns; ++column) {
          const V first_pixel(column * Blocks<T>::kWidth), last_pixel((column + 1) * Blocks<T>::kWidth - 1.0);
          function(k, row, column, row_reached & (left <= last_pixel) & (right >= first_pixel));
        }
      }
    }
  }
};

// The exponent around the first pixel of a block: power(u, v) = at_origin + along_x u + along_y v - (a u^2 + b u v + c v^2)
// at u pixels right of it and v below. One lane per block or per Gaussian.
template <typename T>
struct Expansion {
  Lanes<T> at_origin, along_x, along_y;

  AVATAR_HD Expansion(Lanes<T> dx, Lanes<T> dy, Lanes<T> a, Lanes<T> b, Lanes<T> c, Lanes<T> power) {
    const Lanes<T> ax = a * dx, cy = c * dy, slope = ax + b * dy;
    at_origin = power - slope * dx - cy * dy;
    along_x = Lanes<T>(0.0) - (slope + ax);
    along_y = Lanes<T>(0.0) - (cy + cy + b * dx);
  }
};

// Places of a block's pixels relative to its first one, and their products.
template <typename T>
struct Offsets {
  Lanes<T> u, v, uu, uv, vv;

  Offsets() {
    T column[Lanes<T>::kCount], row[Lanes<T>::kCount];
    for (int i = 0; i < Lanes<T>::kCount; ++i) {
      column[i] = T(i % Blocks<T>::kWidth);
      row[i] = T(i / Blocks<T>::kWidth);
    }
    u = Lanes<T>::load(column);
    v = Lanes<T>::load(row);
    uu = u * u;
    uv = u * v;
    vv = v * v;
  }
  AVATAR_HD Lanes<T> curvature(T a, T b, T c) const {
    return Lanes<T>(0.0) - (Lanes<T>(a) * uu + Lanes<T>(b) * uv + Lanes<T>(c) * vv);
  }
  AVATAR_HD Lanes<T> power(Lanes<T> curvature, T at_origin, T along_x, T along_y) const {
    return (curvature + Lanes<T>(at_origin)) + Lanes<T>(along_x) * u + Lanes<T>(along_y) * v;
  }
};

// Between blocks and rows of pixels: `plane` holds the 16 x 16 pixels of a tile row by row.
template <typename T>
AVATAR_HD void store_block(Lanes<T> value, int block, T* plane) {
  T lane[Lanes<T>::kCount];
  value.store(lane);
  T* to = plane + block / Blocks<T>::kColumns * Blocks<T>::kHeight * kTile + block % Blocks<T>::kColumns * Blocks<T>::kWidth;
  for (int row = 0; row < Blocks<T>::kHeight; ++row)
    for (int i = 0; i < Blocks<T>::kWidth; ++i) to[row * kTile + i] = lane[row * Blocks<T>::kWidth + i];
}

template <typename T>
AVATAR_HD Lanes<T> load_block(const T* plane, int block) {
  T lane[Lanes<T>::kCount];
  const T* from =
      plane + block / Blocks<T>::kColumns * Blocks<T>::kHeight * kTile + block % Blocks<T>::kColumns * Blocks<T>::kWidth;
  for (int row = 0; row < Blocks<T>::kHeight; ++row)
    for (int i = 0; i < Blocks<T>::kWidth; ++i) lane[row * Blocks<T>::kWidth + i] = from[row * kTile + i];
  return Lanes<T>::load(lane);
}

template <typename T>
Scene<T> scene_of(const T* means2d, const T* conics, const T* colors, const T* opacities, int channels,
                  const T* background, int background_stride, int width, int height, const T* limits,
                  const int32_t* tile_offsets, const int32_t* ids) {
  Scene<T> scene;
  scene.means2d = means2d;
  scene.conics = conics;
  scene.colors = colors;
  scene.opacities = opacities;
  scene.background = background;
  scene.limits = limits;
  scene.channels = channels;
  scene.background_stride = background_stride;
  scene.width = width;
  scene.height = height;
  scene.tiles_x = (width + kTile - 1) / kTile;
  scene.tile_offsets = tile_offsets;
  scene.ids = ids;
  return scene;
}

// Call function(splats) with splats of as many channels as there are compiled kernels for.
template <typename T, typename Function>
void with_splats(int threads, const Scene<T>& scene, int64_t n, void* workspace, const Function& function) {
  const auto run = [&](auto* splats) {
    make_splats(threads, scene, n, splats);
    function(splats);
  };
  if (scene.channels == 3)
    run(static_cast<Splat<T, 3>*>(workspace));
  else if (scene.channels == 4)
    run(static_cast<Splat<T, 4>*>(workspace));
  else
    run(static_cast<Splat<T, 0>*>(workspace));
}

template <typename T>
int64_t splats_size(int64_t n) {
  return n * static_cast<int64_t>(sizeof(Splat<T, 4>));
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar
