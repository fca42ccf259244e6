// Alpha blending of the tile lists, backward; see blend.h.
#include "blend.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

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

}  // namespace

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
  template void rasterize_backward<T>(int, const T*, const T*, const T*, const T*, int64_t, int, const T*, int, int,  \
                                      int, const T*, const int32_t*, const int32_t*, const int32_t*, const int32_t*,  \
                                      const T*, const int32_t*, const T*, const T*, T*, T*, T*, T*, void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
