// Sixteen lanes of float or double on the GCC/Clang vector extensions: one row of a tile. The compiler splits them into
// whatever registers the target has; only masks on AVX-512 use intrinsics, because compilers do not keep generic vector
// comparisons in mask registers.
#pragma once

#include <cstdint>

#include "avatar_math.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace avatar {
namespace AVATAR_ISA {

constexpr int kLanes = 16;

template <typename T>
struct Vector;
template <>
struct Vector<float> {
  typedef float values __attribute__((vector_size(64)));
  typedef int32_t bits __attribute__((vector_size(64)));
};
template <>
struct Vector<double> {
  typedef double values __attribute__((vector_size(128)));
  typedef int64_t bits __attribute__((vector_size(128)));
};

template <typename T>
struct Mask {
  typename Vector<T>::bits bits;
  AVATAR_HD Mask operator&(Mask other) const { return {bits & other.bits}; }
  AVATAR_HD Mask without(Mask other) const { return {bits & ~other.bits}; }
  AVATAR_HD bool any() const {
    int64_t folded[sizeof(bits) / sizeof(int64_t)], sum = 0;
    __builtin_memcpy(folded, &bits, sizeof(bits));
    for (int64_t word : folded) sum |= word;
    return sum != 0;
  }
};

template <typename T>
struct Lanes {
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
  AVATAR_HD Mask<T> operator<(Lanes o) const { return compare<0>(o); }
  AVATAR_HD Mask<T> operator<=(Lanes o) const { return compare<1>(o); }
  AVATAR_HD Mask<T> operator>(Lanes o) const { return o.template compare<0>(*this); }
  AVATAR_HD Mask<T> operator>=(Lanes o) const { return o.template compare<1>(*this); }

 private:
  template <int kOrEqual>
  AVATAR_HD Mask<T> compare(Lanes o) const {
    if (kOrEqual) return {v <= o.v};
    return {v < o.v};
  }
};

template <typename T>
AVATAR_HD Lanes<T> select(Mask<T> mask, Lanes<T> yes, Lanes<T> no) {
  return Lanes<T>(mask.bits ? yes.v : no.v);
}

#if defined(__AVX512F__)
template <>
struct Mask<float> {
  __mmask16 bits;
  AVATAR_HD Mask operator&(Mask other) const { return {static_cast<__mmask16>(bits & other.bits)}; }
  AVATAR_HD Mask without(Mask other) const { return {static_cast<__mmask16>(bits & ~other.bits)}; }
  AVATAR_HD bool any() const { return bits != 0; }
};
template <>
template <int kOrEqual>
AVATAR_HD Mask<float> Lanes<float>::compare(Lanes<float> o) const {
  return {_mm512_cmp_ps_mask((__m512)v, (__m512)o.v, kOrEqual ? _CMP_LE_OQ : _CMP_LT_OQ)};
}
template <>
AVATAR_HD Lanes<float> select(Mask<float> mask, Lanes<float> yes, Lanes<float> no) {
  return Lanes<float>((Vector<float>::values)_mm512_mask_blend_ps(mask.bits, (__m512)no.v, (__m512)yes.v));
}
#endif

template <typename T>
AVATAR_HD T lane_sum(Lanes<T> x) {
  T part[kLanes];
  x.store(part);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}

AVATAR_HD Lanes<double> root(Lanes<double> x) {
  for (int i = 0; i < kLanes; ++i) x.v[i] = ::sqrt(x.v[i]);
  return x;
}
AVATAR_HD Lanes<float> root(Lanes<float> x) {
  for (int i = 0; i < kLanes; ++i) x.v[i] = ::sqrtf(x.v[i]);
  return x;
}

AVATAR_HD Lanes<double> exp_negative(Lanes<double> x) {
  for (int i = 0; i < kLanes; ++i) x.v[i] = ::exp(-x.v[i]);
  return x;
}

// exp(-x) for x >= 0: 2^n * 2^f with |f| <= 1/2, f by a degree-6 Taylor polynomial (relative error below 3e-7).
AVATAR_HD Lanes<float> exp_negative(Lanes<float> x) {
  using V = Lanes<float>;
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
  return V((Vector<float>::values)((Vector<float>::bits)p.v + ((Vector<float>::bits)shifted.v << 23)));
}

}  // namespace AVATAR_ISA
}  // namespace avatar
