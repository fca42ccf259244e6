// The radiance network in bfloat16 with sums in float, a tile of samples at a time; see radiance.cpp for the layers.
#include "radiance_bf16.h"

#include "radiance_bf16_layers.h"

namespace avatar {
namespace avx512_bf16 {
namespace {

constexpr int kItem = 16 * kRows;  // samples handed to a thread at a time

}  // namespace

int64_t radiance_mlp_bf16_workspace(int threads, const RadianceSizes& sizes) {
  const Network net(sizes);
  return (net.size() + threads * Tile::size(net)) * static_cast<int64_t>(sizeof(uint32_t));
}

void radiance_mlp_bf16(int threads, const float* features, int64_t n, const RadianceSizes& sizes,
                       const float* parameters, float* densities, float* colors, float* gates, void* workspace) {
  Network net(sizes);
  uint32_t* memory = static_cast<uint32_t*>(workspace);
  net.load(memory, parameters);
  parallel_for(threads, (n + kItem - 1) / kItem, [&](int64_t item, int worker) {
    Tile tile(net, memory + net.size() + worker * Tile::size(net));
    const int64_t end = (item + 1) * kItem < n ? (item + 1) * kItem : n;
    for (int64_t p = item * kItem; p < end; p += kRows) {
      const int count = static_cast<int>(end - p < kRows ? end - p : kRows);
      const float* later = features + (p + 4 * kRows) * sizes.inputs;  // fetched while this one is multiplied
      for (int64_t byte = 0; p + 5 * kRows <= n && byte < kRows * sizes.inputs * int64_t(sizeof(float)); byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(later) + byte);
      tile.load(features + p * sizes.inputs, sizes.inputs, count);
      tile.forward(net);
      tile.store(count, sizes.gates, densities + p, colors + p * kColors, gates + p * sizes.gates);
    }
  });
}

}  // namespace avx512_bf16
}  // namespace avatar
