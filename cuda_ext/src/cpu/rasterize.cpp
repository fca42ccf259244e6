// Alpha blending of the tile lists, forward and backward. One vector holds the sixteen pixels of a tile row.
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

constexpr int kTile = kLanes;
constexpr int kMaxChannels = 32;
constexpr int kGeometryTerms = 6;  // v_mean (2), v_conic (3), v_opacity (1)

struct Rows {
  int first, last;
};

// Rows of the tile that the ellipse can reach; empty if first > last.
template <typename T>
AVATAR_HD Rows rows_of(T y, T reach, int top, int count) {
  const T low = y - reach - (T(top) + T(0.5)), high = y + reach - (T(top) + T(0.5));
  Rows rows;
  rows.first = low > T(0) ? (low < T(kTile) ? static_cast<int>(low) : kTile) : 0;
  rows.first += T(rows.first) < low ? 1 : 0;
  rows.last = high < T(count - 1) ? (high >= T(0) ? static_cast<int>(high) : -1) : count - 1;
  return rows;
}

template <typename T>
Lanes<T> pixel_centers(int left) {
  T x[kLanes];
  for (int i = 0; i < kLanes; ++i) x[i] = T(left + i) + T(0.5);
  return Lanes<T>::load(x);
}

template <typename T>
struct Scene {
  const T *means2d, *conics, *colors, *opacities, *background, *reach;
  int channels, background_stride, width, height, tiles_x;
  const int32_t *tile_offsets, *ids;
};

// kChannels = 0: the number of channels is scene.channels.
template <typename T, int kChannels>
void rasterize_tile(const Scene<T>& scene, int tile, T* image, T* final_t, int32_t* last) {
  using V = Lanes<T>;
  const int channels = kChannels ? kChannels : scene.channels;
  const int left = tile % scene.tiles_x * kTile, top = tile / scene.tiles_x * kTile;
  const int columns = scene.width - left < kTile ? scene.width - left : kTile;
  const int rows = scene.height - top < kTile ? scene.height - top : kTile;
  const int32_t begin = scene.tile_offsets[tile];
  const int32_t count = scene.tile_offsets[tile + 1] - begin;

  // A pixel that has had enough (or lies outside the picture) carries its transmittance with a minus sign.
  V transmittance[kTile], last_index[kTile], color[kTile][kChannels ? kChannels : kMaxChannels];
  const V x = pixel_centers<T>(left);
  for (int r = 0; r < kTile; ++r) {
    transmittance[r] = r < rows ? select(x < V(scene.width), V(1.0), V(-1.0)) : V(-1.0);
    last_index[r] = V(-1.0);
    for (int c = 0; c < channels; ++c) color[r][c] = V(0.0);
  }
  uint32_t live = (1u << rows) - 1u;

  const V alpha_min(AVATAR_ALPHA_MIN), alpha_max(AVATAR_ALPHA_MAX), enough(AVATAR_TRANSMITTANCE_MIN);
  const V zero(0.0), one(1.0);
  for (int32_t k = 0; k < count && live != 0; ++k) {
    const int64_t g = scene.ids[begin + k];
    const T y = scene.means2d[2 * g + 1];
    const Rows range = rows_of(y, scene.reach[g], top, rows);
    const V opacity(scene.opacities[g]);
    const V dx = x - V(scene.means2d[2 * g]);
    const V square = V(T(0.5) * scene.conics[3 * g]) * dx * dx, cross = V(scene.conics[3 * g + 1]) * dx;
    const T half_c = T(0.5) * scene.conics[3 * g + 2];
    const T* rgb = scene.colors + g * channels;
    for (int r = range.first; r <= range.last; ++r) {
      if ((live >> r & 1u) == 0u) continue;
      const T dy = T(top + r) + T(0.5) - y;
      const V sigma = at_least(cross * V(dy) + V(half_c * dy * dy) + square, zero);
      const V raw = opacity * exp_negative(sigma);
      const V t = transmittance[r];
      const Mask<T> seen = (raw >= alpha_min) & (t > zero);
      if (!seen.any()) continue;
      const V alpha = at_most(raw, alpha_max);
      const V next = t * (one - alpha);
      const Mask<T> stop = seen & (next <= enough);
      const Mask<T> blend = seen.without(stop);
      const V weight = select(blend, alpha * t, zero);
      for (int c = 0; c < channels; ++c) color[r][c] = color[r][c] + weight * V(rgb[c]);
      last_index[r] = select(blend, V(k), last_index[r]);
      V after = select(blend, next, t);
      if (stop.any()) {
        after = select(stop, zero - t, after);
        if (!(after > zero).any()) live &= ~(1u << r);
      }
      transmittance[r] = after;
    }
  }

  for (int r = 0; r < rows; ++r) {
    T t[kLanes], index[kLanes], value[kLanes];
    select(transmittance[r] < zero, zero - transmittance[r], transmittance[r]).store(t);
    last_index[r].store(index);
    const int64_t pixel = int64_t(top + r) * scene.width + left;
    for (int i = 0; i < columns; ++i) {
      final_t[pixel + i] = t[i];
      last[pixel + i] = static_cast<int32_t>(index[i]);
    }
    for (int c = 0; c < channels; ++c) {
      color[r][c].store(value);
      for (int i = 0; i < columns; ++i) {
        const T behind =
            scene.background ? t[i] * scene.background[(pixel + i) * scene.background_stride + c] : T(0);
        image[(pixel + i) * channels + c] = value[i] + behind;
      }
    }
  }
}

template <typename T, int kChannels>
void rasterize_tile_backward(const Scene<T>& scene, int tile, const int32_t* slots, const T* final_t,
                             const int32_t* last, const T* v_image, const T* v_final_t, T* partial) {
  using V = Lanes<T>;
  const int channels = kChannels ? kChannels : scene.channels;
  const int terms = kGeometryTerms + channels;
  const int left = tile % scene.tiles_x * kTile, top = tile / scene.tiles_x * kTile;
  const int columns = scene.width - left < kTile ? scene.width - left : kTile;
  const int rows = scene.height - top < kTile ? scene.height - top : kTile;
  const int32_t begin = scene.tile_offsets[tile];
  const int32_t count = scene.tile_offsets[tile + 1] - begin;

  V transmittance[kTile], behind[kTile], last_index[kTile], v_color[kTile][kChannels ? kChannels : kMaxChannels];
  int32_t deepest[kTile], deepest_of_tile = -1;
  for (int r = 0; r < rows; ++r) {
    T t[kLanes], s[kLanes], index[kLanes], value[kMaxChannels][kLanes];
    const int64_t pixel = int64_t(top + r) * scene.width + left;
    deepest[r] = -1;
    for (int i = 0; i < kLanes; ++i) {
      const bool inside = i < columns;
      t[i] = inside ? final_t[pixel + i] : T(1);
      index[i] = inside ? T(last[pixel + i]) : T(-1);
      if (inside && last[pixel + i] > deepest[r]) deepest[r] = last[pixel + i];
      T v_end = inside && v_final_t ? v_final_t[pixel + i] : T(0);
      for (int c = 0; c < channels; ++c) {
        value[c][i] = inside ? v_image[(pixel + i) * channels + c] : T(0);
        if (inside && scene.background)
          v_end += value[c][i] * scene.background[(pixel + i) * scene.background_stride + c];
      }
      s[i] = t[i] * v_end;
    }
    transmittance[r] = V::load(t);
    behind[r] = V::load(s);
    last_index[r] = V::load(index);
    for (int c = 0; c < channels; ++c) v_color[r][c] = V::load(value[c]);
    if (deepest[r] > deepest_of_tile) deepest_of_tile = deepest[r];
  }

  for (int32_t k = deepest_of_tile + 1; k < count; ++k) {
    T* out = partial + int64_t(slots[begin + k]) * terms;
    for (int i = 0; i < terms; ++i) out[i] = T(0);
  }

  const V x = pixel_centers<T>(left);
  const V alpha_min(AVATAR_ALPHA_MIN), alpha_max(AVATAR_ALPHA_MAX), zero(0.0), one(1.0);
  for (int32_t k = deepest_of_tile; k >= 0; --k) {
    const int64_t g = scene.ids[begin + k];
    const T y = scene.means2d[2 * g + 1];
    const Rows range = rows_of(y, scene.reach[g], top, rows);
    const V opacity(scene.opacities[g]);
    const V dx = x - V(scene.means2d[2 * g]);
    const T a = scene.conics[3 * g], b = scene.conics[3 * g + 1], c2 = scene.conics[3 * g + 2];
    const V square = V(T(0.5) * a) * dx * dx, cross = V(b) * dx;
    const T half_c = T(0.5) * c2;
    const T* rgb = scene.colors + g * channels;

    // Sums over the rows of v_sigma times 1, dy, dy^2; the powers of dx are applied once at the end.
    V sum = zero, sum_y = zero, sum_yy = zero, v_rgb[kChannels ? kChannels : kMaxChannels];
    for (int c = 0; c < channels; ++c) v_rgb[c] = zero;
    bool touched = false;
    for (int r = range.first; r <= range.last; ++r) {
      if (k > deepest[r]) continue;
      const T dy = T(top + r) + T(0.5) - y;
      const V sigma = at_least(cross * V(dy) + V(half_c * dy * dy) + square, zero);
      const V raw = opacity * exp_negative(sigma);
      const Mask<T> blend = (raw >= alpha_min) & (last_index[r] >= V(k));
      if (!blend.any()) continue;
      touched = true;
      const V alpha = select(blend, at_most(raw, alpha_max), zero);
      const V ratio = one / (one - alpha);
      const V t = transmittance[r] * ratio;
      transmittance[r] = t;
      V d = V(rgb[0]) * v_color[r][0];
      for (int c = 1; c < channels; ++c) d = d + V(rgb[c]) * v_color[r][c];
      const V weight = alpha * t;
      for (int c = 0; c < channels; ++c) v_rgb[c] = v_rgb[c] + weight * v_color[r][c];
      const V v_raw = t * d - ratio * behind[r];
      behind[r] = behind[r] + weight * d;
      // Where alpha was clamped it does not depend on sigma or opacity.
      const V v_sigma = select(blend & (raw <= alpha_max), zero - raw * v_raw, zero);
      const V with_y = v_sigma * V(dy);
      sum = sum + v_sigma;
      sum_y = sum_y + with_y;
      sum_yy = sum_yy + with_y * V(dy);
    }

    T* out = partial + int64_t(slots[begin + k]) * terms;
    if (!touched) {
      for (int i = 0; i < terms; ++i) out[i] = T(0);
      continue;
    }
    const V sum_x = sum * dx;
    const T total_x = lane_sum(sum_x), total_y = lane_sum(sum_y);
    out[0] = -(a * total_x + b * total_y);
    out[1] = -(b * total_x + c2 * total_y);
    out[2] = T(0.5) * lane_sum(sum_x * dx);
    out[3] = lane_sum(sum_y * dx);
    out[4] = T(0.5) * lane_sum(sum_yy);
    out[5] = -lane_sum(sum) / scene.opacities[g];
    for (int c = 0; c < channels; ++c) out[kGeometryTerms + c] = lane_sum(v_rgb[c]);
  }
}

template <typename T>
Scene<T> scene_of(const T* means2d, const T* conics, const T* colors, const T* opacities, int channels,
                  const T* background, int background_stride, int width, int height, const T* reach,
                  const int32_t* tile_offsets, const int32_t* ids) {
  Scene<T> scene;
  scene.means2d = means2d;
  scene.conics = conics;
  scene.colors = colors;
  scene.opacities = opacities;
  scene.background = background;
  scene.reach = reach;
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
               const T* background, int background_stride, int width, int height, const T* reach,
               const int32_t* tile_offsets, const int32_t* ids, T* image, T* final_t, int32_t* last) {
  const Scene<T> scene = scene_of(means2d, conics, colors, opacities, channels, background, background_stride, width,
                                  height, reach, tile_offsets, ids);
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
                        const T* reach, const int32_t* tile_offsets, const int32_t* ids, const int32_t* slots,
                        const int32_t* slot_offsets, const T* final_t, const int32_t* last, const T* v_image,
                        const T* v_final_t, T* v_means2d, T* v_conics, T* v_colors, T* v_opacities, T* workspace) {
  const Scene<T> scene = scene_of(means2d, conics, colors, opacities, channels, background, background_stride, width,
                                  height, reach, tile_offsets, ids);
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
