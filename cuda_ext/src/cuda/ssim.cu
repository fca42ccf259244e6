// Structural similarity (Wang et al. 2004), alone and in the picture loss with L1: 11x11 Gaussian window of sigma 1.5,
// zero padding, data range 1.
//
// One block per 16x16 pixels of one channel: the pixels and a margin of 5 go to shared memory, are filtered along rows
// and then, per pixel, along the column.
#include <cmath>

#include "device.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kSide = 16, kThreads = kSide * kSide;
constexpr int kRadius = 5, kTaps = 2 * kRadius + 1, kPadded = kSide + 2 * kRadius;
constexpr int kFinishThreads = 256;
constexpr int kSums = 3;  // of similarity, of weight * |a - b|, of (a - b)^2

template <typename T>
struct Window {
  T tap[kTaps];
};

template <typename T>
Window<T> gaussian_window() {
  double tap[kTaps], sum = 0.0;
  for (int k = 0; k < kTaps; ++k) sum += tap[k] = ::exp(-(k - kRadius) * (k - kRadius) / (2.0 * 1.5 * 1.5));
  Window<T> window;
  for (int k = 0; k < kTaps; ++k) window.tap[k] = T(tap[k] / sum);
  return window;
}

struct Picture {
  int height, width, channels;
};

// Where this block is.
struct Place {
  int left, top, channel, x, y;  // first pixel of the block, channel, this thread's pixel
  bool inside;

  __device__ __forceinline__ explicit Place(const Picture& picture) {
    left = static_cast<int>(blockIdx.x) * kSide;
    top = static_cast<int>(blockIdx.y) * kSide;
    channel = static_cast<int>(blockIdx.z);
    x = left + static_cast<int>(threadIdx.x) % kSide;
    y = top + static_cast<int>(threadIdx.x) / kSide;
    inside = x < picture.width && y < picture.height;
  }
  __device__ __forceinline__ int64_t pixel(const Picture& picture) const { return int64_t(y) * picture.width + x; }
  __device__ __forceinline__ int64_t index(const Picture& picture) const {
    return pixel(picture) * picture.channels + channel;
  }
};

// The block's pixels of one channel with the margin around them, zero outside the picture.
template <typename T>
__device__ __forceinline__ void load_padded(const T* from, const Picture& picture, const Place& place,
                                            T (&to)[kPadded][kPadded]) {
  for (int i = static_cast<int>(threadIdx.x); i < kPadded * kPadded; i += kThreads) {
    const int x = place.left + i % kPadded - kRadius, y = place.top + i / kPadded - kRadius;
    const bool inside = x >= 0 && y >= 0 && x < picture.width && y < picture.height;
    to[i / kPadded][i % kPadded] =
        inside ? from[(int64_t(y) * picture.width + x) * picture.channels + place.channel] : T(0);
  }
}

// Derivatives of the local SSIM by E a, E aa and E ab.
template <typename T>
__device__ __forceinline__ void local_partials(T mu_a, T mu_b, T similarity, T top_mu, T top_product, T bottom_mu,
                                               T bottom_var, T out[3]) {
  const T inverse = T(1) / (bottom_mu * bottom_var);
  const T by_square = T(0) - similarity / bottom_var;
  const T by_product = T(2) * top_mu * inverse;
  out[0] = T(2) * mu_b * top_product * inverse - T(2) * mu_a * similarity / bottom_mu - T(2) * mu_a * by_square -
           mu_b * by_product;
  out[1] = by_square;
  out[2] = by_product;
}

// sums [kSums, blocks], over the block's pixels. `weight` [height, width] may be null: 1.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    ssim_kernel(const T* a, const T* b, const T* weight, Picture picture, Window<T> window, T* partials, T* partials_b,
                double* sums) {
  __shared__ T padded_a[kPadded][kPadded], padded_b[kPadded][kPadded];
  __shared__ T along[5][kPadded][kSide];  // E a, E b, E aa, E bb, E ab along rows
  __shared__ double warp_sums[kSums][kThreads / kWarp];
  start_as_nan(padded_a);
  start_as_nan(padded_b);
  start_as_nan(along);
  start_as_nan(warp_sums);
  const Place place(picture);
  load_padded(a, picture, place, padded_a);
  load_padded(b, picture, place, padded_b);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kPadded * kSide; i += kThreads) {
    const int row = i / kSide, column = i % kSide;
    T m[5] = {T(0), T(0), T(0), T(0), T(0)};
    AVATAR_UNROLL
    for (int k = 0; k < kTaps; ++k) {
      const T va = padded_a[row][column + k], vb = padded_b[row][column + k];
      const T wa = va * window.tap[k], wb = vb * window.tap[k];
      m[0] += wa;
      m[1] += wb;
      m[2] += wa * va;
      m[3] += wb * vb;
      m[4] += wa * vb;
    }
    AVATAR_UNROLL
    for (int q = 0; q < 5; ++q) along[q][row][column] = m[q];
  }
  __syncthreads();

  const int row = static_cast<int>(threadIdx.x) / kSide, column = static_cast<int>(threadIdx.x) % kSide;
  T m[5] = {T(0), T(0), T(0), T(0), T(0)};
  AVATAR_UNROLL
  for (int k = 0; k < kTaps; ++k)
    AVATAR_UNROLL
    for (int q = 0; q < 5; ++q) m[q] += along[q][row + k][column] * window.tap[k];
  const T mu_ab = m[0] * m[1], mu_aa = m[0] * m[0], mu_bb = m[1] * m[1];
  const T c1 = T(0.01 * 0.01), c2 = T(0.03 * 0.03);
  const T top_mu = T(2) * mu_ab + c1, top_product = T(2) * (m[4] - mu_ab) + c2;
  const T bottom_mu = mu_aa + mu_bb + c1, bottom_var = (m[2] - mu_aa) + (m[3] - mu_bb) + c2;
  const T similarity = top_mu * top_product / (bottom_mu * bottom_var);
  const T difference = padded_a[row + kRadius][column + kRadius] - padded_b[row + kRadius][column + kRadius];

  if (place.inside) {
    const int64_t at = place.index(picture), plane = int64_t(picture.height) * picture.width * picture.channels;
    T local[3];
    if (partials != nullptr) {
      local_partials(m[0], m[1], similarity, top_mu, top_product, bottom_mu, bottom_var, local);
      for (int q = 0; q < 3; ++q) partials[q * plane + at] = local[q];
    }
    if (partials_b != nullptr) {
      local_partials(m[1], m[0], similarity, top_mu, top_product, bottom_mu, bottom_var, local);
      for (int q = 0; q < 3; ++q) partials_b[q * plane + at] = local[q];
    }
  }

  const double by_weight = place.inside && weight != nullptr ? weight[place.pixel(picture)] : 1.0;
  const double own[kSums] = {similarity, by_weight * ::fabs(difference), double(difference) * difference};
  AVATAR_UNROLL
  for (int q = 0; q < kSums; ++q) {
    const double sum = warp_sum(place.inside ? own[q] : 0.0);
    if (threadIdx.x % kWarp == 0) warp_sums[q][threadIdx.x / kWarp] = sum;
  }
  __syncthreads();
  if (threadIdx.x < kSums) {
    double sum = 0.0;
    for (int w = 0; w < kThreads / kWarp; ++w) sum += warp_sums[threadIdx.x][w];
    const int64_t blocks = int64_t(gridDim.x) * gridDim.y * gridDim.z;
    const int64_t block = (int64_t(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    sums[threadIdx.x * blocks + block] = sum;
  }
}

// One block: adds up the sums. `mean` is the mean similarity, `terms` are those of avatar_cuda_l1_ssim; one is null.
template <typename T>
__global__ void __launch_bounds__(kFinishThreads)
    finish_kernel(const double* sums, int64_t blocks, double count, double ssim_weight, T* mean, T* terms) {
  __shared__ double warp_sums[kSums][kFinishThreads / kWarp];
  start_as_nan(warp_sums);
  for (int q = 0; q < kSums; ++q) {
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < blocks; i += kFinishThreads) sum += sums[q * blocks + i];
    sum = warp_sum(sum);
    if (threadIdx.x % kWarp == 0) warp_sums[q][threadIdx.x / kWarp] = sum;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  double average[kSums];
  for (int q = 0; q < kSums; ++q) {
    double sum = 0.0;
    for (int w = 0; w < kFinishThreads / kWarp; ++w) sum += warp_sums[q][w];
    average[q] = sum / count;
  }
  if (mean != nullptr) *mean = T(average[0]);
  if (terms == nullptr) return;
  terms[0] = T((1.0 - ssim_weight) * average[1] + ssim_weight * (1.0 - average[0]));
  terms[1] = T(average[1]);
  terms[2] = T(average[0]);
  terms[3] = T(average[2]);
}

// v_a = *cotangent * (by_similarity * d sum of SSIM / d a + by_difference * d sum of weight |a - b| / d a); cotangent
// and weight may be null: 1.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    ssim_backward_kernel(const T* a, const T* b, const T* weight, const T* partials, const T* cotangent,
                         T by_similarity, T by_difference, Picture picture, Window<T> window, T* v_a) {
  __shared__ T padded[kPadded][kPadded];
  __shared__ T along[kPadded][kSide];
  start_as_nan(padded);
  start_as_nan(along);
  const Place place(picture);
  const int row = static_cast<int>(threadIdx.x) / kSide, column = static_cast<int>(threadIdx.x) % kSide;
  const int64_t plane = int64_t(picture.height) * picture.width * picture.channels;
  T m[3];
  for (int q = 0; q < 3; ++q) {
    load_padded(partials + q * plane, picture, place, padded);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kPadded * kSide; i += kThreads) {
      T sum = T(0);
      AVATAR_UNROLL
      for (int k = 0; k < kTaps; ++k) sum += padded[i / kSide][i % kSide + k] * window.tap[k];
      along[i / kSide][i % kSide] = sum;
    }
    __syncthreads();
    T sum = T(0);
    AVATAR_UNROLL
    for (int k = 0; k < kTaps; ++k) sum += along[row + k][column] * window.tap[k];
    m[q] = sum;  // the next round writes `along` only after another barrier
  }
  if (!place.inside) return;
  const int64_t at = place.index(picture);
  const T difference = a[at] - b[at];
  T slope = difference > T(0) ? by_difference : (difference < T(0) ? -by_difference : T(0));
  if (weight != nullptr) slope *= weight[place.pixel(picture)];
  const T v = by_similarity * (m[0] + T(2) * a[at] * m[1] + b[at] * m[2]) + slope;
  v_a[at] = cotangent != nullptr ? *cotangent * v : v;
}

dim3 grid_of(const Picture& picture) {
  return dim3(blocks_for(picture.width, kSide), blocks_for(picture.height, kSide),
              static_cast<unsigned>(picture.channels));
}

int64_t block_count(const Picture& picture) {
  const dim3 grid = grid_of(picture);
  return int64_t(grid.x) * grid.y * grid.z;
}

struct Workspace {
  double* sums;
  void* partials;
  int64_t bytes;

  // `element`: size of a number of the partials, 0 without them.
  Workspace(void* memory, const Picture& picture, int64_t element) {
    Carver carver(memory);
    sums = carver.take<double>(kSums * block_count(picture));
    partials = carver.take<char>(3 * element * picture.height * picture.width * picture.channels);
    bytes = carver.used;
  }
};

double numbers(const Picture& picture) { return double(picture.height) * picture.width * picture.channels; }

template <typename T>
int32_t forward(avatar_call* call, const void* a, const void* b, const void* weight, const Picture& picture,
                double ssim_weight, void* mean, void* terms, void* partials, void* partials_b, double* sums,
                cudaStream_t on) {
  AVATAR_RETURN_IF_BAD(launch(call, ssim_kernel<T>, grid_of(picture), kThreads, on, in<T>(a), in<T>(b), in<T>(weight),
                              picture, gaussian_window<T>(), out<T>(partials), out<T>(partials_b), sums));
  return launch(call, finish_kernel<T>, 1, kFinishThreads, on, sums, block_count(picture), numbers(picture),
                ssim_weight, out<T>(mean), out<T>(terms));
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" {

int64_t avatar_cuda_ssim_workspace(int32_t, int32_t height, int32_t width, int32_t channels) {
  if (!good_picture(width, height, channels)) return -1;
  return Workspace(nullptr, {height, width, channels}, 0).bytes;
}

int32_t avatar_cuda_ssim(avatar_call* call, const void* a, const void* b, int32_t height, int32_t width,
                         int32_t channels, void* mean, void* partials, void* partials_b, void* workspace,
                         void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, 0));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(a, b, mean, workspace);
  return with_dtype(call, [&](auto zero) {
    const Picture picture = {height, width, channels};
    return forward<decltype(zero)>(call, a, b, nullptr, picture, 1.0, mean, nullptr, partials, partials_b,
                                   Workspace(workspace, picture, 0).sums, static_cast<cudaStream_t>(stream));
  });
}

int32_t avatar_cuda_ssim_backward(avatar_call* call, const void* a, const void* b, const void* partials,
                                  const void* v_mean, int32_t height, int32_t width, int32_t channels, void* v_a,
                                  void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, 0));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(a, b, partials, v_mean, v_a);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    const Picture picture = {height, width, channels};
    return launch(call, ssim_backward_kernel<T>, grid_of(picture), kThreads, static_cast<cudaStream_t>(stream),
                  in<T>(a), in<T>(b), in<T>(nullptr), in<T>(partials), in<T>(v_mean), T(1.0 / numbers(picture)), T(0),
                  picture, gaussian_window<T>(), out<T>(v_a));
  });
}

int64_t avatar_cuda_l1_ssim_workspace(int32_t dtype, int32_t height, int32_t width, int32_t channels) {
  if (!good_picture(width, height, channels)) return -1;
  return Workspace(nullptr, {height, width, channels}, dtype == AVATAR_FLOAT32 ? 4 : 8).bytes;
}

int32_t avatar_cuda_l1_ssim(avatar_call* call, const void* image, const void* target, const void* weight,
                            double ssim_weight, int32_t height, int32_t width, int32_t channels, void* terms,
                            void* v_image, void* workspace, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, 0));
  AVATAR_RETURN_IF_BAD(check_picture(call, width, height, channels));
  AVATAR_REQUIRE(image, target, terms, workspace);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    const Picture picture = {height, width, channels};
    const Workspace work(workspace, picture, sizeof(T));
    void* partials = v_image != nullptr ? work.partials : nullptr;
    AVATAR_RETURN_IF_BAD(forward<T>(call, image, target, weight, picture, ssim_weight, nullptr, terms, partials,
                                    nullptr, work.sums, on));
    if (v_image == nullptr) return int32_t(AVATAR_OK);
    return launch(call, ssim_backward_kernel<T>, grid_of(picture), kThreads, on, in<T>(image), in<T>(target),
                  in<T>(weight), in<T>(partials), in<T>(nullptr), T(-ssim_weight / numbers(picture)),
                  T((1.0 - ssim_weight) / numbers(picture)), picture, gaussian_window<T>(), out<T>(v_image));
  });
}

}  // extern "C"
