// One vector register of float or double on the GCC/Clang vector extensions. Intrinsics appear only where compilers
// would not find the instruction: masks on AVX-512, and "any lane?" elsewhere.
#pragma once

#include <cstdint>

#include "avatar_math.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace avatar {
namespace AVATAR_ISA {

#if defined(__AVX512F__)
#define AVATAR_REGISTER_BYTES 64
#elif defined(__AVX2__)
#define AVATAR_REGISTER_BYTES 32
#else
#define AVATAR_REGISTER_BYTES 16
#endif

template <typename T>
struct Vector;
template <>
struct Vector<float> {
  typedef float values __attribute__((vector_size(AVATAR_REGISTER_BYTES)));
  typedef int32_t bits __attribute__((vector_size(AVATAR_REGISTER_BYTES)));
};
template <>
struct Vector<double> {
  typedef double values __attribute__((vector_size(AVATAR_REGISTER_BYTES)));
  typedef int64_t bits __attribute__((vector_size(AVATAR_REGISTER_BYTES)));
};

template <typename T>
struct Mask {
  typename Vector<T>::bits bits;  // all ones or all zeros per lane
  AVATAR_HD Mask operator&(Mask other) const { return {bits & other.bits}; }
  AVATAR_HD Mask without(Mask other) const { return {bits & ~other.bits}; }
};

template <typename T>
struct Lanes {
  static constexpr int kCount = AVATAR_REGISTER_BYTES / static_cast<int>(sizeof(T));
  typename Vector<T>::values v;

  Lanes() = default;
  AVATAR_HD explicit Lanes(double x) : v(typename Vector<T>::values{} + static_cast<T>(x)) {}
  AVATAR_HD explicit Lanes(typename Vector<T>::values x) : v(x) {}
  AVATAR_HD static Lanes load(const T* from) {
    Lanes out;
    __builtin_memcpy(&out.v, from, sizeof(out.v));
    return out;
  }
  AVATAR_HD void store(T* to) const { __builtin_memcpy(to, &v, sizeof(v)); }

  AVATAR_HD Lanes operator+(Lanes o) const { return Lanes(v + o.v); }
  AVATAR_HD Lanes operator-(Lanes o) const { return Lanes(v - o.v); }
  AVATAR_HD Lanes operator*(Lanes o) const { return Lanes(v * o.v); }
  AVATAR_HD Lanes operator/(Lanes o) const { return Lanes(v / o.v); }
};

template <typename T>
AVATAR_HD Mask<T> operator<(Lanes<T> x, Lanes<T> y) {
  return {x.v < y.v};
}
template <typename T>
AVATAR_HD Mask<T> operator<=(Lanes<T> x, Lanes<T> y) {
  return {x.v <= y.v};
}
template <typename T>
AVATAR_HD Lanes<T> select(Mask<T> mask, Lanes<T> yes, Lanes<T> no) {
  return Lanes<T>(mask.bits ? yes.v : no.v);
}
template <typename T>
AVATAR_HD bool any(Mask<T> mask) {
  int64_t word[sizeof(mask.bits) / sizeof(int64_t)], sum = 0;
  __builtin_memcpy(word, &mask.bits, sizeof(mask.bits));
  for (int64_t part : word) sum |= part;
  return sum != 0;
}

#if defined(__AVX512F__)
template <>
struct Mask<float> {
  __mmask16 bits;
  AVATAR_HD Mask operator&(Mask other) const { return {static_cast<__mmask16>(bits & other.bits)}; }
  AVATAR_HD Mask without(Mask other) const { return {static_cast<__mmask16>(bits & ~other.bits)}; }
};
AVATAR_HD Mask<float> operator<(Lanes<float> x, Lanes<float> y) {
  return {_mm512_cmp_ps_mask((__m512)x.v, (__m512)y.v, _CMP_LT_OQ)};
}
AVATAR_HD Mask<float> operator<=(Lanes<float> x, Lanes<float> y) {
  return {_mm512_cmp_ps_mask((__m512)x.v, (__m512)y.v, _CMP_LE_OQ)};
}
AVATAR_HD Lanes<float> select(Mask<float> mask, Lanes<float> yes, Lanes<float> no) {
  return Lanes<float>((Vector<float>::values)_mm512_mask_blend_ps(mask.bits, (__m512)no.v, (__m512)yes.v));
}
AVATAR_HD bool any(Mask<float> mask) { return mask.bits != 0; }
#elif defined(__AVX2__)
AVATAR_HD bool any(Mask<float> mask) { return _mm256_movemask_ps((__m256)mask.bits) != 0; }
#elif defined(__x86_64__)
AVATAR_HD bool any(Mask<float> mask) { return _mm_movemask_ps((__m128)mask.bits) != 0; }
#elif defined(__aarch64__)
AVATAR_HD bool any(Mask<float> mask) { return vmaxvq_u32((uint32x4_t)mask.bits) != 0; }
#endif

template <typename T>
AVATAR_HD auto operator>(Lanes<T> x, Lanes<T> y) {
  return y < x;
}
template <typename T>
AVATAR_HD auto operator>=(Lanes<T> x, Lanes<T> y) {
  return y <= x;
}

#if defined(__AVX512F__)
AVATAR_HD Lanes<float> root(Lanes<float> x) {
  return Lanes<float>((Vector<float>::values)_mm512_sqrt_ps((__m512)x.v));
}
AVATAR_HD float lane_sum(Lanes<float> x) { return _mm512_reduce_add_ps((__m512)x.v); }
#endif

template <typename T>
AVATAR_HD T lane_sum(Lanes<T> x) {
  T part[Lanes<T>::kCount];
  x.store(part);
  for (int width = Lanes<T>::kCount / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}

// Apply a scalar function lane by lane.
template <typename T, typename Function>
AVATAR_HD Lanes<T> map_lanes(Lanes<T> x, const Function& function) {
  T part[Lanes<T>::kCount];
  x.store(part);
  for (T& value : part) value = function(value);
  return Lanes<T>::load(part);
}

template <typename T>
AVATAR_HD Lanes<T> root(Lanes<T> x) {
  return map_lanes(x, [](T value) { return root(value); });
}

// The smallest integer not below x, for |x| < 2^22 (float); larger numbers may come out one off.
template <typename T>
AVATAR_HD Lanes<T> round_up(Lanes<T> x) {
  const Lanes<T> magic(sizeof(T) == 4 ? 12582912.0 : 6755399441055744.0);  // 1.5 * 2^23 and 1.5 * 2^52
  const Lanes<T> nearest = x + magic - magic;
  return nearest + select(nearest < x, Lanes<T>(1.0), Lanes<T>(0.0));
}

AVATAR_HD Lanes<double> exp_negative(Lanes<double> x) {
  return map_lanes(x, [](double value) { return exp_negative(value); });
}

// exp(-x) for x >= 0: 2^n * 2^f with |f| <= 1/2, f by a degree-6 Taylor polynomial (relative error below 3e-7).
AVATAR_HD Lanes<float> exp_negative(Lanes<float> x) {
  using V = Lanes<float>;
  typedef uint32_t words __attribute__((vector_size(AVATAR_REGISTER_BYTES)));
  const V y = at_least(x * V(-1.44269504088896341), V(-126.0));
  const V magic(12582912.0);  // 1.5 * 2^23: adding it rounds to the nearest integer
  const V shifted = y + magic;
  const V f = y - (shifted - magic);
  V p = V(1.5403530393381610e-4);
  p = p * f + V(1.3333558146428443e-3);
  p = p * f + V(9.6181291076284772e-3);
  p = p * f + V(5.5504108664821580e-2);
  p = p * f + V(2.4022650695910071e-1);
  p = p * f + V(6.9314718055994531e-1);
  p = p * f + V(1.0);
  // The low bits of `shifted` hold n; moved to the exponent field they multiply by 2^n.
  return V((Vector<float>::values)((words)p.v + ((words)shifted.v << 23)));
}

}  // namespace AVATAR_ISA
}  // namespace avatar
