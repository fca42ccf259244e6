// A radiance field drawn in one pass with its network in bfloat16; see draw_field.h.
#include "draw_field_bf16.h"

#include "draw_field.h"
#include "radiance_bf16_layers.h"

namespace avatar {
namespace avx512_bf16 {
namespace {

// The network of one thread.
struct Evaluator {
  const Network& net;
  Tile tile;

  void run(const float* features, int count, float* densities, float* colors) {
    const int inputs = net.sizes.inputs;
    for (int p = 0; p < count; p += kRows) {
      const int some = std::min(count - p, kRows);
      tile.load(features + int64_t(p) * inputs, inputs, some);
      tile.forward(net);
      tile.store(some, 0, densities + p, colors + kColors * p, nullptr);
    }
  }
};

}  // namespace

int64_t draw_field_bf16_workspace(int threads, const RadianceSizes& sizes) {
  const Network net(sizes);
  const int64_t each = Tile::size(net) + int64_t(kBatch) * sizes.inputs;
  return (net.size() + threads * each) * static_cast<int64_t>(sizeof(uint32_t));
}

void draw_field_bf16(int threads, const FieldScene& field, float* image, void* workspace) {
  Network net(field.network);
  uint32_t* memory = static_cast<uint32_t*>(workspace);
  net.load(memory, static_cast<const float*>(field.parameters));
  uint32_t* tiles = memory + net.size();
  const int64_t size = Tile::size(net);
  draw_tiles(threads, field, image, reinterpret_cast<float*>(tiles + threads * size),
             [&](int worker) { return Evaluator{net, Tile(net, tiles + worker * size)}; });
}

}  // namespace avx512_bf16
}  // namespace avatar
