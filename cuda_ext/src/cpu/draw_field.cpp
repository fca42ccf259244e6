// A radiance field drawn in one pass, with the network in the number type of the call; see draw_field.h.
#include "draw_field.h"

#include "radiance_layers.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

// The network of one thread.
template <typename T>
struct Evaluator {
  Block<T> block;
  int inputs;

  void run(const T* features, int count, T* densities, T* colors) {
    for (int p = 0; p < count; p += kSamples) {
      const int some = std::min(count - p, kSamples);
      block.forward(features + int64_t(p) * inputs, some, 0);
      block.store(some, densities + p, colors + kColors * p, nullptr);
    }
  }
};

}  // namespace

template <typename T>
int64_t draw_field_workspace(int threads, const RadianceSizes& sizes) {
  const Network<T> n(sizes);
  const int64_t each = Block<T>::size(n) + int64_t(kBatch) * sizes.inputs;
  return (n.size() + threads * each) * static_cast<int64_t>(sizeof(T));
}

template <typename T>
void draw_field(int threads, const FieldScene& field, T* image, void* workspace) {
  Network<T> net(field.network);
  T* memory = static_cast<T*>(workspace);
  net.load(field.network, static_cast<const T*>(field.parameters), memory);
  T* blocks = memory + net.size();
  const int64_t size = Block<T>::size(net);
  draw_tiles(threads, field, image, blocks + threads * size, [&](int worker) {
    return Evaluator<T>{Block<T>(net, blocks + worker * size), field.network.inputs};
  });
}

#define INSTANTIATE(T)                                                         \
  template int64_t draw_field_workspace<T>(int, const RadianceSizes&);         \
  template void draw_field<T>(int, const FieldScene&, T*, void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
