// Adam (Kingma and Ba 2015) in place, with the arithmetic order of torch.optim.Adam.
#include <cmath>

#include "device.h"

namespace avatar {
namespace AVATAR_ISA {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;  // independent elements, so that enough loads are under way

template <typename T>
struct Rates {
  T keep1, new1, keep2, new2, rate, inverse_root, small;
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    adam_kernel(T* __restrict__ param, const T* __restrict__ grad, T* __restrict__ exp_avg,
                T* __restrict__ exp_avg_sq, int64_t n, Rates<T> rates) {
  const int64_t first = int64_t(blockIdx.x) * kThreads * kPerThread + threadIdx.x;
  AVATAR_UNROLL
  for (int k = 0; k < kPerThread; ++k) {
    const int64_t i = first + k * kThreads;
    if (i >= n) break;
    const T g = grad[i];
    const T m = rates.keep1 * exp_avg[i] + rates.new1 * g;
    const T v = rates.keep2 * exp_avg_sq[i] + rates.new2 * g * g;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    param[i] -= rates.rate * m / (root(v) * rates.inverse_root + rates.small);
  }
}

}  // namespace
}  // namespace AVATAR_ISA
}  // namespace avatar

using namespace avatar::AVATAR_ISA;

extern "C" int32_t avatar_cuda_adam_step(avatar_call* call, void* param, const void* grad, void* exp_avg,
                                         void* exp_avg_sq, int64_t n, double lr, double beta1, double beta2, double eps,
                                         int64_t step, void* stream) {
  AVATAR_RETURN_IF_BAD(check_call(call, 0));
  if (n < 0 || n > int64_t(INT32_MAX) * kThreads || step < 1)
    return fail(call, AVATAR_BAD_ARGUMENT, "n, step are %lld, %lld; expected at least 0 and 1",
                static_cast<long long>(n), static_cast<long long>(step));
  AVATAR_REQUIRE_IF(n, param, grad, exp_avg, exp_avg_sq);
  return with_dtype(call, [&](auto zero) {
    using T = decltype(zero);
    if (n == 0) return int32_t(AVATAR_OK);
    const double correction1 = 1.0 - ::pow(beta1, static_cast<double>(step));
    const double correction2 = 1.0 - ::pow(beta2, static_cast<double>(step));
    const Rates<T> rates = {T(beta1),           T(1.0 - beta1), T(beta2), T(1.0 - beta2), T(lr / correction1),
                            T(1.0 / ::sqrt(correction2)), T(eps)};
    return launch(call, adam_kernel<T>, blocks_for(n, kThreads * kPerThread), kThreads,
                  static_cast<cudaStream_t>(stream), out<T>(param), in<T>(grad), out<T>(exp_avg), out<T>(exp_avg_sq),
                  n, rates);
  });
}
