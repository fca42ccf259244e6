// Alpha blending of the tile lists, forward; see blend.h.
#include "blend.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

// The pixels of a tile while it is blended, by block: transmittance, list index of the last Gaussian looked at, colour,
// and 1 where a pixel still takes more (0: it has had enough, or lies outside the picture). For playback `open` is the
// transmittance as if blending never stopped, and zero outside the picture: it only falls, so one look at it tells
// whether a pixel still takes more, and no Gaussian waits for the decision about the one before.
template <typename T, int kChannels>
struct Pixels {
  static constexpr int kStored = kChannels ? kChannels : kMaxChannels;
  Lanes<T> t[Blocks<T>::kCount], last[Blocks<T>::kCount], open[Blocks<T>::kCount];
  Lanes<T> color[Blocks<T>::kCount][kStored];
};

// Blend the Gaussians of a batch whose bits are set in `hits` into one block; false when all its pixels had enough.
// No branch depends on a pixel: where each stops is unpredictable. kDraw: for playback, which needs no `last`.
template <bool kDraw, typename T, int kChannels>
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
  V t = pixels.t[block], last = pixels.last[block], endless = pixels.open[block];
  Mask<T> open = endless > zero;
  V own[kChannels ? kChannels : 1];
  V* color = kChannels ? own : pixels.color[block];
  for (int c = 0; c < kChannels; ++c) own[c] = pixels.color[block][c];
  while (hits != 0) {
    const int k = __builtin_ctzll(hits);
    hits &= hits - 1;
    const V power = at_most(offsets.power(curvature[k], at_origin[k], along_x[k], along_y[k]), V(batch.bound[k]));
    const V alpha = keep(power >= smallest, exp2_approximate(power));
    // Training keeps the order of its rounding.
    const V next = kDraw ? minus_product(endless, alpha, endless) : t - alpha * t;
    open = kDraw ? next > enough : open & (next > enough);
    const V weight = keep(open, alpha * (kDraw ? endless : t));
    endless = next;
    t = select(open, next, t);
    if (!kDraw) last = select(open, V(start + k), last);
    for (int c = 0; c < channels; ++c) color[c] = color[c] + weight * batch.rgb(scene, k, c);
  }
  pixels.t[block] = t;
  pixels.last[block] = last;
  if (kDraw) open = endless > enough;
  pixels.open[block] = keep(open, kDraw ? endless : V(1.0));  // no numbers too small to be ordinary
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

// Where the pixels go: for training the picture, the transmittance left and the list index at which blending stopped;
// for playback bytes.
template <typename T>
struct Output {
  T *image, *final_t;
  int32_t* last;
  uint8_t* bytes;
};

// Bytes of numbers 0..1, which may lie outside; NaN becomes 0.
template <typename T>
void copy_bytes(const T* from, int count, uint8_t* to) {
  for (int i = 0; i < count; ++i) {
    const T value = at_most(at_least(from[i], T(0)), T(1));
    to[i] = static_cast<uint8_t>(static_cast<int32_t>(value * T(255) + T(0.5)));
  }
}

// A tile without Gaussians shows what is behind it.
template <bool kDraw, typename T>
void show_background(const Scene<T>& scene, const Region& region, const Output<T>& output) {
  for (int row = 0; row < region.rows; ++row) {
    const int64_t pixel = int64_t(region.top + row) * scene.width + region.left;
    for (int i = 0; !kDraw && i < region.columns; ++i) {
      output.final_t[pixel + i] = T(1);
      output.last[pixel + i] = -1;
    }
    const int count = region.columns * scene.channels;
    T line[kTile * kMaxChannels];
    if (scene.background == nullptr) {
      for (int i = 0; i < count; ++i) line[i] = T(0);
    } else if (scene.background_stride == scene.channels) {
      __builtin_memcpy(line, scene.background + pixel * scene.channels, count * sizeof(T));
    } else {  // one color
      for (int i = 0; i < count; ++i) line[i] = scene.background[i % scene.channels];
    }
    if (kDraw)
      copy_bytes(line, count, output.bytes + pixel * scene.channels);
    else
      for (int i = 0; i < count; ++i) output.image[pixel * scene.channels + i] = line[i];
  }
}

// Blend the background behind the pixels of a tile, and write them.
template <bool kDraw, typename T, int kChannels>
void store_pixels(const Scene<T>& scene, const Region& region, const Pixels<T, kChannels>& pixels,
                  const Output<T>& output) {
  const int channels = kChannels ? kChannels : scene.channels;
  T t[kTile * kTile], index[kTile * kTile], planes[Pixels<T, kChannels>::kStored * kTile * kTile];
  int32_t whole_index[kTile * kTile];
  for (int block = 0; block < Blocks<T>::kCount; ++block) {
    store_block(pixels.t[block], block, t);
    if (!kDraw) store_block(pixels.last[block], block, index);
    for (int c = 0; c < channels; ++c) store_block(pixels.color[block][c], block, planes + c * kTile * kTile);
  }
  for (int i = 0; !kDraw && i < kTile * kTile; ++i) whole_index[i] = static_cast<int32_t>(index[i]);
  for (int row = 0; row < region.rows; ++row) {
    const int64_t pixel = int64_t(region.top + row) * scene.width + region.left;
    if (!kDraw) {
      copy(t + row * kTile, region.columns, output.final_t + pixel);
      copy(whole_index + row * kTile, region.columns, output.last + pixel);
    }
    T line[kTile * Pixels<T, kChannels>::kStored];
    for (int i = 0; i < kTile; ++i)
      for (int c = 0; c < channels; ++c) line[i * channels + c] = planes[c * kTile * kTile + row * kTile + i];
    if (scene.background != nullptr) {
      const T* behind = scene.background + pixel * scene.background_stride;
      for (int i = 0; i < region.columns; ++i, behind += scene.background_stride)
        for (int c = 0; c < channels; ++c) line[i * channels + c] += t[row * kTile + i] * behind[c];
    }
    if (kDraw) {
      copy_bytes(line, region.columns * channels, output.bytes + pixel * channels);
      continue;
    }
    T* out = output.image + pixel * channels;
    for (int c = 0; c < channels; ++c) copy(line + c * region.columns, region.columns, out + c * region.columns);
  }
}

// kChannels = 0: the number of channels is scene.channels.
template <bool kDraw, typename T, int kChannels>
void rasterize_tile(const Scene<T>& scene, const Splat<T, kChannels>* splats, int tile, const Output<T>& output) {
  using V = Lanes<T>;
  using B = Blocks<T>;
  const int channels = kChannels ? kChannels : scene.channels;
  const Region region(scene, tile);
  const int32_t begin = scene.tile_offsets[tile];
  const int32_t count = scene.tile_offsets[tile + 1] - begin;
  if (count == 0) return show_background<kDraw>(scene, region, output);
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
          blend_block<kDraw>(scene, batch, curvature, offsets, hits[block], start, size, left, top, block, pixels);
      live_blocks -= !live[block];
    }
  }

  store_pixels<kDraw>(scene, region, pixels, output);
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
  const Output<T> output = {image, final_t, last, nullptr};
  const int64_t tiles = int64_t(scene.tiles_x) * ((height + kTile - 1) / kTile);
  with_splats(threads, scene, n, workspace, [&](const auto* splats) {
    parallel_for(threads, tiles, [&](int64_t tile, int) {
      rasterize_tile<false>(scene, splats, static_cast<int>(tile), output);
    });
  });
}

template <typename T>
void draw(int threads, const T* means2d, const T* conics, const T* colors, const T* opacities, int64_t n, int channels,
          const T* background, int background_stride, int width, int height, const T* limits,
          const int32_t* tile_offsets, const int32_t* ids, uint8_t* image, void* workspace) {
  const Scene<T> scene = scene_of(means2d, conics, colors, opacities, channels, background, background_stride, width,
                                  height, limits, tile_offsets, ids);
  const Output<T> output = {nullptr, nullptr, nullptr, image};
  const int64_t tiles = int64_t(scene.tiles_x) * ((height + kTile - 1) / kTile);
  with_splats(threads, scene, n, workspace, [&](const auto* splats) {
    parallel_for(threads, tiles, [&](int64_t tile, int) {
      rasterize_tile<true>(scene, splats, static_cast<int>(tile), output);
    });
  });
}

#define INSTANTIATE(T)                                                                                               \
  template int64_t rasterize_workspace<T>(int64_t, int64_t, int);                                                    \
  template void rasterize<T>(int, const T*, const T*, const T*, const T*, int64_t, int, const T*, int, int, int,     \
                             const T*, const int32_t*, const int32_t*, T*, T*, int32_t*, void*);                     \
  template void draw<T>(int, const T*, const T*, const T*, const T*, int64_t, int, const T*, int, int, int, const T*, \
                        const int32_t*, const int32_t*, uint8_t*, void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
