// A radiance field drawn in one pass: a tile of pixels at a time, its rays side by side from front to back. In each
// round the next samples of all rays that still let light through are looked at together, so that network and tables
// always have whole batches, and no sample behind a surface costs anything. Nothing but the image reaches memory.
#pragma once

#include <algorithm>

#include "avatar_field.h"
#include "triplane_cells.h"
#include "walk_rays.h"

namespace avatar {
namespace AVATAR_ISA {

constexpr int kTileSide = 16;  // pixels
constexpr int kTileRays = kTileSide * kTileSide;
constexpr int kBatch = 192;  // samples of a round, at most: whole blocks of both networks
constexpr int kAtOnce = 4;   // samples of a ray in a round, at most: what lies behind a surface among them is in vain

// The scene in the number type of the call, with divisions done.
template <typename T>
struct Scene {
  RayGrid<T> grid, held;  // held: the part of the box that has cells that are set
  const uint8_t* occupancy;
  int x, y, width, max_samples, front_rows, front_columns, nodes[3], levels, features;
  int64_t rows;
  T darkest, view[12], front_scale[2], rise_per_cm, neck[3], fade_per_cm;
  T moved_low[3], nodes_per_cm[3], middle[3], per_extent[3];
  const T *places, *front, *moved, *table;
  const int32_t* resolutions;

  explicit Scene(const FieldScene& s)
      : grid(s.box, s.cells, s.step), held(s.held, s.cells, s.step), occupancy(s.occupancy),
        x(s.x), y(s.y), width(s.width), max_samples(s.max_samples), front_rows(s.front_rows), front_columns(s.front_columns), levels(s.levels),
        features(s.features), rows(s.rows), darkest(T(s.darkest)), places(static_cast<const T*>(s.places)),
        front(static_cast<const T*>(s.front)), moved(static_cast<const T*>(s.moved)),
        table(static_cast<const T*>(s.table)), resolutions(s.resolutions) {
    for (int i = 0; i < 12; ++i) view[i] = T(s.view[i]);
    const int32_t front_size[2] = {front_columns, front_rows};
    for (int i = 0; i < 2; ++i) front_scale[i] = T(front_size[i] / (s.box[3 + i] - s.box[i]));
    rise_per_cm = T(1 / s.rise);
    for (int i = 0; i < 3; ++i) {
      neck[i] = T(s.neck[i]);
      nodes[i] = s.nodes[i];
      moved_low[i] = T(s.moved_box[i]);
      nodes_per_cm[i] = T((s.nodes[i] - 1) / (s.moved_box[3 + i] - s.moved_box[i]));
      middle[i] = T((s.bounds[i] + s.bounds[3 + i]) / 2);
      per_extent[i] = T(2 / (s.bounds[3 + i] - s.bounds[i]));
    }
    fade_per_cm = T(1 / s.neck[3]);
  }
};

// Where a coordinate lies between nodes: the first of the two (the last but one at most), and the share of the second.
template <typename T>
AVATAR_HD int32_t between(T at, int32_t nodes, T* share) {
  const T inside = at_most(at_least(at, T(0)), T(nodes - 1));
  const int32_t first = static_cast<int32_t>(at_most(inside, T(nodes - 2 < 0 ? 0 : nodes - 2)));
  *share = inside - T(first);
  return first;
}

// The samples of a round: whose ray they are of, where, and what is left of their density there.
template <typename T>
struct Samples {
  int count = 0;
  int16_t ray[kBatch];
  T at[3][kBatch], weight[kBatch];

  // Before the front the field counts for nothing.
  void weigh_by_front(const Scene<T>& s) {
    for (int i = 0; i < count; ++i) {
      T right, below;
      const int32_t x = between((at[0][i] - s.grid.low[0]) * s.front_scale[0] - T(0.5), s.front_columns, &right);
      const int32_t y = between((at[1][i] - s.grid.low[1]) * s.front_scale[1] - T(0.5), s.front_rows, &below);
      const int32_t next = s.front_columns > 1 ? 1 : 0, down = s.front_rows > 1 ? s.front_columns : 0;
      const int32_t here = y * s.front_columns + x;
      const T top = s.front[here] + right * (s.front[here + next] - s.front[here]);
      const T bottom = s.front[here + down] + right * (s.front[here + down + next] - s.front[here + down]);
      weight[i] = at_most(at_least((at[2][i] - top - below * (bottom - top)) * s.rise_per_cm, T(0)), T(1));
    }
  }

  // Take the points to where they are when the face is at rest.
  void bring_to_rest(const Scene<T>& s) {
    const int32_t line = s.nodes[0], plane = s.nodes[0] * s.nodes[1], all = plane * s.nodes[2];
    for (int i = 0; i < count; ++i) {
      T x, y, z;
      const int32_t column = between((at[0][i] - s.moved_low[0]) * s.nodes_per_cm[0], s.nodes[0], &x);
      const int32_t row = between((at[1][i] - s.moved_low[1]) * s.nodes_per_cm[1], s.nodes[1], &y);
      const int32_t layer = between((at[2][i] - s.moved_low[2]) * s.nodes_per_cm[2], s.nodes[2], &z);
      const T* from = s.moved + layer * plane + row * line + column;
      for (int k = 0; k < 3; ++k, from += all) {
        const T a = from[0] + x * (from[1] - from[0]), b = from[line] + x * (from[line + 1] - from[line]);
        const T c = from[plane] + x * (from[plane + 1] - from[plane]);
        const T d = from[plane + line] + x * (from[plane + line + 1] - from[plane + line]);
        const T near = a + y * (b - a), far = c + y * (d - c);
        at[k][i] -= near + z * (far - near);
      }
    }
  }

  // The head fades out at the neck.
  void weigh_by_neck(const Scene<T>& s) {
    for (int i = 0; i < count; ++i) {
      const T behind_chin = at_least(at[2][i] - s.neck[1], T(0));
      const T t = at_most(at_least((at[1][i] - s.neck[0] - s.neck[2] * behind_chin) * s.fade_per_cm, T(0)), T(1));
      weight[i] *= T(1) - t * t * (T(3) - T(2) * t);
    }
  }
};

// The rays of a tile, how far each has been walked, and what it has gathered.
template <typename T>
struct TileRays {
  T direction[3][kTileRays], left[kTileRays], sum[3][kTileRays];
  RaySpan<T> span[kTileRays];
  uint16_t intervals[kTileRays][kStretch];  // of the stretch that is looked at
  int32_t kept[kTileRays], next[kTileRays], walked[kTileRays], room[kTileRays];
  int16_t alive[kTileRays];
  int number = 0, lit = 0;  // rays, and those of them that go on

  // Start the rays of a tile whose first pixel is so far across and down the image.
  void start(const Scene<T>& s, int across, int down, int columns, int rows) {
    number = 0;
    for (int row = down; row < down + rows; ++row)
      for (int column = across; column < across + columns; ++column, ++number) {
        const T* place = s.places == nullptr ? nullptr : s.places + 2 * (int64_t(row) * s.width + column);
        const T px = place == nullptr ? T(s.x + column) + T(0.5) : place[0];
        const T py = place == nullptr ? T(s.y + row) + T(0.5) : place[1];
        T along[3];
        for (int k = 0; k < 3; ++k) along[k] = s.view[3 + 3 * k] * px + s.view[4 + 3 * k] * py + s.view[5 + 3 * k];
        const T scale = T(1) / root(along[0] * along[0] + along[1] * along[1] + along[2] * along[2]);
        for (int k = 0; k < 3; ++k) {
          direction[k][number] = along[k] *= scale;
          sum[k][number] = T(0);
        }
        find_span(s, along);
        left[number] = T(1);
        kept[number] = next[number] = 0;
        room[number] = s.max_samples;
        alive[number] = static_cast<int16_t>(number);
      }
    lit = number;
    go_on(s);
  }

  // Leave out the rays that have ended; the others have a next sample.
  void go_on(const Scene<T>& s) {
    int still = 0;
    for (int i = 0; i < lit; ++i)
      if (!(left[alive[i]] < s.darkest) && has_next(s, alive[i])) alive[still++] = alive[i];
    lit = still;
  }

  // Take the next samples of the rays `from` on that go on, as many as fit; returns the ray that did not fit.
  int take(const Scene<T>& s, int from, Samples<T>* samples) {
    const int each = std::min(std::max(kBatch / lit, 1), kAtOnce);
    int n = 0;
    for (; from < lit && n + each <= kBatch; ++from) {
      const int ray = alive[from], end = std::min(next[ray] + each, kept[ray]);
      for (; next[ray] < end; ++next[ray], ++n) {
        const T distance = interval_start(s.grid, span[ray].first, intervals[ray][next[ray]]) + T(0.5) * s.grid.step;
        samples->ray[n] = static_cast<int16_t>(ray);
        for (int k = 0; k < 3; ++k) samples->at[k][n] = s.view[k] + distance * direction[k][ray];
      }
    }
    samples->count = n;
    return from;
  }

  // What has been evaluated of a ray that has ended is left out: else the image would depend on the tiles.
  void add(const Scene<T>& s, int ray, T opacity, const T* color) {
    if (left[ray] < s.darkest) return;
    const T weight = left[ray] * opacity;
    for (int k = 0; k < 3; ++k) sum[k][ray] += weight * color[k];
    left[ray] -= weight;
  }

 private:
  // The intervals of the last ray; those before and behind what has cells that are set are skipped.
  void find_span(const Scene<T>& s, const T* along) {
    const RaySpan<T> part = ray_span<T>(s.held, s.view, along, nullptr, nullptr);
    RaySpan<T> whole = ray_span<T>(s.grid, s.view, along, nullptr, nullptr);
    if (part.steps == 0) whole.steps = 0;
    const T before = (part.first - whole.first) / s.grid.step, until = (part.leave - whole.first) / s.grid.step + T(1);
    walked[number] = before > T(1) && before < T(whole.steps) ? static_cast<int32_t>(before) - 1 : 0;
    if (until < T(whole.steps)) whole.steps = static_cast<int32_t>(at_least(until, T(0)));
    span[number] = whole;
  }

  bool has_next(const Scene<T>& s, int ray) {
    if (next[ray] < kept[ray]) return true;
    const T along[3] = {direction[0][ray], direction[1][ray], direction[2][ray]};
    next[ray] = kept[ray] = 0;
    for (int& at = walked[ray]; kept[ray] == 0 && at < span[ray].steps && room[ray] > 0; at += kStretch)
      kept[ray] = walk_stretch(s.grid, s.occupancy, s.view, along, span[ray], at, room[ray], intervals[ray]);
    room[ray] -= kept[ray];
    return kept[ray] > 0;
  }
};

// Draws tiles; `Net` evaluates up to kBatch rows of features: run(features, count, densities, colors).
template <typename T, typename Net>
struct TilePainter {
  const Scene<T>& scene;
  Net& net;
  T* features;
  TileRays<T> rays;
  Samples<T> samples;
  Points<T> points;
  Cells<T> cells;
  int32_t which[kBatch];
  T densities[kBatch + Lanes<T>::kCount], colors[3 * kBatch];

  TilePainter(const Scene<T>& of, Net& by, T* rows) : scene(of), net(by), features(rows) {}

  void paint(int across, int down, int columns, int lines, T* image) {
    rays.start(scene, across, down, columns, lines);
    while (rays.lit > 0) {
      for (int from = 0; from < rays.lit;) {
        from = rays.take(scene, from, &samples);
        look();
      }
      rays.go_on(scene);
    }
    for (int i = 0; i < rays.number; ++i) {
      T* pixel = image + (int64_t(down + i / columns) * scene.width + across + i % columns) * 4;
      for (int k = 0; k < 3; ++k) pixel[k] = rays.sum[k][i];
      pixel[3] = T(1) - rays.left[i];
    }
  }

 private:
  // Evaluate the samples that count, and add them to their rays.
  void look() {
    using V = Lanes<T>;
    samples.weigh_by_front(scene);
    samples.bring_to_rest(scene);
    samples.weigh_by_neck(scene);
    int count = 0;
    for (int i = 0; i < samples.count; ++i)
      if (!(samples.weight[i] <= T(0))) {
        which[count] = i;
        for (int k = 0; k < 3; ++k)
          points.axis[k][count] = (samples.at[k][i] - scene.middle[k]) * scene.per_extent[k];
        ++count;
      }
    if (count == 0) return;
    encode(count);
    net.run(features, count, densities, colors);
    for (int i = 0; i < count; ++i) densities[i] *= samples.weight[which[i]] * scene.grid.step;
    for (int i = 0; i < count; i += V::kCount) opacity_of(V::load(densities + i)).store(densities + i);
    for (int i = 0; i < count; ++i) rays.add(scene, samples.ray[which[i]], densities[i], colors + 3 * i);
  }

  void encode(int count) {
    const int64_t width = int64_t(3) * scene.levels * scene.features;
    for (int64_t k = 0; k < 3 * scene.levels; ++k) {
      const Slice slice(k, scene.resolutions, scene.levels, scene.rows);
      cells.find(points, slice, count);
      specialised(scene.features, slice.dense, [&](auto number, auto dense) {
        look_up<T, number(), dense()>(scene.table + k * scene.rows * scene.features, cells, slice, count,
                                      scene.features, width, features + k * scene.features);
      });
    }
  }
};

// make(worker) gives the network of a thread; `memory` holds kBatch rows of features of each.
template <typename T, typename Make>
void draw_tiles(int threads, const FieldScene& field, T* image, T* memory, const Make& make) {
  const Scene<T> scene(field);
  const int across = (field.width + kTileSide - 1) / kTileSide, down = (field.height + kTileSide - 1) / kTileSide;
  parallel_for(threads, int64_t(across) * down, [&](int64_t item, int worker) {
    auto net = make(worker);
    T* features = memory + int64_t(worker) * kBatch * field.network.inputs;
    TilePainter<T, decltype(net)> painter(scene, net, features);
    const int x = static_cast<int>(item % across) * kTileSide, y = static_cast<int>(item / across) * kTileSide;
    painter.paint(x, y, std::min(kTileSide, field.width - x), std::min(kTileSide, field.height - y), image);
  });
}

}  // namespace AVATAR_ISA
}  // namespace avatar
