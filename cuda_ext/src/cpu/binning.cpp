// Tile lists: which Gaussians can be seen in which 16x16 tile, front to back.
//
// All visible Gaussians are sorted by depth once (radix sort, stable), then dealt into the tiles in that order (counting
// sort), so every tile list comes out sorted. Several threads deal chunks of the sorted order, each with its own
// counters; the lists are the same for any number of chunks.
//
// Which tiles a Gaussian belongs to is in avatar_tiles.h.
#include "tile_lanes.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kChunks = 8;  // at most
constexpr int kDigitBits = 11;
constexpr int kDigits = 1 << kDigitBits;
constexpr int64_t kBlock = 512;
constexpr int64_t kAhead = 16;  // Gaussians; far enough for memory to answer, near enough to stay in the first cache

template <typename T>
struct DepthKey;
template <>
struct DepthKey<float> {
  typedef uint32_t Bits;
};
template <>
struct DepthKey<double> {
  typedef uint64_t Bits;
};

// Bits that order like the number itself, negative ones included; NaN comes last.
template <typename T>
typename DepthKey<T>::Bits depth_key(T depth) {
  typename DepthKey<T>::Bits bits;
  __builtin_memcpy(&bits, &depth, sizeof(bits));
  const typename DepthKey<T>::Bits sign = typename DepthKey<T>::Bits(1) << (8 * sizeof(bits) - 1);
  if (depth != depth) return ~typename DepthKey<T>::Bits(0);
  return bits & sign ? ~bits : bits | sign;
}

// Neither of these two is inlined: what is counted has to be what is dealt, and each inlined copy may be rounded in its
// own way (multiplications and additions are fused), which can move an edge into the next tile.
template <typename T>
__attribute__((noinline)) TileEllipse ellipse_at(const T* means2d, const T* conics, const T* opacities, int64_t g,
                                                 int width, int height) {
  return tile_ellipse(means2d[2 * g], means2d[2 * g + 1], conics[3 * g], conics[3 * g + 1], conics[3 * g + 2],
                      opacities[g], width, height);
}
__attribute__((noinline)) bool columns_at(const TileEllipse& e, int row, int width, int* first, int* last) {
  return tile_columns(e, row, width, first, last);
}

// The tiles of one Gaussian: a range of columns for each row of tiles from first_row on. Gaussians with more rows than
// fit are marked by rows = kTooMany; their tiles are found one Gaussian at a time, wherever they are needed.
struct Spans {
  static constexpr int kCapacity = 6, kTooMany = -1;
  int16_t first_row, rows;
  int16_t first[kCapacity], last[kCapacity];
};

// function(tile) for every tile of a Gaussian, row-major. `ellipse()` is called when the spans do not hold them all.
template <typename MakeEllipse, typename Function>
AVATAR_HD void for_each_tile(const Spans& spans, const MakeEllipse& ellipse, int width, int tiles_x,
                             const Function& function) {
  if (spans.rows != Spans::kTooMany) {
    for (int i = 0; i < spans.rows; ++i) {
      const int row_start = (spans.first_row + i) * tiles_x;
      for (int column = spans.first[i]; column <= spans.last[i]; ++column) function(row_start + column);
    }
    return;
  }
  const TileEllipse e = ellipse();
  for (int row = e.first_row; row <= e.last_row; ++row) {
    int first, last;
    if (!columns_at(e, row, width, &first, &last)) continue;
    for (int column = first; column <= last; ++column) function(row * tiles_x + column);
  }
}

// The register of Gaussians from `first` on: their spans, the number of tiles of each, and their limits.
template <typename T>
void count_tiles(const T* means2d, const T* conics, const T* opacities, const int32_t* radii, int64_t first,
                 int64_t end, int width, int height, Spans* spans, int32_t* counts, T* limits) {
  constexpr int kCount = DoubleLanes::kCount;
  double x[kCount], y[kCount], a[kCount], b[kCount], c[kCount], limit[kCount];
  for (int lane = 0; lane < kCount; ++lane) {
    const int64_t g = first + lane < end ? first + lane : end - 1;
    x[lane] = means2d[2 * g];
    y[lane] = means2d[2 * g + 1];
    a[lane] = conics[3 * g];
    b[lane] = conics[3 * g + 1];
    c[lane] = conics[3 * g + 2];
    limit[lane] = radii[g] > 0 ? limit_of_opacity(double(opacities[g])) : 0.0;
  }
  typedef DoubleLanes V;
  const TileEllipses e = tile_ellipses(V::load(x), V::load(y), V::load(a), V::load(b), V::load(c), V::load(limit),
                                       width, height);
  double first_row[kCount], last_row[kCount];
  e.first_row.store(first_row);
  e.last_row.store(last_row);
  e.limit.store(limit);
  int32_t count[kCount] = {};
  int most = 0;
  for (int lane = 0; lane < kCount; ++lane) {
    const int rows = static_cast<int>(last_row[lane] - first_row[lane]) + 1;
    most = rows > most ? rows : most;
    if (first + lane >= end) continue;
    Spans& own = spans[first + lane];
    own.first_row = static_cast<int16_t>(first_row[lane]);
    own.rows = static_cast<int16_t>(rows <= Spans::kCapacity ? rows : Spans::kTooMany);
  }
  for (int i = 0; i < most && i < Spans::kCapacity; ++i) {
    V from, to;
    tile_columns(e, i, width, &from, &to);
    double first_column[kCount], last_column[kCount];
    from.store(first_column);
    to.store(last_column);
    for (int lane = 0; lane < kCount; ++lane) {
      count[lane] += static_cast<int32_t>(last_column[lane] - first_column[lane]) + 1;
      if (first + lane >= end) continue;
      spans[first + lane].first[i] = static_cast<int16_t>(first_column[lane]);
      spans[first + lane].last[i] = static_cast<int16_t>(last_column[lane]);
    }
  }
  for (int lane = 0; lane < kCount && first + lane < end; ++lane) {
    const int64_t g = first + lane;
    if (spans[g].rows == Spans::kTooMany) {  // the register rounds otherwise than the deal of such a Gaussian
      const auto ellipse = [&]() { return ellipse_at(means2d, conics, opacities, g, width, height); };
      count[lane] = 0;
      for_each_tile(spans[g], ellipse, width, (width + kTile - 1) / kTile, [&](int) { ++count[lane]; });
    }
    counts[g] = count[lane];
    limits[g] = T(limit[lane]);
  }
}

template <typename T>
struct Workspace {
  typedef typename DepthKey<T>::Bits Key;
  int64_t* visible;           // [1]
  int64_t* chunks;            // [1], that the deal is cut into
  Key *keys, *keys_to;        // [n]
  int32_t *order, *order_to;  // [n], Gaussians by depth
  Spans* spans;               // [n]
  int32_t* counters;          // [kChunks, tiles]

  Workspace(void* memory, int64_t n) {
    visible = static_cast<int64_t*>(memory);
    chunks = visible + 1;
    keys = reinterpret_cast<Key*>(chunks + 1);
    keys_to = keys + n;
    order = reinterpret_cast<int32_t*>(keys_to + n);
    order_to = order + n;
    spans = reinterpret_cast<Spans*>(order_to + n);
    counters = reinterpret_cast<int32_t*>(spans + n);
  }
};

// Fetch what the deal will read about a later Gaussian: sorted by depth, their addresses jump, and each read would wait.
template <typename T>
AVATAR_HD void prefetch_ahead(const Workspace<T>& work, int64_t i, int64_t end) {
  __builtin_prefetch(&work.spans[work.order[i + kAhead < end ? i + kAhead : end - 1]]);
}

template <typename T>
void sort_by_depth(Workspace<T>& work) {
  typedef typename DepthKey<T>::Bits Key;
  const int64_t n = *work.visible;
  Key *keys = work.keys, *keys_to = work.keys_to;
  int32_t *order = work.order, *order_to = work.order_to;
  for (unsigned shift = 0; shift < 8 * sizeof(Key); shift += kDigitBits) {
    int32_t start[kDigits] = {};
    for (int64_t i = 0; i < n; ++i) ++start[keys[i] >> shift & (kDigits - 1)];
    int32_t sum = 0;
    bool one_digit = false;
    for (int32_t& count : start) {
      one_digit = one_digit || count == n;
      const int32_t here = count;
      count = sum;
      sum += here;
    }
    if (one_digit) continue;
    for (int64_t i = 0; i < n; ++i) {
      const int32_t to = start[keys[i] >> shift & (kDigits - 1)]++;
      keys_to[to] = keys[i];
      order_to[to] = order[i];
    }
    Key* spare_keys = keys;
    keys = keys_to;
    keys_to = spare_keys;
    int32_t* spare_order = order;
    order = order_to;
    order_to = spare_order;
  }
  if (order != work.order)
    for (int64_t i = 0; i < n; ++i) work.order[i] = order[i];
}

}  // namespace

template <typename T>
int64_t bin_workspace(int64_t n, int width, int height) {
  const int64_t tiles = int64_t((width + kTile - 1) / kTile) * ((height + kTile - 1) / kTile);
  return 16 + n * (2 * int64_t(sizeof(typename DepthKey<T>::Bits) + sizeof(int32_t)) + int64_t(sizeof(Spans))) +
         kChunks * tiles * int64_t(sizeof(int32_t));
}

template <typename T>
void bin_count(int threads, const T* means2d, const T* conics, const T* opacities, const T* depths,
               const int32_t* radii, int64_t n, int width, int height, int32_t* slot_offsets, int32_t* tile_offsets,
               int64_t* num_pairs, T* limits, void* workspace) {
  const int tiles_x = (width + kTile - 1) / kTile, tiles_y = (height + kTile - 1) / kTile;
  const int64_t tiles = int64_t(tiles_x) * tiles_y;
  Workspace<T> work(workspace, n);

  parallel_blocks(threads, n, kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += DoubleLanes::kCount)
      count_tiles(means2d, conics, opacities, radii, first, end, width, height, work.spans, slot_offsets + 1, limits);
  });

  slot_offsets[0] = 0;
  int64_t total = 0;
  *work.visible = 0;
  for (int64_t g = 0; g < n; ++g) {
    const int32_t count = slot_offsets[g + 1];
    total += count;
    if (total > INT32_MAX) break;
    slot_offsets[g + 1] = static_cast<int32_t>(total);
    if (count == 0) continue;
    work.keys[*work.visible] = depth_key(depths[g]);
    work.order[(*work.visible)++] = static_cast<int32_t>(g);
  }
  *num_pairs = total;
  if (total > INT32_MAX) return;
  sort_by_depth(work);

  const int64_t visible = *work.visible;
  const int64_t chunks = *work.chunks = threads > 1 ? kChunks : 1;
  parallel_for(threads, chunks, [&](int64_t chunk, int) {
    int32_t* counter = work.counters + chunk * tiles;
    for (int64_t tile = 0; tile < tiles; ++tile) counter[tile] = 0;
    const auto count = [&](int64_t g) {
      const auto ellipse = [&]() { return ellipse_at(means2d, conics, opacities, g, width, height); };
      for_each_tile(work.spans[g], ellipse, width, tiles_x, [&](int tile) { ++counter[tile]; });
    };
    if (chunks == 1) {  // in the order of memory
      for (int64_t g = 0; g < n; ++g)
        if (slot_offsets[g + 1] != slot_offsets[g]) count(g);
      return;
    }
    const int64_t begin = visible * chunk / chunks, end = visible * (chunk + 1) / chunks;
    for (int64_t i = begin; i < end; ++i) {
      prefetch_ahead(work, i, end);
      count(work.order[i]);
    }
  });
  int32_t place = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    tile_offsets[tile] = place;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      int32_t& counter = work.counters[chunk * tiles + tile];
      const int32_t count = counter;
      counter = place;
      place += count;
    }
  }
  tile_offsets[tiles] = place;
  if (place != total) *num_pairs = -1;  // bin_fill would write past the arrays that the caller makes for `total`
}

template <typename T>
void bin_fill(int threads, const T* means2d, const T* conics, const T* opacities, int64_t n, int width, int height,
              const int32_t* slot_offsets, int32_t* ids, int32_t* slots, void* workspace) {
  const int tiles_x = (width + kTile - 1) / kTile, tiles_y = (height + kTile - 1) / kTile;
  const int64_t tiles = int64_t(tiles_x) * tiles_y;
  Workspace<T> work(workspace, n);
  const int64_t visible = *work.visible;
  const int64_t chunks = *work.chunks;
  parallel_for(threads, chunks, [&](int64_t chunk, int) {
    int32_t* counter = work.counters + chunk * tiles;
    const int64_t begin = visible * chunk / chunks, end = visible * (chunk + 1) / chunks;
    for (int64_t i = begin; i < end; ++i) {
      prefetch_ahead(work, i, end);
      const int32_t g = work.order[i];
      int32_t slot = slot_offsets[g];
      const auto ellipse = [&]() { return ellipse_at(means2d, conics, opacities, g, width, height); };
      for_each_tile(work.spans[g], ellipse, width, tiles_x, [&](int tile) {
        const int32_t place = counter[tile]++;
        ids[place] = g;
        if (slots != nullptr) slots[place] = slot++;
      });
    }
  });
}

#define INSTANTIATE(T)                                                                                                \
  template int64_t bin_workspace<T>(int64_t, int, int);                                                               \
  template void bin_count<T>(int, const T*, const T*, const T*, const T*, const int32_t*, int64_t, int, int,          \
                             int32_t*, int32_t*, int64_t*, T*, void*);                                                \
  template void bin_fill<T>(int, const T*, const T*, const T*, int64_t, int, int, const int32_t*, int32_t*, int32_t*, \
                            void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
