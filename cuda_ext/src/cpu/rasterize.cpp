// Alpha blending of the tile lists, forward and backward. A tile row of sixteen pixels is one AVX-512 register, or two or four
// narrower ones.
//
// The backward pass walks each list from back to front. Of the pixels' state it needs only the transmittance and one
// number S, the cotangent-weighted colour behind the current Gaussian: with d = <colour, v_image> and alpha, T of the
// pixel, v_alpha = T d - S / (1 - alpha), and S grows by alpha T d. Each (tile, Gaussian) pair writes its own slot of
// partial sums; the slots of a Gaussian are then added in their fixed order. No atomics, same bits for any number of
// threads.
#include "common.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kTile = 16;
constexpr int kMaxChannels = 32;
constexpr int kGeometryTerms = 6;  // v_mean (2), v_conic (3), v_opacity (1)
constexpr int kBatch = 64;         // pairs prepared at a time

// A tile is split into columns of one register's width; kColumns<T> registers make a row.
template <typename T>
constexpr int kColumns = kTile > Lanes<T>::kCount ? kTile / Lanes<T>::kCount : 1;

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

// Up to kBatch Gaussians of a tile list side by side, with the rows of pixels that each can reach in each column of the
// tile: [first, last], empty if first > last.
template <typename T>
struct Batch {
  T x[kBatch], y[kBatch], a[kBatch], b[kBatch], c[kBatch], opacity[kBatch], limit[kBatch];
  T first[kColumns<T>][kBatch], last[kColumns<T>][kBatch];
  int32_t id[kBatch];

  void load(const Scene<T>& scene, const Region& region, const int32_t* ids, int count) {
    for (int k = 0; k < count; ++k) {
      const int64_t g = id[k] = ids[k];
      x[k] = scene.means2d[2 * g];
      y[k] = scene.means2d[2 * g + 1];
      a[k] = scene.conics[3 * g];
      b[k] = scene.conics[3 * g + 1];
      c[k] = scene.conics[3 * g + 2];
      opacity[k] = scene.opacities[g];
      limit[k] = scene.limits[g];
    }
    for (int k = count; k % Lanes<T>::kCount != 0; ++k) {  // fill the last register with something harmless
      x[k] = y[k] = b[k] = limit[k] = T(0);
      a[k] = c[k] = T(1);
    }
    for (int k = 0; k < count; k += Lanes<T>::kCount)
      for (int column = 0; column < kColumns<T>; ++column) find_rows(region, k, column);
  }

 private:
  // The lowest and the highest point of the ellipse a dx^2 + 2 b dx dy + c dy^2 <= limit between the pixel centres at the
  // two ends of the column. The determinant suffers from cancellation; it is rounded down, which widens the ellipse.
  void find_rows(const Region& region, int k, int column) {
    using V = Lanes<T>;
    const V vb = V::load(b + k), vc = V::load(c + k), bound = V::load(limit + k);
    const V product = V::load(a + k) * vc, tiny(1e-30), zero(0.0);
    const V determinant = at_least(product - vb * vb - V(sizeof(T) == 4 ? 1e-6 : 1e-14) * product, tiny);
    const V low = V(region.left + column * V::kCount + 0.5) - V::load(x + k);
    const V high = low + V(V::kCount - 1.0);
    const V level = bound * vc, inverse = V(1.0) / vc;
    const V lean = zero - vb * root(level / (determinant * (determinant + vb * vb)));  // dx at the lowest point
    const V at_bottom = at_most(at_least(lean, low), high), at_top = at_most(at_least(zero - lean, low), high);
    const V bottom = root(at_least(level - determinant * at_bottom * at_bottom, zero)) - vb * at_bottom;
    const V top = zero - root(at_least(level - determinant * at_top * at_top, zero)) - vb * at_top;
    // Columns beside the ellipse come out as the line through its tip; they are caught by the exact test per pixel.
    const V center = V::load(y + k) - V(region.top + 0.5), margin(2e-3);
    at_least(round_up(top * inverse + center - margin), zero).store(first[column] + k);
    at_most(round_up(bottom * inverse + center + margin) - V(1.0), V(region.rows - 1.0)).store(last[column] + k);
  }
};

template <typename T>
Lanes<T> pixel_centers(int left) {
  T x[Lanes<T>::kCount];
  for (int i = 0; i < Lanes<T>::kCount; ++i) x[i] = T(left + i) + T(0.5);
  return Lanes<T>::load(x);
}

// Exponent terms of one Gaussian on one column of the tile: sigma = square + cross * dy + half_c * dy^2.
template <typename T>
struct Exponent {
  Lanes<T> dx, square, cross;
  T y, half_c;

  AVATAR_HD Exponent(const Batch<T>& batch, int k, Lanes<T> x) : y(batch.y[k]), half_c(T(0.5) * batch.c[k]) {
    dx = x - Lanes<T>(batch.x[k]);
    square = Lanes<T>(T(0.5) * batch.a[k]) * dx * dx;
    cross = Lanes<T>(batch.b[k]) * dx;
  }
  AVATAR_HD Lanes<T> sigma(T dy) const {
    return at_least(square + (cross + Lanes<T>(half_c * dy)) * Lanes<T>(dy), Lanes<T>(0.0));
  }
};

// kChannels = 0: the number of channels is scene.channels.
template <typename T, int kChannels>
void rasterize_tile(const Scene<T>& scene, int tile, T* image, T* final_t, int32_t* last) {
  using V = Lanes<T>;
  constexpr int columns = kColumns<T>;
  const int channels = kChannels ? kChannels : scene.channels;
  const Region region(scene, tile);
  const int32_t begin = scene.tile_offsets[tile];
  const int32_t count = scene.tile_offsets[tile + 1] - begin;

  // A pixel that has had enough (or lies outside the picture) carries its transmittance with a minus sign.
  V transmittance[columns][kTile], last_index[columns][kTile];
  V color[columns][kTile][kChannels ? kChannels : kMaxChannels];
  uint32_t live[columns];  // one bit per row with a pixel that has not had enough
  uint32_t live_anywhere = 0;
  for (int column = 0; column < columns; ++column) {
    const V x = pixel_centers<T>(region.left + column * V::kCount);
    for (int r = 0; r < region.rows; ++r) {
      transmittance[column][r] = select(x < V(scene.width), V(1.0), V(-1.0));
      last_index[column][r] = V(-1.0);
      for (int c = 0; c < channels; ++c) color[column][r][c] = V(0.0);
    }
    live[column] = column * V::kCount < region.columns ? (1u << region.rows) - 1u : 0u;
    live_anywhere |= live[column];
  }

  const V alpha_min(AVATAR_ALPHA_MIN), alpha_max(AVATAR_ALPHA_MAX), enough(AVATAR_TRANSMITTANCE_MIN);
  const V zero(0.0), one(1.0);
  Batch<T> batch;
  for (int32_t start = 0; start < count && live_anywhere != 0; start += kBatch) {
    const int size = count - start < kBatch ? count - start : kBatch;
    batch.load(scene, region, scene.ids + begin + start, size);
    for (int k = 0; k < size && live_anywhere != 0; ++k) {
      const V opacity(batch.opacity[k]), index(start + k);
      const T* rgb = scene.colors + int64_t(batch.id[k]) * channels;
      for (int column = 0; column < columns; ++column) {
        const int first_row = static_cast<int>(batch.first[column][k]);
        const int last_row = static_cast<int>(batch.last[column][k]);
        if (first_row > last_row || live[column] == 0u) continue;
        const Exponent<T> exponent(batch, k, pixel_centers<T>(region.left + column * V::kCount));
        for (int r = first_row; r <= last_row; ++r) {
          const T dy = T(region.top + r) + T(0.5) - exponent.y;
          const V raw = opacity * exp_negative(exponent.sigma(dy));
          const V t = transmittance[column][r];
          const Mask<T> seen = (raw >= alpha_min) & (t > zero);
          const V alpha = at_most(raw, alpha_max);
          const V next = t * (one - alpha);
          const Mask<T> stop = seen & (next <= enough);
          const Mask<T> blend = seen.without(stop);
          const V weight = select(blend, alpha * t, zero);
          for (int c = 0; c < channels; ++c) color[column][r][c] = color[column][r][c] + weight * V(rgb[c]);
          last_index[column][r] = select(blend, index, last_index[column][r]);
          V after = select(blend, next, t);
          if (any(stop)) {
            after = select(stop, zero - t, after);
            if (!any(after > zero)) live[column] &= ~(1u << r);
          }
          transmittance[column][r] = after;
        }
      }
      live_anywhere = 0;
      for (int column = 0; column < columns; ++column) live_anywhere |= live[column];
    }
  }

  for (int column = 0; column < columns; ++column) {
    const int first_pixel = column * V::kCount;
    const int pixels = region.columns - first_pixel < V::kCount ? region.columns - first_pixel : V::kCount;
    for (int r = 0; r < region.rows; ++r) {
      T t[V::kCount], index[V::kCount], value[V::kCount];
      const V signed_t = transmittance[column][r];
      select(signed_t < zero, zero - signed_t, signed_t).store(t);
      last_index[column][r].store(index);
      const int64_t pixel = int64_t(region.top + r) * scene.width + region.left + first_pixel;
      for (int i = 0; i < pixels; ++i) {
        final_t[pixel + i] = t[i];
        last[pixel + i] = static_cast<int32_t>(index[i]);
      }
      for (int c = 0; c < channels; ++c) {
        color[column][r][c].store(value);
        for (int i = 0; i < pixels; ++i) {
          const T behind =
              scene.background ? t[i] * scene.background[(pixel + i) * scene.background_stride + c] : T(0);
          image[(pixel + i) * channels + c] = value[i] + behind;
        }
      }
    }
  }
}

template <typename T, int kChannels>
void rasterize_tile_backward(const Scene<T>& scene, int tile, const int32_t* slots, const T* final_t,
                             const int32_t* last, const T* v_image, const T* v_final_t, T* partial) {
  using V = Lanes<T>;
  constexpr int columns = kColumns<T>;
  const int channels = kChannels ? kChannels : scene.channels;
  const int terms = kGeometryTerms + channels;
  const Region region(scene, tile);
  const int32_t begin = scene.tile_offsets[tile];
  const int32_t count = scene.tile_offsets[tile + 1] - begin;

  V transmittance[columns][kTile], behind[columns][kTile], last_index[columns][kTile];
  V v_color[columns][kTile][kChannels ? kChannels : kMaxChannels];
  int32_t deepest = -1;  // list index of the last Gaussian that any pixel blended
  for (int column = 0; column < columns; ++column) {
    const int first_pixel = column * V::kCount;
    for (int r = 0; r < region.rows; ++r) {
      T t[V::kCount], s[V::kCount], index[V::kCount], value[kMaxChannels][V::kCount];
      const int64_t pixel = int64_t(region.top + r) * scene.width + region.left + first_pixel;
      for (int i = 0; i < V::kCount; ++i) {
        const bool inside = first_pixel + i < region.columns;
        t[i] = inside ? final_t[pixel + i] : T(1);
        index[i] = inside ? T(last[pixel + i]) : T(-1);
        if (inside && last[pixel + i] > deepest) deepest = last[pixel + i];
        T v_end = inside && v_final_t ? v_final_t[pixel + i] : T(0);
        for (int c = 0; c < channels; ++c) {
          value[c][i] = inside ? v_image[(pixel + i) * channels + c] : T(0);
          if (inside && scene.background)
            v_end += value[c][i] * scene.background[(pixel + i) * scene.background_stride + c];
        }
        s[i] = t[i] * v_end;
      }
      transmittance[column][r] = V::load(t);
      behind[column][r] = V::load(s);
      last_index[column][r] = V::load(index);
      for (int c = 0; c < channels; ++c) v_color[column][r][c] = V::load(value[c]);
    }
  }

  for (int32_t k = deepest + 1; k < count; ++k) {
    T* out = partial + int64_t(slots[begin + k]) * terms;
    for (int i = 0; i < terms; ++i) out[i] = T(0);
  }

  const V alpha_min(AVATAR_ALPHA_MIN), alpha_max(AVATAR_ALPHA_MAX), zero(0.0), one(1.0);
  Batch<T> batch;
  for (int32_t end = deepest + 1; end > 0; end -= kBatch) {
    const int32_t start = end > kBatch ? end - kBatch : 0;
    batch.load(scene, region, scene.ids + begin + start, end - start);
    for (int k = end - start - 1; k >= 0; --k) {
      const V opacity(batch.opacity[k]), index(start + k);
      const T* rgb = scene.colors + int64_t(batch.id[k]) * channels;
      // Sums of v_sigma times 1, dx, dy, dx^2, dx dy, dy^2 over the pixels.
      V sum = zero, sum_x = zero, sum_y = zero, sum_xx = zero, sum_xy = zero, sum_yy = zero;
      V v_rgb[kChannels ? kChannels : kMaxChannels];
      for (int c = 0; c < channels; ++c) v_rgb[c] = zero;
      for (int column = 0; column < columns; ++column) {
        const int first_row = static_cast<int>(batch.first[column][k]);
        const int last_row = static_cast<int>(batch.last[column][k]);
        if (first_row > last_row) continue;
        const Exponent<T> exponent(batch, k, pixel_centers<T>(region.left + column * V::kCount));
        V part = zero, part_y = zero, part_yy = zero;
        for (int r = first_row; r <= last_row; ++r) {
          const T dy = T(region.top + r) + T(0.5) - exponent.y;
          const V raw = opacity * exp_negative(exponent.sigma(dy));
          const Mask<T> blend = (raw >= alpha_min) & (last_index[column][r] >= index);
          const V alpha = select(blend, at_most(raw, alpha_max), zero);
          const V ratio = one / (one - alpha);
          const V t = transmittance[column][r] * ratio;
          transmittance[column][r] = t;
          V d = V(rgb[0]) * v_color[column][r][0];
          for (int c = 1; c < channels; ++c) d = d + V(rgb[c]) * v_color[column][r][c];
          const V weight = alpha * t;
          for (int c = 0; c < channels; ++c) v_rgb[c] = v_rgb[c] + weight * v_color[column][r][c];
          const V v_raw = t * d - ratio * behind[column][r];
          behind[column][r] = behind[column][r] + weight * d;
          // Where alpha was clamped it does not depend on sigma or opacity.
          const V v_sigma = select(blend & (raw <= alpha_max), zero - raw * v_raw, zero);
          const V with_y = v_sigma * V(dy);
          part = part + v_sigma;
          part_y = part_y + with_y;
          part_yy = part_yy + with_y * V(dy);
        }
        const V part_x = part * exponent.dx;
        sum = sum + part;
        sum_x = sum_x + part_x;
        sum_y = sum_y + part_y;
        sum_xx = sum_xx + part_x * exponent.dx;
        sum_xy = sum_xy + part_y * exponent.dx;
        sum_yy = sum_yy + part_yy;
      }
      T* out = partial + int64_t(slots[begin + start + k]) * terms;
      const T total_x = lane_sum(sum_x), total_y = lane_sum(sum_y);
      out[0] = -(batch.a[k] * total_x + batch.b[k] * total_y);
      out[1] = -(batch.b[k] * total_x + batch.c[k] * total_y);
      out[2] = T(0.5) * lane_sum(sum_xx);
      out[3] = lane_sum(sum_xy);
      out[4] = T(0.5) * lane_sum(sum_yy);
      out[5] = -lane_sum(sum) / batch.opacity[k];
      for (int c = 0; c < channels; ++c) out[kGeometryTerms + c] = lane_sum(v_rgb[c]);
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

}  // namespace

template <typename T>
void rasterize(int threads, const T* means2d, const T* conics, const T* colors, const T* opacities, int channels,
               const T* background, int background_stride, int width, int height, const T* limits,
               const int32_t* tile_offsets, const int32_t* ids, T* image, T* final_t, int32_t* last) {
  const Scene<T> scene = scene_of(means2d, conics, colors, opacities, channels, background, background_stride, width,
                                  height, limits, tile_offsets, ids);
  const int64_t tiles = int64_t(scene.tiles_x) * ((height + kTile - 1) / kTile);
  parallel_for(threads, tiles, [&](int64_t tile, int) {
    const int t = static_cast<int>(tile);
    if (channels == 3)
      rasterize_tile<T, 3>(scene, t, image, final_t, last);
    else if (channels == 4)
      rasterize_tile<T, 4>(scene, t, image, final_t, last);
    else
      rasterize_tile<T, 0>(scene, t, image, final_t, last);
  });
}

template <typename T>
void rasterize_backward(int threads, const T* means2d, const T* conics, const T* colors, const T* opacities, int64_t n,
                        int channels, const T* background, int background_stride, int width, int height,
                        const T* limits, const int32_t* tile_offsets, const int32_t* ids, const int32_t* slots,
                        const int32_t* slot_offsets, const T* final_t, const int32_t* last, const T* v_image,
                        const T* v_final_t, T* v_means2d, T* v_conics, T* v_colors, T* v_opacities, T* workspace) {
  const Scene<T> scene = scene_of(means2d, conics, colors, opacities, channels, background, background_stride, width,
                                  height, limits, tile_offsets, ids);
  const int64_t tiles = int64_t(scene.tiles_x) * ((height + kTile - 1) / kTile);
  parallel_for(threads, tiles, [&](int64_t tile, int) {
    const int t = static_cast<int>(tile);
    if (channels == 3)
      rasterize_tile_backward<T, 3>(scene, t, slots, final_t, last, v_image, v_final_t, workspace);
    else if (channels == 4)
      rasterize_tile_backward<T, 4>(scene, t, slots, final_t, last, v_image, v_final_t, workspace);
    else
      rasterize_tile_backward<T, 0>(scene, t, slots, final_t, last, v_image, v_final_t, workspace);
  });

  const int terms = kGeometryTerms + channels;
  parallel_blocks(threads, n, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      T sum[kGeometryTerms + kMaxChannels] = {};
      for (int64_t slot = slot_offsets[g]; slot < slot_offsets[g + 1]; ++slot)
        for (int i = 0; i < terms; ++i) sum[i] += workspace[slot * terms + i];
      for (int i = 0; i < 2; ++i) v_means2d[2 * g + i] = sum[i];
      for (int i = 0; i < 3; ++i) v_conics[3 * g + i] = sum[2 + i];
      v_opacities[g] = sum[5];
      for (int c = 0; c < channels; ++c) v_colors[g * channels + c] = sum[kGeometryTerms + c];
    }
  });
}

#define INSTANTIATE(T)                                                                                                \
  template void rasterize<T>(int, const T*, const T*, const T*, const T*, int, const T*, int, int, int, const T*,     \
                             const int32_t*, const int32_t*, T*, T*, int32_t*);                                       \
  template void rasterize_backward<T>(int, const T*, const T*, const T*, const T*, int64_t, int, const T*, int, int,  \
                                      int, const T*, const int32_t*, const int32_t*, const int32_t*, const int32_t*,  \
                                      const T*, const int32_t*, const T*, const T*, T*, T*, T*, T*, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
