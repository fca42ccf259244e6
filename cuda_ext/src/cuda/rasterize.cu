// Alpha blending of the tile lists, forward; see blend.h.
#include "blend.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

// kDraw: for playback, to bytes; image, final_t and last are not touched.
template <typename T, int kChannels, bool kDraw>
__global__ void __launch_bounds__(kPixels, kBlocks<kChannels>)
    rasterize_kernel(Scene<T> scene, T* image, T* final_t, int32_t* last, uint8_t* bytes) {
  __shared__ Batch<T, kChannels> batch;
  start_as_nan(batch);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int channels = channels_of<kChannels>(scene), tile = static_cast<int>(blockIdx.x);
  const int left = tile % scene.tiles_x * kTile, top = tile / scene.tiles_x * kTile;
  const int px = left + pixel_column(thread), py = top + pixel_row(thread);
  const bool inside = px < scene.width && py < scene.height;
  const int32_t begin = scene.tile_offsets[tile], count = scene.tile_offsets[tile + 1] - begin;

  bool done = !inside;
  T t = T(1), color[kChannels];
  AVATAR_UNROLL
  for (int i = 0; i < kChannels; ++i) color[i] = T(0);
  int32_t last_index = -1;
  for (int32_t start = 0; start < count; start += kPixels) {
    if (__syncthreads_count(done) == kPixels) break;  // from here on nobody reads the previous batch
    const int size = count - start < kPixels ? count - start : kPixels;
    if (thread < size) batch.load(scene, scene.ids[begin + start + thread], left, top);
    __syncthreads();
    for (int base = 0; base < size; base += kWarp) {
      if (__all_sync(kWholeWarp, done)) break;
      const int mine = base + lane;
      unsigned todo = __ballot_sync(kWholeWarp, mine < size && (batch.groups[mine < size ? mine : 0] >> warp & 1) != 0);
      while (todo != 0u) {
        const int k = base + __ffs(static_cast<int>(todo)) - 1;
        todo &= todo - 1u;
        const Splat<T, kChannels>& splat = batch.splat[k];
        const T raw = gaussian_alpha(T(px) + T(0.5) - splat.x, T(py) + T(0.5) - splat.y, splat.a, splat.b, splat.c,
                                     splat.opacity);
        if (done || !(raw >= T(AVATAR_ALPHA_MIN))) continue;
        const T alpha = at_most(raw, T(AVATAR_ALPHA_MAX));
        const T next = t * (T(1) - alpha);
        if (next <= T(AVATAR_TRANSMITTANCE_MIN)) {
          done = true;
          continue;
        }
        const T weight = alpha * t;
        const T* rgb = batch.color(scene, k);
        AVATAR_UNROLL
        for (int i = 0; i < kChannels; ++i)
          if (i < channels) color[i] += weight * rgb[i];
        t = next;
        last_index = start + k;
      }
    }
  }
  if (!inside) return;
  const int64_t pixel = int64_t(py) * scene.width + px;
  if (!kDraw) {
    final_t[pixel] = t;
    last[pixel] = last_index;
  }
  AVATAR_UNROLL
  for (int i = 0; i < kChannels; ++i) {
    if (i >= channels) continue;
    const T value =
        color[i] + (scene.background != nullptr ? t * scene.background[pixel * scene.background_stride + i] : T(0));
    if (kDraw)
      bytes[pixel * channels + i] =
          static_cast<uint8_t>(static_cast<int>(at_most(at_least(value, T(0)), T(1)) * T(255) + T(0.5)));
    else
      image[pixel * channels + i] = value;
  }
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" {

int32_t avatar_cuda_rasterize(avatar_call* call, const void* means2d, const void* conics, const void* colors,
                              const void* opacities, int64_t n, int32_t channels, const void* background,
                              int32_t background_stride, int32_t width, int32_t height, const void* limits,
                              const int32_t* tile_offsets, const int32_t* ids, void* image, void* final_t,
                              int32_t* last, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(tile_offsets, image, final_t, last);
  AVATAR_REQUIRE_IF(n, means2d, conics, colors, opacities, limits);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    const Scene<T> scene = scene_of<T>(means2d, conics, colors, opacities, channels, background, background_stride,
                                       width, height, limits, tile_offsets, ids);
    return with_channels(channels, [&](auto tag) {
      return launch(call, rasterize_kernel<T, decltype(tag)::value, false>,
                    static_cast<unsigned>(tile_count(width, height)), kPixels, static_cast<cudaStream_t>(stream), scene,
                    out<T>(image), out<T>(final_t), last, nullptr);
    });
  });
}

int32_t avatar_cuda_draw(avatar_call* call, const void* means2d, const void* conics, const void* colors,
                         const void* opacities, int64_t n, int32_t channels, const void* background,
                         int32_t background_stride, int32_t width, int32_t height, const void* limits,
                         const int32_t* tile_offsets, const int32_t* ids, void* image, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(tile_offsets, image);
  AVATAR_REQUIRE_IF(n, means2d, conics, colors, opacities, limits);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    const Scene<T> scene = scene_of<T>(means2d, conics, colors, opacities, channels, background, background_stride,
                                       width, height, limits, tile_offsets, ids);
    return with_channels(channels, [&](auto tag) {
      return launch(call, rasterize_kernel<T, decltype(tag)::value, true>,
                    static_cast<unsigned>(tile_count(width, height)), kPixels, static_cast<cudaStream_t>(stream), scene,
                    nullptr, nullptr, nullptr, out<uint8_t>(image));
    });
  });
}

}  // extern "C"
