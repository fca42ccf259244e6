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

// The pixels of a tile while it is blended, by block: transmittance, list index of the last Gaussian looked at, colour,
// and 1 where a pixel still takes more (0: it has had enough, or lies outside the picture).
template <typename T, int kChannels>
struct Pixels {
  static constexpr int kStored = kChannels ? kChannels : kMaxChannels;
  Lanes<T> t[Blocks<T>::kCount], last[Blocks<T>::kCount], open[Blocks<T>::kCount];
  Lanes<T> color[Blocks<T>::kCount][kStored];
};

// Blend the Gaussians of a batch whose bits are set in `hits` into one block; false when all its pixels had enough.
// No branch depends on a pixel: where each stops is unpredictable.
template <typename T, int kChannels>
AVATAR_HD bool blend_block(const Scene<T>& scene, const Batch<T, kChannels>& batch, const Lanes<T>* curvature,
                           const Offsets<T>& offsets, uint64_t hits, int32_t start, int size, T left, T top, int block,
                           Pixels<T, kChannels>& pixels) {
  using V = Lanes<T>;
  const int channels = kChannels ? kChannels : scene.channels;
  const V smallest(kSmallestPower), enough(AVATAR_TRANSMITTANCE_MIN), zero(0.0);
  T at_origin[kBatch], along_x[kBatch], along_y[kBatch];
  for (int k = 0; k < size; k += V::kCount) {
    const Expansion<T> e(V(left) - V::load(batch.x + k), V(top) - V::load(batch.y + k), V::load(batch.a + k),
                         V::load(batch.b + k), V::load(batch.c + k), V::load(batch.power + k));
    e.at_origin.store(at_origin + k);
    e.along_x.store(along_x + k);
    e.along_y.store(along_y + k);
  }
  V t = pixels.t[block], last = pixels.last[block];
  Mask<T> open = pixels.open[block] > zero;
  V own[kChannels ? kChannels : 1];
  V* color = kChannels ? own : pixels.color[block];
  for (int c = 0; c < kChannels; ++c) own[c] = pixels.color[block][c];
  while (hits != 0) {
    const int k = __builtin_ctzll(hits);
    hits &= hits - 1;
    const V power = at_most(offsets.power(curvature[k], at_origin[k], along_x[k], along_y[k]), V(batch.bound[k]));
    const V alpha = keep(power >= smallest, exp2_approximate(power));
    const V next = t - alpha * t;
    open = open & (next > enough);
    const V weight = keep(open, alpha * t);
    t = select(open, next, t);
    last = select(open, V(start + k), last);
    for (int c = 0; c < channels; ++c) color[c] = color[c] + weight * batch.rgb(scene, k, c);
  }
  pixels.t[block] = t;
  pixels.last[block] = last;
  pixels.open[block] = keep(open, V(1.0));
  for (int c = 0; c < kChannels; ++c) pixels.color[block][c] = own[c];
  return any(open);
}

template <typename T>
AVATAR_HD void copy(const T* from, int count, T* to) {
  if (count == kTile)
    __builtin_memcpy(to, from, kTile * sizeof(T));
  else
    for (int i = 0; i < count; ++i) to[i] = from[i];
}

// A tile without Gaussians shows what is behind it.
template <typename T>
void show_background(const Scene<T>& scene, const Region& region, T* image, T* final_t, int32_t* last) {
  for (int row = 0; row < region.rows; ++row) {
    const int64_t pixel = int64_t(region.top + row) * scene.width + region.left;
    for (int i = 0; i < region.columns; ++i) {
      final_t[pixel + i] = T(1);
      last[pixel + i] = -1;
    }
    T* out = image + pixel * scene.channels;
    if (scene.background == nullptr) {
      for (int i = 0; i < region.columns * scene.channels; ++i) out[i] = T(0);
      continue;
    }
    const T* behind = scene.background + pixel * scene.background_stride;
    for (int i = 0; i < region.columns; ++i, behind += scene.background_stride)
      for (int c = 0; c < scene.channels; ++c) out[i * scene.channels + c] = behind[c];
  }
}

// kChannels = 0: the number of channels is scene.channels.
template <typename T, int kChannels>
void rasterize_tile(const Scene<T>& scene, const Splat<T, kChannels>* splats, int tile, T* image, T* final_t,
                    int32_t* last) {
  using V = Lanes<T>;
  using B = Blocks<T>;
  const int channels = kChannels ? kChannels : scene.channels;
  const Region region(scene, tile);
  const int32_t begin = scene.tile_offsets[tile];
  const int32_t count = scene.tile_offsets[tile + 1] - begin;
  if (count == 0) return show_background(scene, region, image, final_t, last);
  const Offsets<T> offsets;

  Pixels<T, kChannels> pixels;
  bool live[B::kCount];
  int live_blocks = 0;
  for (int block = 0; block < B::kCount; ++block) {
    const int left = block % B::kColumns * B::kWidth, top = block / B::kColumns * B::kHeight;
    live[block] = left < region.columns && top < region.rows;
    live_blocks += live[block];
    const Mask<T> inside = (offsets.u + V(left) < V(region.columns)) & (offsets.v + V(top) < V(region.rows));
    pixels.t[block] = V(1.0);
    pixels.last[block] = V(-1.0);
    pixels.open[block] = keep(inside, V(1.0));
    for (int c = 0; c < channels; ++c) pixels.color[block][c] = V(0.0);
  }

  Batch<T, kChannels> batch;
  V curvature[kBatch];
  for (int32_t start = 0; start < count && live_blocks != 0; start += kBatch) {
    const int size = count - start < kBatch ? count - start : kBatch;
    batch.load(splats, scene.ids + begin + start, size);
    for (int k = 0; k < size; ++k) curvature[k] = offsets.curvature(batch.a[k], batch.b[k], batch.c[k]);
    uint64_t hits[B::kCount] = {};
    batch.for_each_block(region, size, [&](int k, int row, int column, Mask<T> mask) {
      hits[row * B::kColumns + column] |= uint64_t(lane_bits(mask)) << k;
    });
    for (int block = 0; block < B::kCount; ++block) {
      if (!live[block] || hits[block] == 0) continue;
      const T left = T(region.left + block % B::kColumns * B::kWidth) + T(0.5);
      const T top = T(region.top + block / B::kColumns * B::kHeight) + T(0.5);
      live[block] =
          blend_block(scene, batch, curvature, offsets, hits[block], start, size, left, top, block, pixels);
      live_blocks -= !live[block];
    }
  }

  T t[kTile * kTile], index[kTile * kTile], planes[Pixels<T, kChannels>::kStored * kTile * kTile];
  int32_t whole_index[kTile * kTile];
  for (int block = 0; block < B::kCount; ++block) {
    store_block(pixels.t[block], block, t);
    store_block(pixels.last[block], block, index);
    for (int c = 0; c < channels; ++c) store_block(pixels.color[block][c], block, planes + c * kTile * kTile);
  }
  for (int i = 0; i < kTile * kTile; ++i) whole_index[i] = static_cast<int32_t>(index[i]);
  for (int row = 0; row < region.rows; ++row) {
    const int64_t pixel = int64_t(region.top + row) * scene.width + region.left;
    copy(t + row * kTile, region.columns, final_t + pixel);
    copy(whole_index + row * kTile, region.columns, last + pixel);
    T line[kTile * Pixels<T, kChannels>::kStored];
    for (int i = 0; i < kTile; ++i)
      for (int c = 0; c < channels; ++c) line[i * channels + c] = planes[c * kTile * kTile + row * kTile + i];
    if (scene.background != nullptr) {
      const T* behind = scene.background + pixel * scene.background_stride;
      for (int i = 0; i < region.columns; ++i, behind += scene.background_stride)
        for (int c = 0; c < channels; ++c) line[i * channels + c] += t[row * kTile + i] * behind[c];
    }
    T* out = image + pixel * channels;
    for (int c = 0; c < channels; ++c) copy(line + c * region.columns, region.columns, out + c * region.columns);
  }
}

// The state of a tile's pixels in the backward pass; see the top of this file.
template <typename T, int kChannels>
struct BackwardPixels {
  static constexpr int kStored = kChannels ? kChannels : kMaxChannels;
  Lanes<T> t[Blocks<T>::kCount], behind[Blocks<T>::kCount], last[Blocks<T>::kCount];
  Lanes<T> v_color[Blocks<T>::kCount][kStored];
  int32_t deepest[Blocks<T>::kCount];  // largest `last` of the block

  void load(const Scene<T>& scene, const Region& region, const T* final_t, const int32_t* last_index,
            const T* v_image, const T* v_final_t) {
    using B = Blocks<T>;
    const int channels = kChannels ? kChannels : scene.channels;
    T left_over[kTile * kTile], index[kTile * kTile], v_end[kTile * kTile], planes[kStored * kTile * kTile];
    if (region.rows < kTile || region.columns < kTile)
      for (int i = 0; i < kTile * kTile; ++i) {
        left_over[i] = T(1);
        index[i] = T(-1);
        v_end[i] = T(0);
        for (int c = 0; c < channels; ++c) planes[c * kTile * kTile + i] = T(0);
      }
    for (int row = 0; row < region.rows; ++row) {
      const int64_t pixel = int64_t(region.top + row) * scene.width + region.left;
      const T* v = v_image + pixel * channels;
      for (int i = 0; i < region.columns; ++i) {
        left_over[row * kTile + i] = final_t[pixel + i];
        index[row * kTile + i] = T(last_index[pixel + i]);
        v_end[row * kTile + i] = v_final_t ? v_final_t[pixel + i] : T(0);
      }
      for (int i = 0; i < region.columns; ++i)
        for (int c = 0; c < channels; ++c) planes[c * kTile * kTile + row * kTile + i] = v[i * channels + c];
      if (scene.background == nullptr) continue;
      const T* background = scene.background + pixel * scene.background_stride;
      for (int i = 0; i < region.columns; ++i, background += scene.background_stride)
        for (int c = 0; c < channels; ++c) v_end[row * kTile + i] += v[i * channels + c] * background[c];
    }
    for (int block = 0; block < B::kCount; ++block) {
      t[block] = load_block(left_over, block);
      behind[block] = load_block(v_end, block);
      last[block] = load_block(index, block);
      for (int c = 0; c < channels; ++c) v_color[block][c] = load_block(planes + c * kTile * kTile, block);
      T lane[Lanes<T>::kCount], largest = T(-1);
      last[block].store(lane);
      for (T value : lane) largest = value > largest ? value : largest;
      deepest[block] = static_cast<int32_t>(largest);
    }
  }
};

template <typename T, int kChannels>
void rasterize_tile_backward(const Scene<T>& scene, const Splat<T, kChannels>* splats, int tile, const int32_t* slots,
                             const T* final_t, const int32_t* last, const T* v_image, const T* v_final_t, T* partial) {
  using V = Lanes<T>;
  using B = Blocks<T>;
  constexpr int kWords = (B::kCount + 63) / 64, kRowsPerWord = B::kRows / kWords;
  const int channels = kChannels ? kChannels : scene.channels;
  const int terms = kMoments + channels;
  const Region region(scene, tile);
  const int32_t begin = scene.tile_offsets[tile];
  const int32_t count = scene.tile_offsets[tile + 1] - begin;
  if (count == 0) return;

  const Offsets<T> offsets;
  T block_x[B::kCount], block_y[B::kCount];  // first pixel centre of each block
  for (int block = 0; block < B::kCount; ++block) {
    block_x[block] = T(region.left + block % B::kColumns * B::kWidth) + T(0.5);
    block_y[block] = T(region.top + block / B::kColumns * B::kHeight) + T(0.5);
  }
  BackwardPixels<T, kChannels> pixels;
  pixels.load(scene, region, final_t, last, v_image, v_final_t);
  int32_t deepest = -1;
  for (int32_t block_deepest : pixels.deepest) deepest = block_deepest > deepest ? block_deepest : deepest;
  for (int32_t k = deepest + 1; k < count; ++k) {
    T* out = partial + int64_t(slots[begin + k]) * terms;
    for (int i = 0; i < terms; ++i) out[i] = T(0);
  }

  const V smallest(kSmallestPower), largest(kLargestPower), zero(0.0), one(1.0);
  Batch<T, kChannels> batch;
  T columns[B::kRows][kBatch];  // blocks that a Gaussian reaches in each row, one bit per column
  T at_origin[B::kCount], along_x[B::kCount], along_y[B::kCount];
  for (int32_t end = deepest + 1; end > 0; end -= kBatch) {
    const int32_t start = end > kBatch ? end - kBatch : 0;
    batch.load(splats, scene.ids + begin + start, end - start);
    batch.for_each_block(region, end - start, [&](int k, int row, int column, Mask<T> mask) {
      V bits = keep(mask, V(1 << column));
      if (column > 0) bits = bits + V::load(columns[row] + k);
      bits.store(columns[row] + k);
    });
    uint64_t live[kWords] = {};
    for (int block = 0; block < B::kCount; ++block)
      live[block / 64] |= uint64_t(pixels.deepest[block] >= start) << (block % 64);

    for (int k = end - start - 1; k >= 0; --k) {
      const V a(batch.a[k]), b(batch.b[k]), c(batch.c[k]), power_at_mean(batch.power[k]), bound(batch.bound[k]);
      const V mean_x(batch.x[k]), mean_y(batch.y[k]), curvature = offsets.curvature(batch.a[k], batch.b[k], batch.c[k]);
      for (int block = 0; block < B::kCount; block += V::kCount) {
        const Expansion<T> e(V::load(block_x + block) - mean_x, V::load(block_y + block) - mean_y, a, b, c,
                             power_at_mean);
        e.at_origin.store(at_origin + block);
        e.along_x.store(along_x + block);
        e.along_y.store(along_y + block);
      }
      const V index(start + k), u = offsets.u - mean_x, v = offsets.v - mean_y;
      V rgb[BackwardPixels<T, kChannels>::kStored], sums[kMoments + BackwardPixels<T, kChannels>::kStored];
      for (int channel = 0; channel < channels; ++channel) rgb[channel] = batch.rgb(scene, k, channel);
      for (int i = 0; i < terms; ++i) sums[i] = zero;
      for (int word = 0; word < kWords; ++word) {
        uint64_t hits = 0;
        for (int row = 0; row < kRowsPerWord; ++row)
          hits |= uint64_t(static_cast<uint32_t>(columns[word * kRowsPerWord + row][k])) << (row * B::kColumns);
        hits &= live[word];
        while (hits != 0) {
          const int block = word * 64 + __builtin_ctzll(hits);
          hits &= hits - 1;
          const V power = offsets.power(curvature, at_origin[block], along_x[block], along_y[block]);
          const Mask<T> blend = (power >= smallest) & (pixels.last[block] >= index);
          const V alpha = keep(blend, exp2_approximate(at_most(power, bound)));
          const V t = pixels.t[block] * reciprocal(one - alpha), weight = alpha * t;
          pixels.t[block] = t;
          const V* v_color = pixels.v_color[block];
          V d = rgb[0] * v_color[0];
          for (int i = 1; i < channels; ++i) d = d + rgb[i] * v_color[i];
          for (int i = 0; i < channels; ++i) sums[kMoments + i] = sums[kMoments + i] + weight * v_color[i];
          const V contrast = d - pixels.behind[block];
          pixels.behind[block] = pixels.behind[block] + alpha * contrast;
          // Where alpha was clamped it does not depend on the exponent.
          const V v_power = keep(power <= largest, weight * contrast);
          const V dx = u + V(block_x[block]), dy = v + V(block_y[block]);
          const V v_x = v_power * dx, v_y = v_power * dy;
          sums[0] = sums[0] + v_power;
          sums[1] = sums[1] + v_x;
          sums[2] = sums[2] + v_y;
          sums[3] = sums[3] + v_x * dx;
          sums[4] = sums[4] + v_x * dy;
          sums[5] = sums[5] + v_y * dy;
        }
      }
      T* out = partial + int64_t(slots[begin + start + k]) * terms;
      if (kChannels > 0)
        lane_sums<kMoments + kChannels>(sums, out);
      else
        for (int i = 0; i < terms; ++i) out[i] = lane_sum(sums[i]);
    }
  }
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

template <typename T>
int64_t rasterize_workspace(int64_t n, int64_t num_pairs, int channels) {
  return splats_size<T>(n) + num_pairs * (kMoments + channels) * static_cast<int64_t>(sizeof(T));
}

template <typename T>
void rasterize(int threads, const T* means2d, const T* conics, const T* colors, const T* opacities, int64_t n,
               int channels, const T* background, int background_stride, int width, int height, const T* limits,
               const int32_t* tile_offsets, const int32_t* ids, T* image, T* final_t, int32_t* last, void* workspace) {
  const Scene<T> scene = scene_of(means2d, conics, colors, opacities, channels, background, background_stride, width,
                                  height, limits, tile_offsets, ids);
  const int64_t tiles = int64_t(scene.tiles_x) * ((height + kTile - 1) / kTile);
  with_splats(threads, scene, n, workspace, [&](const auto* splats) {
    parallel_for(threads, tiles, [&](int64_t tile, int) {
      rasterize_tile(scene, splats, static_cast<int>(tile), image, final_t, last);
    });
  });
}

template <typename T>
void rasterize_backward(int threads, const T* means2d, const T* conics, const T* colors, const T* opacities, int64_t n,
                        int channels, const T* background, int background_stride, int width, int height,
                        const T* limits, const int32_t* tile_offsets, const int32_t* ids, const int32_t* slots,
                        const int32_t* slot_offsets, const T* final_t, const int32_t* last, const T* v_image,
                        const T* v_final_t, T* v_means2d, T* v_conics, T* v_colors, T* v_opacities, void* workspace) {
  const Scene<T> scene = scene_of(means2d, conics, colors, opacities, channels, background, background_stride, width,
                                  height, limits, tile_offsets, ids);
  const int64_t tiles = int64_t(scene.tiles_x) * ((height + kTile - 1) / kTile);
  T* partial = reinterpret_cast<T*>(static_cast<char*>(workspace) + splats_size<T>(n));
  with_splats(threads, scene, n, workspace, [&](const auto* splats) {
    parallel_for(threads, tiles, [&](int64_t tile, int) {
      rasterize_tile_backward(scene, splats, static_cast<int>(tile), slots, final_t, last, v_image, v_final_t,
                              partial);
    });
  });

  // alpha = opacity * exp(-sigma), and `v` of the moments is alpha * v_alpha.
  const int terms = kMoments + channels;
  parallel_blocks(threads, n, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      T sum[kMoments + kMaxChannels] = {};
      for (int64_t slot = slot_offsets[g]; slot < slot_offsets[g + 1]; ++slot)
        for (int i = 0; i < terms; ++i) sum[i] += partial[slot * terms + i];
      const bool listed = slot_offsets[g] < slot_offsets[g + 1];  // others may hold NaN
      const T a = listed ? conics[3 * g] : T(0), b = listed ? conics[3 * g + 1] : T(0);
      const T c = listed ? conics[3 * g + 2] : T(0);
      v_means2d[2 * g] = a * sum[1] + b * sum[2];
      v_means2d[2 * g + 1] = b * sum[1] + c * sum[2];
      v_conics[3 * g] = T(-0.5) * sum[3];
      v_conics[3 * g + 1] = -sum[4];
      v_conics[3 * g + 2] = T(-0.5) * sum[5];
      v_opacities[g] = listed ? sum[0] / opacities[g] : T(0);
      for (int i = 0; i < channels; ++i) v_colors[g * channels + i] = sum[kMoments + i];
    }
  });
}

#define INSTANTIATE(T)                                                                                                \
  template int64_t rasterize_workspace<T>(int64_t, int64_t, int);                                                     \
  template void rasterize<T>(int, const T*, const T*, const T*, const T*, int64_t, int, const T*, int, int, int,      \
                             const T*, const int32_t*, const int32_t*, T*, T*, int32_t*, void*);                      \
  template void rasterize_backward<T>(int, const T*, const T*, const T*, const T*, int64_t, int, const T*, int, int,  \
                                      int, const T*, const int32_t*, const int32_t*, const int32_t*, const int32_t*,  \
                                      const T*, const int32_t*, const T*, const T*, T*, T*, T*, T*, void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
