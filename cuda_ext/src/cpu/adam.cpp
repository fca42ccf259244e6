// Adam (Kingma and Ba 2015) in place, with the arithmetic order of torch.optim.Adam.
#include "common.h"

namespace avatar {
namespace AVATAR_ISA {

template <typename T>
void adam_step(int threads, T* param, const T* grad, T* exp_avg, T* exp_avg_sq, int64_t n, double lr, double beta1,
               double beta2, double eps, int64_t step) {
  const double correction1 = 1.0 - ::pow(beta1, static_cast<double>(step));
  const double correction2 = 1.0 - ::pow(beta2, static_cast<double>(step));
  const T keep1 = T(beta1), new1 = T(1.0 - beta1), keep2 = T(beta2), new2 = T(1.0 - beta2);
  const T rate = T(lr / correction1), inverse_root = T(1.0 / ::sqrt(correction2)), small = T(eps);
  parallel_blocks(threads, n, 32768, [&](int64_t begin, int64_t end) {
    T* __restrict p = param;
    const T* __restrict g = grad;
    T* __restrict m = exp_avg;
    T* __restrict v = exp_avg_sq;
    for (int64_t i = begin; i < end; ++i) {
      m[i] = keep1 * m[i] + new1 * g[i];
      v[i] = keep2 * v[i] + new2 * g[i] * g[i];
      p[i] -= rate * m[i] / (root(v[i]) * inverse_root + small);
    }
  });
}

template void adam_step<float>(int, float*, const float*, float*, float*, int64_t, double, double, double, double,
                               int64_t);
template void adam_step<double>(int, double*, const double*, double*, double*, int64_t, double, double, double, double,
                                int64_t);

}  // namespace AVATAR_ISA
}  // namespace avatar
