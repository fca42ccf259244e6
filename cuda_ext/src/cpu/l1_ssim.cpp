// The picture loss of training in one sweep: weighted L1 and structural similarity, with the gradient by the picture.
//
// A strip of rows is one work item. Going down it, each new row of local moments gives a row of partial derivatives of
// the similarity, kept in a ring of eleven rows; the gradient of the row five further up then has all that it needs.
// Nothing of picture size is stored but the gradient itself. Strips overlap by five rows at either end.
#include "window.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kStrip = 64;    // rows; fixed, so that results do not depend on the number of threads
constexpr int kMoments = 4;   // E a, E b, E (aa + bb), E ab
constexpr int kPartials = 3;  // derivatives by E a, E aa, E ab

// Memory of one worker: lines with margins, a ring of rows of each partial, the weights of a row, and rows of zeros.
template <typename T>
struct Scratch {
  T *lines, *ring, *weights, *zeros;

  static int64_t size(const Lines& lines) { return (kMoments + kPartials * (kTaps + 1) + 1) * lines.stride; }

  Scratch(T* memory, const Lines& layout) {
    for (int64_t i = 0; i < size(layout); ++i) memory[i] = T(0);
    lines = memory;
    ring = lines + kMoments * layout.stride;
    weights = ring + kPartials * kTaps * layout.stride;
    zeros = weights + layout.stride;
  }
};

template <typename T>
struct PictureLoss {
  const T *image, *target, *weight;
  double ssim_weight;
  int height, width, channels;
  T* v_image;
  double* row_sums;  // [height, 3]: weighted L1, similarity, squared error

  int64_t row_size;
  Lines layout;
  Window<T> window;

  void moments(int y, Scratch<T>& work, bool count) const {
    using V = Lanes<T>;
    const T *a[kTaps], *b[kTaps];
    for (int k = 0; k < kTaps; ++k) {
      const int row = y + k - kRadius;
      const bool inside = row >= 0 && row < height;
      a[k] = inside ? image + row * row_size : work.zeros;
      b[k] = inside ? target + row * row_size : work.zeros;
    }
    for (int64_t i = 0; i < row_size; i += V::kCount) {
      const int64_t left = row_size - i;
      const V ca = load_part(a[kRadius] + i, left), cb = load_part(b[kRadius] + i, left), middle = window.tap[kRadius];
      V m[kMoments] = {ca * middle, cb * middle, (ca * ca + cb * cb) * middle, ca * cb * middle};
      for (int k = 0; k < kRadius; ++k) {
        const int mirrored = kTaps - 1 - k;
        const V a0 = load_part(a[k] + i, left), a1 = load_part(a[mirrored] + i, left);
        const V b0 = load_part(b[k] + i, left), b1 = load_part(b[mirrored] + i, left), tap = window.tap[k];
        m[0] = m[0] + (a0 + a1) * tap;
        m[1] = m[1] + (b0 + b1) * tap;
        m[2] = m[2] + (a0 * a0 + a1 * a1 + b0 * b0 + b1 * b1) * tap;
        m[3] = m[3] + (a0 * b0 + a1 * b1) * tap;
      }
      // The tail writes zeros into the right margin, which has room for one vector.
      for (int q = 0; q < kMoments; ++q) m[q].store(work.lines + q * layout.stride + layout.margin + i);
    }
    T* partials = work.ring + y % kTaps * kPartials * layout.stride;
    V similarity(0.0);
    for (int64_t i = 0; i < row_size; i += V::kCount) {
      V m[kMoments];
      for (int q = 0; q < kMoments; ++q) m[q] = window.along(work.lines + q * layout.stride + i, channels);
      const LocalSimilarity<V> local(m[0], m[1], m[2], m[3]);
      const V inside = load_part(local_ones<T>(), row_size - i);
      similarity = similarity + local.value * inside;
      if (v_image == nullptr) continue;
      V out[kPartials];
      local.partials(local.mu_a, local.mu_b, out);
      for (int q = 0; q < kPartials; ++q) (out[q] * inside).store(partials + q * layout.stride + i);
    }
    if (count) row_sums[3 * y + 1] = lane_sum(similarity);
  }

  template <typename S>
  static const S* local_ones() {
    static const S ones[kWidest] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    return ones;
  }

  // L1, squared error and the gradient of one row.
  void finish(int y, Scratch<T>& work) const {
    using V = Lanes<T>;
    const int64_t start = y * row_size;
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c) work.weights[x * channels + c] = weight ? weight[int64_t(y) * width + x] : T(1);
    const T* rows[kTaps];
    for (int k = 0; k < kTaps; ++k) {
      const int row = y + k - kRadius;
      rows[k] = row >= 0 && row < height ? work.ring + row % kTaps * kPartials * layout.stride : work.zeros;
    }
    const double elements = static_cast<double>(height) * static_cast<double>(row_size);
    const V zero(0.0), two(2.0), gain(-ssim_weight / elements), absolute((1.0 - ssim_weight) / elements);
    if (v_image != nullptr)
      for (int64_t i = 0; i < row_size; i += V::kCount)
        for (int q = 0; q < kPartials; ++q) {
          const int64_t at = q * layout.stride + i;
          V sum = V::load(rows[kRadius] + at) * window.tap[kRadius];
          for (int k = 0; k < kRadius; ++k)
            sum = sum + (V::load(rows[k] + at) + V::load(rows[kTaps - 1 - k] + at)) * window.tap[k];
          sum.store(work.lines + q * layout.stride + layout.margin + i);
        }
    V l1(0.0), square(0.0);
    for (int64_t i = 0; i < row_size; i += V::kCount) {
      const int64_t left = row_size - i;
      const V a = load_part(image + start + i, left), b = load_part(target + start + i, left);
      const V w = load_part(work.weights + i, left), difference = a - b;
      const V sign = select(difference > zero, V(1.0), select(difference < zero, V(-1.0), zero));
      l1 = l1 + difference * sign * w;
      square = square + difference * difference;
      if (v_image == nullptr) continue;
      V m[kPartials];
      for (int q = 0; q < kPartials; ++q) m[q] = window.along(work.lines + q * layout.stride + i, channels);
      store_part(gain * (m[0] + two * a * m[1] + b * m[2]) + absolute * sign * w, v_image + start + i, left);
    }
    row_sums[3 * y] = lane_sum(l1);
    row_sums[3 * y + 2] = lane_sum(square);
  }

  void strip(int first, Scratch<T>& work) const {
    const int end = first + kStrip < height ? first + kStrip : height;
    const int halo = v_image == nullptr ? 0 : kRadius;
    for (int y = first - halo; y < end + halo; ++y) {
      if (y >= 0 && y < height) moments(y, work, y >= first && y < end);
      if (y - halo >= first) finish(y - halo, work);
    }
  }
};

}  // namespace

template <typename T>
int64_t l1_ssim_workspace(int threads, int height, int width, int channels) {
  return 3 * height * int64_t(sizeof(double)) + threads * Scratch<T>::size(Lines(width, channels)) * int64_t(sizeof(T));
}

template <typename T>
void l1_ssim(int threads, const T* image, const T* target, const T* weight, double ssim_weight, int height, int width,
             int channels, T* terms, T* v_image, void* workspace) {
  double* row_sums = static_cast<double*>(workspace);
  T* memory = reinterpret_cast<T*>(row_sums + 3 * height);
  const PictureLoss<T> loss = {image,   target,   weight,  ssim_weight, height,
                               width,   channels, v_image, row_sums,    int64_t(width) * channels,
                               Lines(width, channels), Window<T>()};
  parallel_for(threads, (height + kStrip - 1) / kStrip, [&](int64_t item, int worker) {
    Scratch<T> work(memory + worker * Scratch<T>::size(loss.layout), loss.layout);
    loss.strip(static_cast<int>(item) * kStrip, work);
  });
  double total[3] = {};
  for (int y = 0; y < height; ++y)
    for (int k = 0; k < 3; ++k) total[k] += row_sums[3 * y + k];
  const double elements = static_cast<double>(height) * width * channels;
  for (int k = 0; k < 3; ++k) terms[1 + k] = T(total[k] / elements);
  terms[0] = T((1.0 - ssim_weight) * total[0] / elements + ssim_weight * (1.0 - total[1] / elements));
}

#define INSTANTIATE(T)                                                                                              \
  template int64_t l1_ssim_workspace<T>(int, int, int, int);                                                        \
  template void l1_ssim<T>(int, const T*, const T*, const T*, double, int, int, int, T*, T*, void*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace AVATAR_ISA
}  // namespace avatar
