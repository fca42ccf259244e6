// Alpha blending of the tile lists, backward; see blend.h.
#include "blend.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

template <typename T>
struct alignas(2 * sizeof(T)) PixelState {
  T t, s;  // transmittance in front of what is behind, cotangent-weighted colour of what is behind
};

// Buckets of tile `tile` are numbered from here on. Numbers are unique and below capacity / 32 + tiles; some are
// unused.
__device__ __forceinline__ int32_t first_bucket(const int32_t* tile_offsets, int tile) {
  return tile_offsets[tile] / kBucket + tile;
}

template <typename T, int kChannels>
__global__ void __launch_bounds__(kPixels, kBlocks<kChannels>)
    checkpoint_kernel(Scene<T> scene, const T* final_t, const int32_t* last, const T* v_image, const T* v_final_t,
                      PixelState<T>* states, int32_t* deepest) {
  __shared__ Batch<T, kChannels> batch;
  __shared__ int tile_deepest;  // list index of the last Gaussian that any pixel blended
  start_as_nan(batch);
  start_as_nan(tile_deepest);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int channels = channels_of<kChannels>(scene), tile = static_cast<int>(blockIdx.x);
  const int left = tile % scene.tiles_x * kTile, top = tile / scene.tiles_x * kTile;
  const int px = left + pixel_column(thread), py = top + pixel_row(thread);
  const bool inside = px < scene.width && py < scene.height;
  const int64_t pixel = int64_t(py) * scene.width + px;
  const int32_t begin = scene.tile_offsets[tile], bucket = first_bucket(scene.tile_offsets, tile);

  const int32_t last_index = inside ? last[pixel] : -1;
  T t = inside ? final_t[pixel] : T(1), v_color[kChannels];
  T v_end = inside && v_final_t != nullptr ? v_final_t[pixel] : T(0);
  AVATAR_UNROLL
  for (int i = 0; i < kChannels; ++i) {
    v_color[i] = inside && i < channels ? v_image[pixel * channels + i] : T(0);
    if (inside && i < channels && scene.background != nullptr)
      v_end += v_color[i] * scene.background[pixel * scene.background_stride + i];
  }
  T s = t * v_end;

  if (thread == 0) tile_deepest = -1;
  __syncthreads();
  const int warp_deepest = warp_max(last_index);
  if (lane == 0) atomicMax(&tile_deepest, warp_deepest);
  __syncthreads();
  const int end = tile_deepest + 1;
  if (thread == 0) deepest[tile] = tile_deepest;

  for (int start = (end - 1) / kPixels * kPixels; end > 0 && start >= 0; start -= kPixels) {
    const int size = end - start < kPixels ? end - start : kPixels;
    __syncthreads();  // from here on nobody reads the previous batch
    if (thread < size) batch.load(scene, scene.ids[begin + start + thread], left, top);
    __syncthreads();
    for (int base = (size - 1) / kBucket * kBucket; base >= 0; base -= kBucket) {
      states[int64_t(bucket + (start + base) / kBucket) * kPixels + thread] = {t, s};
      const int mine = base + lane;
      const bool wanted = mine < size && (batch.groups[mine < size ? mine : 0] >> warp & 1) != 0 &&
                          start + mine <= warp_deepest;
      unsigned todo = __ballot_sync(kWholeWarp, wanted);
      while (todo != 0u) {
        const int bit = 31 - __clz(static_cast<int>(todo)), k = base + bit;
        todo &= ~(1u << bit);
        const Splat<T, kChannels>& splat = batch.splat[k];
        const T raw = gaussian_alpha(T(px) + T(0.5) - splat.x, T(py) + T(0.5) - splat.y, splat.a, splat.b, splat.c,
                                     splat.opacity);
        if (!(raw >= T(AVATAR_ALPHA_MIN)) || last_index < start + k) continue;
        const T alpha = at_most(raw, T(AVATAR_ALPHA_MAX));
        t *= reciprocal(T(1) - alpha);
        const T* rgb = batch.color(scene, k);
        T d = T(0);
        AVATAR_UNROLL
        for (int i = 0; i < kChannels; ++i)
          if (i < channels) d += rgb[i] * v_color[i];
        s += alpha * t * d;
      }
    }
  }
}

template <int kChannels>
constexpr int kBucketWarps = kChannels <= kMaxStored ? 4 : 2;  // per block; they do not meet

// The pixels that are under way through a warp: those of the current group and of the one before it.
template <typename T, int kChannels>
struct Ring {
  T x[2 * kWarp], y[2 * kWarp], t[2 * kWarp], s[2 * kWarp], v_color[kChannels][2 * kWarp];
  int32_t last[2 * kWarp];
};

template <typename T, int kChannels>
__global__ void __launch_bounds__(kBucketWarps<kChannels>* kWarp)
    bucket_kernel(Scene<T> scene, int tiles, int64_t buckets, const int32_t* slots, const int32_t* last,
                  const T* v_image, const PixelState<T>* states, const int32_t* deepest, T* partial) {
  __shared__ Ring<T, kChannels> rings[kBucketWarps<kChannels>];
  start_as_nan(rings);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  Ring<T, kChannels>& ring = rings[warp];
  const int channels = channels_of<kChannels>(scene), terms = kGeometryTerms + channels;
  const int64_t bucket = int64_t(blockIdx.x) * kBucketWarps<kChannels> + warp;
  if (bucket >= buckets) return;  // the whole warp

  int tile = 0;  // the last one that starts at or before this bucket
  for (int low = 1, high = tiles; low < high;) {
    const int middle = (low + high) / 2;
    if (first_bucket(scene.tile_offsets, middle) <= bucket) {
      tile = middle;
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const int32_t begin = scene.tile_offsets[tile], count = scene.tile_offsets[tile + 1] - begin;
  const int64_t start = (bucket - first_bucket(scene.tile_offsets, tile)) * kBucket;  // list index
  if (start >= count) return;

  // The deepest Gaussian comes first: it is lane 0 that takes in the pixels.
  const int32_t index = static_cast<int32_t>(start) + kBucket - 1 - lane;
  const bool exists = index < count;
  const int left = tile % scene.tiles_x * kTile, top = tile / scene.tiles_x * kTile;
  const int64_t g = exists ? scene.ids[begin + index] : 0;
  T x = T(0), y = T(0), a = T(1), b = T(0), c = T(1), opacity = T(0), color[kChannels];
  unsigned groups = 0u;  // of pixels, that any Gaussian of the bucket reaches
  if (exists) {
    x = scene.means2d[2 * g];
    y = scene.means2d[2 * g + 1];
    a = scene.conics[3 * g];
    b = scene.conics[3 * g + 1];
    c = scene.conics[3 * g + 2];
    opacity = scene.opacities[g];
    groups = reached_groups(x, y, a, b, c, scene.limits[g], left, top);
  }
  AVATAR_UNROLL
  for (int i = 0; i < kChannels; ++i) color[i] = exists && i < channels ? scene.colors[g * channels + i] : T(0);
  AVATAR_UNROLL
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    groups |= __shfl_xor_sync(kWholeWarp, groups, distance);
  if (start > deepest[tile]) groups = 0u;

  // Leave out groups whose pixels all had enough before this bucket.
  for (unsigned left_over = groups; left_over != 0u; left_over &= left_over - 1u) {
    const int group = __ffs(static_cast<int>(left_over)) - 1, pixel = group * kWarp + lane;
    const int px = left + pixel_column(pixel), py = top + pixel_row(pixel);
    const bool inside = px < scene.width && py < scene.height;
    const bool blends = inside && last[int64_t(py) * scene.width + px] >= start;
    if (!__any_sync(kWholeWarp, blends)) groups &= ~(1u << group);
  }

  // Sums of v_sigma times 1, dx, dy, dx^2, dx dy, dy^2 over the pixels.
  T sum = T(0), sum_x = T(0), sum_y = T(0), sum_xx = T(0), sum_xy = T(0), sum_yy = T(0), v_rgb[kChannels];
  AVATAR_UNROLL
  for (int i = 0; i < kChannels; ++i) v_rgb[i] = T(0);

  const int pixels = __popc(groups) * kWarp;
  T t = T(1), s = T(0);
  for (int step = 0; step < (pixels > 0 ? pixels + kWarp - 1 : 0); ++step) {
    if (step % kWarp == 0 && groups != 0u) {  // fetch the next group over the one before the current one
      const int group = __ffs(static_cast<int>(groups)) - 1, pixel = group * kWarp + lane;
      const int at = step % (2 * kWarp) + lane;
      groups &= groups - 1u;
      const int px = left + pixel_column(pixel), py = top + pixel_row(pixel);
      const bool inside = px < scene.width && py < scene.height;
      const int64_t place = int64_t(py) * scene.width + px;
      const PixelState<T> state = states[bucket * kPixels + pixel];
      __syncwarp();
      ring.x[at] = T(px) + T(0.5);
      ring.y[at] = T(py) + T(0.5);
      ring.t[at] = state.t;
      ring.s[at] = state.s;
      ring.last[at] = inside ? last[place] : -1;
      AVATAR_UNROLL
      for (int i = 0; i < kChannels; ++i)
        if (i < channels) ring.v_color[i][at] = inside ? v_image[place * channels + i] : T(0);
      __syncwarp();
    }
    t = __shfl_up_sync(kWholeWarp, t, 1);
    s = __shfl_up_sync(kWholeWarp, s, 1);
    const int position = step - lane, at = position & (2 * kWarp - 1);
    if (position < 0 || position >= pixels) continue;
    if (lane == 0) {
      t = ring.t[at];
      s = ring.s[at];
    }
    if (!exists || ring.last[at] < index) continue;
    const T dx = ring.x[at] - x, dy = ring.y[at] - y;
    const T raw = gaussian_alpha(dx, dy, a, b, c, opacity);
    if (!(raw >= T(AVATAR_ALPHA_MIN))) continue;
    const T alpha = at_most(raw, T(AVATAR_ALPHA_MAX));
    const T ratio = reciprocal(T(1) - alpha);
    t *= ratio;
    const T weight = alpha * t;
    T d = T(0);
    AVATAR_UNROLL
    for (int i = 0; i < kChannels; ++i)
      if (i < channels) {
        const T v = ring.v_color[i][at];
        d += color[i] * v;
        v_rgb[i] += weight * v;
      }
    const T v_raw = t * d - ratio * s;
    s += weight * d;
    if (raw <= T(AVATAR_ALPHA_MAX)) {  // where alpha was clamped it does not depend on sigma or opacity
      const T v_sigma = T(0) - raw * v_raw, with_x = v_sigma * dx, with_y = v_sigma * dy;
      sum += v_sigma;
      sum_x += with_x;
      sum_y += with_y;
      sum_xx += with_x * dx;
      sum_xy += with_x * dy;
      sum_yy += with_y * dy;
    }
  }
  if (!exists) return;
  T* to = partial + int64_t(slots[begin + index]) * terms;
  to[0] = T(0) - (a * sum_x + b * sum_y);
  to[1] = T(0) - (b * sum_x + c * sum_y);
  to[2] = T(0.5) * sum_xx;
  to[3] = sum_xy;
  to[4] = T(0.5) * sum_yy;
  to[5] = T(0) - sum / opacity;
  AVATAR_UNROLL
  for (int i = 0; i < kChannels; ++i)
    if (i < channels) to[kGeometryTerms + i] = v_rgb[i];
}

// One thread per Gaussian and term, so that neighbours read neighbouring numbers.
template <typename T>
__global__ void __launch_bounds__(kPixels)
    gather_kernel(const T* partial, const int32_t* slot_offsets, int64_t capacity, int64_t n, int channels,
                  T* v_means2d, T* v_conics, T* v_colors, T* v_opacities) {
  const int terms = kGeometryTerms + channels;
  const int64_t item = global_thread(), g = item / terms;
  const int term = static_cast<int>(item - g * terms);
  if (g >= n) return;
  const int64_t begin = slot_offsets[g], end = slot_offsets[g + 1] < capacity ? slot_offsets[g + 1] : capacity;
  T sum = T(0);
#pragma unroll 4
  for (int64_t slot = begin; slot < end; ++slot) sum += partial[slot * terms + term];
  if (term < 2)
    v_means2d[2 * g + term] = sum;
  else if (term < 5)
    v_conics[3 * g + term - 2] = sum;
  else if (term == 5)
    v_opacities[g] = sum;
  else
    v_colors[g * channels + term - kGeometryTerms] = sum;
}

template <typename T>
struct Workspace {
  PixelState<T>* states;
  int32_t* deepest;
  T* partial;
  int64_t buckets, bytes;

  Workspace(void* memory, int64_t capacity, int channels, int tiles) {
    Carver carver(memory);
    buckets = capacity / kBucket + tiles;
    states = carver.take<PixelState<T>>(buckets * kPixels);
    deepest = carver.take<int32_t>(tiles);
    partial = carver.take<T>(capacity * (kGeometryTerms + channels));
    bytes = carver.used;
  }
};

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" {

int64_t avatar_cuda_rasterize_workspace(int32_t dtype, int64_t capacity, int32_t channels, int32_t width,
                                        int32_t height) {
  if (!good_capacity(capacity) || !good_picture(width, height, channels)) return -1;
  const int tiles = tile_count(width, height);
  return dtype == AVATAR_FLOAT32 ? Workspace<float>(nullptr, capacity, channels, tiles).bytes
                                 : Workspace<double>(nullptr, capacity, channels, tiles).bytes;
}

int32_t avatar_cuda_rasterize_backward(avatar_call* call, const void* means2d, const void* conics, const void* colors,
                                       const void* opacities, int64_t n, int32_t channels, const void* background,
                                       int32_t background_stride, int32_t width, int32_t height, const void* limits,
                                       const int32_t* tile_offsets, const int32_t* ids, const int32_t* slots,
                                       const int32_t* slot_offsets, int64_t capacity, const void* final_t,
                                       const int32_t* last, const void* v_image, const void* v_final_t,
                                       void* v_means2d, void* v_conics, void* v_colors, void* v_opacities,
                                       void* workspace, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_RETURN_IF_BAD(check_capacity(call, capacity));
  AVATAR_REQUIRE(tile_offsets, slot_offsets, final_t, last, v_image);
  AVATAR_REQUIRE_IF(n, means2d, conics, colors, opacities, limits, v_means2d, v_conics, v_colors, v_opacities);
  AVATAR_REQUIRE_IF(capacity, ids, slots, workspace);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    if (n == 0) return int32_t(AVATAR_OK);
    const int tiles = tile_count(width, height);
    const Scene<T> scene = scene_of<T>(means2d, conics, colors, opacities, channels, background, background_stride,
                                       width, height, limits, tile_offsets, ids);
    const Workspace<T> work(workspace, capacity, channels, tiles);
    // A place that was counted and not filled (see binning.cu) is in no list: it adds nothing.
    if (capacity > 0)
      AVATAR_RETURN_IF_BAD(
          clear(call, work.partial, capacity * (kGeometryTerms + channels) * int64_t(sizeof(T)), on));
    AVATAR_RETURN_IF_BAD(with_channels(channels, [&](auto tag) {
      constexpr int kChannels = decltype(tag)::value;
      AVATAR_RETURN_IF_BAD(launch(call, checkpoint_kernel<T, kChannels>, static_cast<unsigned>(tiles), kPixels, on,
                                  scene, in<T>(final_t), last, in<T>(v_image), in<T>(v_final_t), work.states,
                                  work.deepest));
      return launch(call, bucket_kernel<T, kChannels>, blocks_for(work.buckets, kBucketWarps<kChannels>),
                    kBucketWarps<kChannels> * kWarp, on, scene, tiles, work.buckets, slots, last, in<T>(v_image),
                    work.states, work.deepest, work.partial);
    }));
    return launch(call, gather_kernel<T>, blocks_for(n * (kGeometryTerms + channels), kPixels), kPixels, on,
                  work.partial, slot_offsets, capacity, n, channels, out<T>(v_means2d), out<T>(v_conics),
                  out<T>(v_colors), out<T>(v_opacities));
  });
}

}  // extern "C"
