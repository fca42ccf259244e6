// Tile lists: which Gaussians can be seen in which 16x16 tile, front to back.
//
// Each Gaussian counts its tiles; prefix sums give it a range of slots, into which it writes one key per tile. Sorting
// the keys (tile, then depth) makes the lists; the sort is stable and slots are in the order of the Gaussians, so equal
// depths keep the order of the index. The slot of a pair travels along as the sort's value: rasterize_backward leaves
// its sums there.
#include "device.h"
#include "device_scan.h"
#include "device_sort.h"

#include "avatar_tiles.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kThreads = 128;

template <typename T>
__device__ __forceinline__ TileEllipse ellipse_at(const T* means2d, const T* conics, const T* opacities, int64_t g,
                                                  int width, int height) {
  return tile_ellipse(means2d[2 * g], means2d[2 * g + 1], conics[3 * g], conics[3 * g + 1], conics[3 * g + 2],
                      opacities[g], width, height);
}

// counts has n + 1 elements, the last one zero, so that its exclusive sums end with the total.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    count_kernel(const T* means2d, const T* conics, const T* opacities, const int32_t* radii, int64_t n, int width,
                 int height, int32_t* counts, T* limits) {
  const int64_t g = global_thread();
  if (g > n) return;
  int32_t count = 0;
  if (g < n) {
    T limit = T(0);
    if (radii[g] > 0) {
      const TileEllipse e = ellipse_at(means2d, conics, opacities, g, width, height);
      limit = T(e.limit);
      for (int row = e.first_row; row <= e.last_row; ++row) {
        int first, last;
        if (tile_columns(e, row, width, &first, &last)) count += last - first + 1;
      }
    }
    limits[g] = limit;
  }
  counts[g] = count;
}

// Bits that order like the number itself, negative ones included; NaN comes last.
__device__ __forceinline__ uint32_t depth_key(float depth) {
  uint32_t bits;
  memcpy(&bits, &depth, sizeof(bits));
  if (depth != depth) return 0xffffffffu;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Slots that hold no pair get a key behind the last tile: those behind the last pair, up to the capacity, and those
// that a Gaussian counted and does not fill, should the compiler round the two kernels differently.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    fill_kernel(const T* means2d, const T* conics, const T* opacities, const T* depths, const int32_t* radii,
                int64_t n, int width, int height, int tiles_x, int tiles, const int32_t* slot_offsets,
                int64_t capacity, uint64_t* keys, int32_t* values, int32_t* owners, int32_t* overflow) {
  const int64_t thread = global_thread(), stride = int64_t(gridDim.x) * kThreads;
  const int64_t total = slot_offsets[n];
  const auto leave_empty = [&](int64_t slot) {
    keys[slot] = static_cast<uint64_t>(tiles) << 32;
    values[slot] = static_cast<int32_t>(slot);
    owners[slot] = 0;
  };
  if (thread == 0 && total > capacity && overflow != nullptr) *overflow = 1;
  if (thread < n && radii[thread] > 0) {
    const int64_t g = thread;
    const TileEllipse e = ellipse_at(means2d, conics, opacities, g, width, height);
    const uint64_t depth = depth_key(static_cast<float>(depths[g]));
    int64_t slot = slot_offsets[g];
    const int64_t end = slot_offsets[g + 1] < capacity ? slot_offsets[g + 1] : capacity;
    for (int row = e.first_row; row <= e.last_row; ++row) {
      int first, last;
      if (!tile_columns(e, row, width, &first, &last)) continue;
      for (int column = first; column <= last && slot < end; ++column, ++slot) {
        keys[slot] = static_cast<uint64_t>(row * tiles_x + column) << 32 | depth;
        values[slot] = static_cast<int32_t>(slot);
        owners[slot] = static_cast<int32_t>(g);
      }
    }
    for (; slot < end; ++slot) leave_empty(slot);
  }
  for (int64_t slot = total + thread; slot < capacity; slot += stride) leave_empty(slot);
}

// One thread per sorted pair: its Gaussian, and the start of every tile between the previous pair's and its own.
__global__ void __launch_bounds__(kThreads)
    list_kernel(const uint64_t* keys, const int32_t* slots, const int32_t* owners, int64_t capacity, int tiles,
                int32_t* tile_offsets, int32_t* ids) {
  const int64_t i = global_thread();
  if (i >= capacity) return;
  ids[i] = owners[slots[i]];
  const int tile = static_cast<int>(keys[i] >> 32);
  const int previous = i == 0 ? -1 : static_cast<int>(keys[i - 1] >> 32);
  for (int t = previous + 1; t <= tile; ++t) tile_offsets[t] = static_cast<int32_t>(i);
  if (i == capacity - 1)
    for (int t = tile + 1; t <= tiles; ++t) tile_offsets[t] = static_cast<int32_t>(capacity);
}

int tiles_along(int pixels) { return (pixels + kTile - 1) / kTile; }

// Bits of the key that differ: the depth's 32, and those of tile numbers up to `tiles`, which marks unused slots.
int key_bits(int tiles) {
  int bits = 32;
  while (tiles >> (bits - 32) != 0) ++bits;
  return bits;
}

struct FillWorkspace {
  uint64_t *keys, *sorted_keys;
  int32_t *values, *owners;
  char* sort;
  int64_t sort_bytes, bytes;

  FillWorkspace(void* memory, int64_t capacity, int tiles) {
    Carver carver(memory);
    keys = carver.take<uint64_t>(capacity);
    sorted_keys = carver.take<uint64_t>(capacity);
    values = carver.take<int32_t>(capacity);
    owners = carver.take<int32_t>(capacity);
    sort_bytes = capacity == 0 ? 0 : sort_workspace(capacity, key_bits(tiles));
    sort = carver.take<char>(sort_bytes);
    bytes = carver.used;
  }
};

struct CountWorkspace {
  int32_t* counts;
  char* scan;
  int64_t scan_bytes, bytes;

  CountWorkspace(void* memory, int64_t n) {
    Carver carver(memory);
    counts = carver.take<int32_t>(n + 1);
    scan_bytes = scan_workspace(n + 1);
    scan = carver.take<char>(scan_bytes);
    bytes = carver.used;
  }
};

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" {

int64_t avatar_cuda_bin_count_workspace(int32_t, int64_t n) { return good_count(n) ? CountWorkspace(nullptr, n).bytes : -1; }

int32_t avatar_cuda_bin_count(avatar_call* call, const void* means2d, const void* conics, const void* opacities,
                              const int32_t* radii, int64_t n, int32_t width, int32_t height, int32_t* slot_offsets,
                              void* limits, void* workspace, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, 1));
  AVATAR_REQUIRE(slot_offsets, workspace);
  AVATAR_REQUIRE_IF(n, means2d, conics, opacities, radii, limits);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    const CountWorkspace work(workspace, n);
    AVATAR_RETURN_IF_BAD(launch(call, count_kernel<T>, blocks_for(n + 1, kThreads), kThreads, on, in<T>(means2d),
                                in<T>(conics), in<T>(opacities), radii, n, width, height, work.counts,
                                out<T>(limits)));
    return exclusive_sums(call, work.counts, slot_offsets, n + 1, work.scan, work.scan_bytes, on);
  });
}

int64_t avatar_cuda_bin_fill_workspace(int32_t, int64_t capacity, int32_t width, int32_t height) {
  if (!good_capacity(capacity) || !good_picture(width, height, 1)) return -1;
  return FillWorkspace(nullptr, capacity, tiles_along(width) * tiles_along(height)).bytes;
}

int32_t avatar_cuda_bin_fill(avatar_call* call, const void* means2d, const void* conics, const void* opacities,
                             const void* depths, const int32_t* radii, int64_t n, int32_t width, int32_t height,
                             const int32_t* slot_offsets, int64_t capacity, int32_t* tile_offsets, int32_t* ids,
                             int32_t* slots, int32_t* overflow, void* workspace, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, n));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, 1));
  AVATAR_RETURN_IF_BAD(check_capacity(call, capacity));
  AVATAR_REQUIRE(slot_offsets, tile_offsets);
  AVATAR_REQUIRE_IF(n, means2d, conics, opacities, depths, radii);
  AVATAR_REQUIRE_IF(capacity, ids, slots, workspace);
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    const int tiles_x = tiles_along(width), tiles = tiles_x * tiles_along(height);
    const FillWorkspace work(workspace, capacity, tiles);
    AVATAR_RETURN_IF_BAD(launch(call, fill_kernel<T>, blocks_for(n + 1, kThreads), kThreads, on, in<T>(means2d),
                                in<T>(conics), in<T>(opacities), in<T>(depths), radii, n, width, height, tiles_x,
                                tiles, slot_offsets, capacity, work.keys, work.values, work.owners, overflow));
    if (capacity == 0) return clear(call, tile_offsets, (tiles + 1) * int64_t(sizeof(int32_t)), on);
    AVATAR_RETURN_IF_BAD(sort_pairs(call, work.keys, work.sorted_keys, work.values, slots, capacity, key_bits(tiles),
                                    work.sort, work.sort_bytes, on));
    return launch(call, list_kernel, blocks_for(capacity, kThreads), kThreads, on, work.sorted_keys, slots,
                  work.owners, capacity, tiles, tile_offsets, ids);
  });
}

}  // extern "C"
