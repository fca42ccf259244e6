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

  AVATAR_HD const T* colors(const T* all, int32_t id, int channels) const {
    return kChannels ? color : all + int64_t(id) * channels;
  }
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

// Up to kBatch consecutive Gaussians of a tile list.
template <typename T, int kChannels>
struct Batch {
  Splat<T, kChannels> splat[kBatch];
  int32_t id[kBatch];

  void load(const Splat<T, kChannels>* splats, const int32_t* ids, int count) {
    for (int k = 0; k < count; ++k) {
      id[k] = ids[k];
      splat[k] = splats[ids[k]];
    }
  }

  // function(k, row, column, mask) for every block, with `mask` the Gaussians from k on, one per lane, that reach it.
  template <typename Function>
  AVATAR_HD void for_each_block(const Region& region, int count, const Function& function) const {
    using V = Lanes<T>;
    for (int k = 0; k < count; k += V::kCount) {
      T value[6][V::kCount];
      for (int lane = 0; lane < V::kCount; ++lane) {
        const Splat<T, kChannels>& s = splat[k + lane < count ? k + lane : count - 1];
        value[0][lane] = s.x;
        value[1][lane] = s.y;
        value[2][lane] = s.a;
        value[3][lane] = s.b;
        value[4][lane] = s.c;
        value[5][lane] = k + lane < count ? s.power : T(-1e9);  // past the end: reaches nothing
      }
      const V zero(0.0), margin(2e-3), a = V::load(value[2]), c = V::load(value[4]), b = V(0.5) * V::load(value[3]);
      // The ellipse a dx^2 + 2 b dx dy + c dy^2 <= limit. The determinant suffers from cancellation; it is rounded
      // down, which widens the ellipse.
      const V limit = V::load(value[5]) + V(7.994353436858858 + 1e-5), product = a * c;  // log2(255) and a margin
      const V determinant = at_least(product - b * b - V(sizeof(T) == 4 ? 1e-6 : 1e-14) * product, V(1e-30));
      const V level = limit * a, inverse_a = V(1.0) / a, gain = at_least(limit, zero) / determinant;
      const V half_height = root(gain * a);
      const V lean = zero - b / c * root(gain * c);  // dy at the rightmost point
      const V center = V::load(value[0]) - V(region.left + 0.5), above = V(region.top + 0.5) - V::load(value[1]);
      const Mask<T> visible = limit > zero;
      for (int row = 0; row < Blocks<T>::kRows; ++row) {
        const V first = above + V(row * Blocks<T>::kHeight), last = first + V(Blocks<T>::kHeight - 1.0);
        const V low = at_least(first, zero - half_height), high = at_most(last, half_height);
        const V at_right = at_least(at_most(lean, high), low), at_left = at_least(at_most(zero - lean, high), low);
        const V right_root = root(at_least(level - determinant * at_right * at_right, zero));
        const V left_root = root(at_least(level - determinant * at_left * at_left, zero));
        const V right = (right_root - b * at_right) * inverse_a + center + margin;
        const V left = (zero - left_root - b * at_left) * inverse_a + center - margin;
        const Mask<T> row_reached = visible & (low <= high + margin);
        for (int column = 0; column < Blocks<T>::kColumns; ++column) {
          const V first_pixel(column * Blocks<T>::kWidth), last_pixel((column + 1) * Blocks<T>::kWidth - 1.0);
          function(k, row, column, row_reached & (left <= last_pixel) & (right >= first_pixel));
        }
      }
    }
  }
};

// Exponent of a Gaussian at pixel centres. Rounding can raise it above its value at the mean; there it is cut.
template <typename T, int kChannels>
AVATAR_HD Lanes<T> power_at(const Splat<T, kChannels>& s, Lanes<T> dx, Lanes<T> dy) {
  using V = Lanes<T>;
  return at_most(V(s.power) - (V(s.a) * dx + V(s.b) * dy) * dx - V(s.c) * dy * dy, V(s.power));
}

// x and y of the pixel centres of a block at column 0, row 0 of a tile at (0, 0).
template <typename T>
void block_centers(Lanes<T>* x, Lanes<T>* y) {
  T column[Lanes<T>::kCount], row[Lanes<T>::kCount];
  for (int i = 0; i < Lanes<T>::kCount; ++i) {
    column[i] = T(i % Blocks<T>::kWidth) + T(0.5);
    row[i] = T(i / Blocks<T>::kWidth) + T(0.5);
  }
  *x = Lanes<T>::load(column);
  *y = Lanes<T>::load(row);
}

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

// The pixels of a tile while it is blended, by block. `t` is the transmittance, zero once a pixel has had enough: then
// `end` holds what was left and `last` the list index of the last Gaussian blended.
template <typename T, int kChannels>
struct Pixels {
  static constexpr int kStored = kChannels ? kChannels : kMaxChannels;
  Lanes<T> t[Blocks<T>::kCount], end[Blocks<T>::kCount], last[Blocks<T>::kCount];
  Lanes<T> color[Blocks<T>::kCount][kStored];
};

// Blend the Gaussians of a batch whose bits are set in `hits` into one block; false when all its pixels had enough.
template <typename T, int kChannels>
AVATAR_HD bool blend_block(const Scene<T>& scene, const Batch<T, kChannels>& batch, uint64_t hits, int32_t start,
                           Lanes<T> x, Lanes<T> y, int block, Pixels<T, kChannels>& pixels) {
  using V = Lanes<T>;
  const int channels = kChannels ? kChannels : scene.channels;
  const V alpha_min(AVATAR_ALPHA_MIN), alpha_max(AVATAR_ALPHA_MAX), enough(AVATAR_TRANSMITTANCE_MIN), zero(0.0);
  V t = pixels.t[block];
  Mask<T> done = t <= zero;
  V own[kChannels ? kChannels : 1];
  V* color = kChannels ? own : pixels.color[block];
  for (int c = 0; c < kChannels; ++c) own[c] = pixels.color[block][c];
  bool more = true;
  while (hits != 0) {
    const int k = __builtin_ctzll(hits);
    hits &= hits - 1;
    const Splat<T, kChannels>& s = batch.splat[k];
    const V raw = exp2_approximate(power_at(s, x - V(s.x), y - V(s.y)));
    const V alpha = keep(raw >= alpha_min, at_most(raw, alpha_max));
    V weight = alpha * t, next = t - weight;
    const Mask<T> stop = (next <= enough).without(done);
    if (any(stop)) {
      pixels.end[block] = select(stop, t, pixels.end[block]);
      pixels.last[block] = select(stop, V(start + k - 1.0), pixels.last[block]);
      weight = select(stop, zero, weight);
      next = select(stop, zero, next);
      done = done | stop;
      more = any(next > zero);
      if (!more) hits = 0;
    }
    t = next;
    const T* rgb = s.colors(scene.colors, batch.id[k], channels);
    for (int c = 0; c < channels; ++c) color[c] = color[c] + weight * V(rgb[c]);
  }
  pixels.t[block] = t;
  for (int c = 0; c < kChannels; ++c) pixels.color[block][c] = own[c];
  return more;
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
  V center_x, center_y;
  block_centers(&center_x, &center_y);

  Pixels<T, kChannels> pixels;
  bool live[B::kCount];
  int live_blocks = 0;
  for (int block = 0; block < B::kCount; ++block) {
    const int left = block % B::kColumns * B::kWidth, top = block / B::kColumns * B::kHeight;
    live[block] = left < region.columns && top < region.rows;
    live_blocks += live[block];
    const Mask<T> inside = (center_x + V(left) < V(region.columns)) & (center_y + V(top) < V(region.rows));
    pixels.t[block] = keep(inside, V(1.0));
    pixels.last[block] = V(-1.0);
    pixels.end[block] = V(1.0);
    for (int c = 0; c < channels; ++c) pixels.color[block][c] = V(0.0);
  }

  Batch<T, kChannels> batch;
  for (int32_t start = 0; start < count && live_blocks != 0; start += kBatch) {
    const int size = count - start < kBatch ? count - start : kBatch;
    batch.load(splats, scene.ids + begin + start, size);
    uint64_t hits[B::kCount] = {};
    batch.for_each_block(region, size, [&](int k, int row, int column, Mask<T> mask) {
      hits[row * B::kColumns + column] |= uint64_t(lane_bits(mask)) << k;
    });
    for (int block = 0; block < B::kCount; ++block) {
      if (!live[block] || hits[block] == 0) continue;
      const V x = center_x + V(region.left + block % B::kColumns * B::kWidth);
      const V y = center_y + V(region.top + block / B::kColumns * B::kHeight);
      live[block] = blend_block(scene, batch, hits[block], start, x, y, block, pixels);
      live_blocks -= !live[block];
    }
  }

  T plane[kTile * kTile], left_over[kTile * kTile];
  for (int block = 0; block < B::kCount; ++block) {
    const Mask<T> open = pixels.t[block] > V(0.0);
    store_block(select(open, pixels.t[block], pixels.end[block]), block, left_over);
    store_block(select(open, V(count - 1.0), pixels.last[block]), block, plane);
  }
  for (int row = 0; row < region.rows; ++row) {
    const int64_t pixel = int64_t(region.top + row) * scene.width + region.left;
    for (int i = 0; i < region.columns; ++i) {
      final_t[pixel + i] = left_over[row * kTile + i];
      last[pixel + i] = static_cast<int32_t>(plane[row * kTile + i]);
    }
  }
  for (int c = 0; c < channels; ++c) {
    for (int block = 0; block < B::kCount; ++block) store_block(pixels.color[block][c], block, plane);
    for (int row = 0; row < region.rows; ++row) {
      const int64_t pixel = int64_t(region.top + row) * scene.width + region.left;
      T* out = image + pixel * channels + c;
      if (scene.background == nullptr) {
        for (int i = 0; i < region.columns; ++i) out[i * channels] = plane[row * kTile + i];
        continue;
      }
      const T* behind = scene.background + pixel * scene.background_stride + c;
      for (int i = 0; i < region.columns; ++i)
        out[i * channels] =
            plane[row * kTile + i] + left_over[row * kTile + i] * behind[i * scene.background_stride];
    }
  }
}

// The state of a tile's pixels in the backward pass; see the top of this file.
template <typename T, int kChannels>
struct BackwardPixels {
  static constexpr int kStored = kChannels ? kChannels : kMaxChannels;
  Lanes<T> x[Blocks<T>::kColumns], y[Blocks<T>::kRows];
  Lanes<T> t[Blocks<T>::kCount], behind[Blocks<T>::kCount], last[Blocks<T>::kCount];
  Lanes<T> v_color[Blocks<T>::kCount][kStored];
  int32_t deepest[Blocks<T>::kCount];  // largest `last` of the block

  void load(const Scene<T>& scene, const Region& region, int channels, const T* final_t, const int32_t* last_index,
            const T* v_image, const T* v_final_t) {
    using V = Lanes<T>;
    using B = Blocks<T>;
    V center_x, center_y;
    block_centers(&center_x, &center_y);
    for (int column = 0; column < B::kColumns; ++column) x[column] = center_x + V(region.left + column * B::kWidth);
    for (int row = 0; row < B::kRows; ++row) y[row] = center_y + V(region.top + row * B::kHeight);
    T left_over[kTile * kTile], index[kTile * kTile], plane[kTile * kTile], v_end[kTile * kTile];
    for (int row = 0; row < kTile; ++row)
      for (int i = 0; i < kTile; ++i) {
        const bool inside = row < region.rows && i < region.columns;
        const int64_t pixel = int64_t(region.top + row) * scene.width + region.left + i;
        left_over[row * kTile + i] = inside ? final_t[pixel] : T(1);
        index[row * kTile + i] = inside ? T(last_index[pixel]) : T(-1);
        v_end[row * kTile + i] = inside && v_final_t ? v_final_t[pixel] : T(0);
      }
    for (int c = 0; c < channels; ++c) {
      for (int row = 0; row < kTile; ++row)
        for (int i = 0; i < kTile; ++i) {
          const bool inside = row < region.rows && i < region.columns;
          const int64_t pixel = int64_t(region.top + row) * scene.width + region.left + i;
          const T v = inside ? v_image[pixel * channels + c] : T(0);
          plane[row * kTile + i] = v;
          if (inside && scene.background)
            v_end[row * kTile + i] += v * scene.background[pixel * scene.background_stride + c];
        }
      for (int block = 0; block < B::kCount; ++block) v_color[block][c] = load_block(plane, block);
    }
    for (int block = 0; block < B::kCount; ++block) {
      t[block] = load_block(left_over, block);
      behind[block] = load_block(v_end, block);
      last[block] = load_block(index, block);
      T lane[V::kCount];
      last[block].store(lane);
      deepest[block] = -1;
      for (T value : lane)
        if (static_cast<int32_t>(value) > deepest[block]) deepest[block] = static_cast<int32_t>(value);
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

  BackwardPixels<T, kChannels> pixels;
  pixels.load(scene, region, channels, final_t, last, v_image, v_final_t);
  int32_t deepest = -1;
  for (int32_t block_deepest : pixels.deepest) deepest = block_deepest > deepest ? block_deepest : deepest;
  for (int32_t k = deepest + 1; k < count; ++k) {
    T* out = partial + int64_t(slots[begin + k]) * terms;
    for (int i = 0; i < terms; ++i) out[i] = T(0);
  }

  const V alpha_min(AVATAR_ALPHA_MIN), alpha_max(AVATAR_ALPHA_MAX), zero(0.0), one(1.0);
  Batch<T, kChannels> batch;
  T columns[B::kRows][kBatch];  // blocks that a Gaussian reaches in each row, one bit per column
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
      const Splat<T, kChannels>& s = batch.splat[k];
      const T* rgb = s.colors(scene.colors, batch.id[k], channels);
      const V index(start + k);
      V sums[kMoments + (kChannels ? kChannels : kMaxChannels)];
      for (int i = 0; i < terms; ++i) sums[i] = zero;
      for (int word = 0; word < kWords; ++word) {
        uint64_t hits = 0;
        for (int row = 0; row < kRowsPerWord; ++row)
          hits |= uint64_t(static_cast<uint32_t>(columns[word * kRowsPerWord + row][k])) << (row * B::kColumns);
        hits &= live[word];
        while (hits != 0) {
          const int block = word * 64 + __builtin_ctzll(hits);
          hits &= hits - 1;
          const V dx = pixels.x[block % B::kColumns] - V(s.x), dy = pixels.y[block / B::kColumns] - V(s.y);
          const V raw = exp2_approximate(power_at(s, dx, dy));
          const Mask<T> blend = (raw >= alpha_min) & (pixels.last[block] >= index);
          const V alpha = keep(blend, at_most(raw, alpha_max));
          const V t = pixels.t[block] * reciprocal(one - alpha);
          pixels.t[block] = t;
          const V* v_color = pixels.v_color[block];
          V d = V(rgb[0]) * v_color[0];
          for (int c = 1; c < channels; ++c) d = d + V(rgb[c]) * v_color[c];
          const V weight = alpha * t;
          for (int c = 0; c < channels; ++c) sums[kMoments + c] = sums[kMoments + c] + weight * v_color[c];
          const V contrast = d - pixels.behind[block];
          pixels.behind[block] = pixels.behind[block] + alpha * contrast;
          // Where alpha was clamped it does not depend on the exponent.
          const V v = keep(blend & (raw <= alpha_max), weight * contrast);
          const V v_x = v * dx, v_y = v * dy;
          sums[0] = sums[0] + v;
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
