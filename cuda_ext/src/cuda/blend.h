// Alpha blending of the tile lists, forward (rasterize.cu) and backward (rasterize_backward.cu).
//
// Forward: one block per tile, one thread per pixel. The warps of a block own groups of 8x4 pixels; a warp walks only
// the Gaussians whose ellipse reaches its group, and stops when its pixels have had enough.
//
// Backward, the recurrence of the CPU version: walking from back to front, of a pixel's state only the transmittance T
// and one number S are needed, the cotangent-weighted colour behind the current Gaussian; with d = <colour, v_image>
// and alpha, v_alpha = T d - S / (1 - alpha), and S grows by alpha T d. Three kernels:
//   1. checkpoint: as the forward pass, but from back to front, one thread per pixel; leaves (T, S) of every pixel at
//      every 32nd Gaussian of the list, a bucket.
//   2. bucket (the idea of "Taming 3DGS", Mallick et al. 2024): one warp per bucket, each lane owns a Gaussian and
//      keeps its sums in registers; the pixels' states travel from lane to lane. No two threads ever add to one number.
//      Each (tile, Gaussian) pair writes its sums to its own slot.
//   3. gather: adds up the slots of each Gaussian in their fixed order. Same bits on every run.
// Storing the states during backward instead of forward costs one more blending pass, and saves keeping some 2 KB per
// bucket from forward to backward, and all of it when nothing is differentiated.
#pragma once

#include "device.h"

#include "avatar_tiles.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kPixels = kTile * kTile;
constexpr int kBucket = kWarp;            // Gaussians
constexpr int kGeometryTerms = 6;         // v_mean (2), v_conic (3), v_opacity (1)
constexpr int kMaxStored = 8;             // more channels are not copied to shared memory

// Position in its tile of the pixel that a thread owns.
__device__ __forceinline__ int pixel_column(int thread) { return (thread >> 5 & 1) * 8 + (thread & 7); }
__device__ __forceinline__ int pixel_row(int thread) { return (thread >> 6) * 4 + (thread >> 3 & 3); }

template <typename T>
struct Scene {
  const T *means2d, *conics, *colors, *opacities, *background, *limits;
  int channels, background_stride, width, height, tiles_x;
  const int32_t *tile_offsets, *ids;
};

// kChannels: 3 and 4 are exact; 8 and 32 are upper bounds, and the number is scene.channels.
template <int kChannels, typename T>
__device__ __forceinline__ int channels_of(const Scene<T>& scene) {
  return kChannels <= 4 ? kChannels : scene.channels;
}

// One bit per group of pixels with a centre in the box around the ellipse a dx^2 + 2 b dx dy + c dy^2 <= limit. The
// determinant suffers from cancellation; it is rounded down, which widens the box. The margin covers other rounding.
template <typename T>
__device__ __forceinline__ unsigned reached_groups(T x, T y, T a, T b, T c, T limit, int left, int top) {
  const T product = a * c, margin = T(2e-3);
  const T determinant = at_least(product - b * b - T(sizeof(T) == 4 ? 1e-6 : 1e-14) * product, T(1e-30));
  const T half_x = root(limit * c / determinant) * T(1.0001) + margin;
  const T half_y = root(limit * a / determinant) * T(1.0001) + margin;
  const T center_x = x - (T(left) + T(0.5)), center_y = y - (T(top) + T(0.5));
  const unsigned columns = (center_x - half_x <= T(7) && center_x + half_x >= T(0) ? 1u : 0u) |
                           (center_x - half_x <= T(15) && center_x + half_x >= T(8) ? 2u : 0u);
  unsigned groups = 0u;
  AVATAR_UNROLL
  for (int row = 0; row < kTile / 4; ++row)
    if (center_y - half_y <= T(4 * row + 3) && center_y + half_y >= T(4 * row)) groups |= columns << (2 * row);
  return groups;
}

template <typename T, int kChannels>
struct alignas(16) Splat {
  static constexpr int kStored = kChannels <= kMaxStored ? kChannels : 1;
  T x, y, a, b, c, opacity;
  T color[kStored];

  __device__ __forceinline__ void load(const Scene<T>& scene, int64_t g) {
    x = scene.means2d[2 * g];
    y = scene.means2d[2 * g + 1];
    a = scene.conics[3 * g];
    b = scene.conics[3 * g + 1];
    c = scene.conics[3 * g + 2];
    opacity = scene.opacities[g];
    if (kChannels > kMaxStored) return;
    const int channels = channels_of<kChannels>(scene);
    AVATAR_UNROLL
    for (int i = 0; i < kStored; ++i) color[i] = i < channels ? scene.colors[g * channels + i] : T(0);
  }
  __device__ __forceinline__ unsigned groups(const Scene<T>& scene, int64_t g, int left, int top) const {
    return reached_groups(x, y, a, b, c, scene.limits[g], left, top);
  }
};

// As many Gaussians of a list as a block has threads, in shared memory.
template <typename T, int kChannels>
struct Batch {
  Splat<T, kChannels> splat[kPixels];
  int32_t id[kPixels];
  uint8_t groups[kPixels];

  __device__ __forceinline__ void load(const Scene<T>& scene, int32_t g, int left, int top) {
    Splat<T, kChannels> own;
    own.load(scene, g);
    splat[threadIdx.x] = own;
    id[threadIdx.x] = g;
    groups[threadIdx.x] = static_cast<uint8_t>(own.groups(scene, g, left, top));
  }
  // The colour of Gaussian k: here, or, if there are many channels, where it came from.
  __device__ __forceinline__ const T* color(const Scene<T>& scene, int k) const {
    return kChannels <= kMaxStored ? splat[k].color : scene.colors + int64_t(id[k]) * scene.channels;
  }
};

// Blocks that a multiprocessor should hold: the compiler may use the registers that this leaves.
template <int kChannels>
constexpr int kBlocks = kChannels <= kMaxStored ? 4 : 2;

template <typename T>
Scene<T> scene_of(const void* means2d, const void* conics, const void* colors, const void* opacities, int channels,
                  const void* background, int background_stride, int width, int height, const void* limits,
                  const int32_t* tile_offsets, const int32_t* ids) {
  Scene<T> scene;
  scene.means2d = in<T>(means2d);
  scene.conics = in<T>(conics);
  scene.colors = in<T>(colors);
  scene.opacities = in<T>(opacities);
  scene.background = in<T>(background);
  scene.limits = in<T>(limits);
  scene.channels = channels;
  scene.background_stride = background_stride;
  scene.width = width;
  scene.height = height;
  scene.tiles_x = (width + kTile - 1) / kTile;
  scene.tile_offsets = tile_offsets;
  scene.ids = ids;
  return scene;
}

int tile_count(int width, int height) { return (width + kTile - 1) / kTile * ((height + kTile - 1) / kTile); }

// function(Channels<...>()) with the instance of the kernels that suits the number of channels.
template <int kChannels>
struct Channels {
  static constexpr int value = kChannels;
};
template <typename Function>
int32_t with_channels(int channels, const Function& function) {
  if (channels == 3) return function(Channels<3>());
  if (channels == 4) return function(Channels<4>());
  if (channels <= kMaxStored) return function(Channels<kMaxStored>());
  return function(Channels<kMaxChannels>());
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar
