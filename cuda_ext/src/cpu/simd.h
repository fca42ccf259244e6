// One vector register of float or double on the GCC/Clang vector extensions. Intrinsics appear only where compilers
// would not find the instruction: masks on AVX-512, and "any lane?" elsewhere.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

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
  AVATAR_HD Mask operator|(Mask other) const { return {bits | other.bits}; }
  AVATAR_HD Mask without(Mask other) const { return {bits & ~other.bits}; }
};

template <typename T>
struct Lanes {
  static constexpr int kCount = AVATAR_REGISTER_BYTES / static_cast<int>(sizeof(T));
  typename Vector<T>::values v;

  Lanes() = default;
  // Subtracting zero changes no number, so compilers drop it; adding zero would change -0.
  AVATAR_HD explicit Lanes(double x) : v(static_cast<T>(x) - typename Vector<T>::values{}) {}
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
  AVATAR_HD Mask operator|(Mask other) const { return {static_cast<__mmask16>(bits | other.bits)}; }
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

// One bit per lane, the first lane lowest.
template <typename T>
AVATAR_HD uint32_t lane_bits(Mask<T> mask) {
  typename std::conditional<sizeof(T) == 4, int32_t, int64_t>::type lane[Lanes<T>::kCount];
  __builtin_memcpy(lane, &mask.bits, sizeof(lane));
  uint32_t out = 0;
  for (int i = 0; i < Lanes<T>::kCount; ++i) out |= static_cast<uint32_t>(lane[i] & 1) << i;
  return out;
}
#if defined(__AVX512F__)
AVATAR_HD uint32_t lane_bits(Mask<float> mask) { return mask.bits; }
#elif defined(__AVX2__)
AVATAR_HD uint32_t lane_bits(Mask<float> mask) {
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)mask.bits));
}
#elif defined(__x86_64__)
AVATAR_HD uint32_t lane_bits(Mask<float> mask) { return static_cast<uint32_t>(_mm_movemask_ps((__m128)mask.bits)); }
#endif

// x where the mask is set, else zero.
template <typename T>
AVATAR_HD Lanes<T> keep(Mask<T> mask, Lanes<T> x) {
  typename Vector<T>::bits bits;
  __builtin_memcpy(&bits, &x.v, sizeof(bits));
  bits &= mask.bits;
  __builtin_memcpy(&x.v, &bits, sizeof(bits));
  return x;
}

// The machine's minimum and maximum treat a NaN in x as the templates do.
#if defined(__AVX512F__)
AVATAR_HD Lanes<float> keep(Mask<float> mask, Lanes<float> x) {
  return Lanes<float>((Vector<float>::values)_mm512_maskz_mov_ps(mask.bits, (__m512)x.v));
}
AVATAR_HD Lanes<float> at_least(Lanes<float> x, Lanes<float> bound) {
  return Lanes<float>((Vector<float>::values)_mm512_max_ps((__m512)x.v, (__m512)bound.v));
}
AVATAR_HD Lanes<float> at_most(Lanes<float> x, Lanes<float> bound) {
  return Lanes<float>((Vector<float>::values)_mm512_min_ps((__m512)x.v, (__m512)bound.v));
}
AVATAR_HD Lanes<float> rectified(Lanes<float> x) {
  return Lanes<float>((Vector<float>::values)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x.v));
}
#elif defined(__AVX2__)
AVATAR_HD Lanes<float> at_least(Lanes<float> x, Lanes<float> bound) {
  return Lanes<float>((Vector<float>::values)_mm256_max_ps((__m256)x.v, (__m256)bound.v));
}
AVATAR_HD Lanes<float> at_most(Lanes<float> x, Lanes<float> bound) {
  return Lanes<float>((Vector<float>::values)_mm256_min_ps((__m256)x.v, (__m256)bound.v));
}
AVATAR_HD Lanes<float> rectified(Lanes<float> x) {
  return Lanes<float>((Vector<float>::values)_mm256_max_ps(_mm256_setzero_ps(), (__m256)x.v));
}
#endif

template <typename T>
AVATAR_HD auto operator>(Lanes<T> x, Lanes<T> y) {
  return y < x;
}
template <typename T>
AVATAR_HD auto operator>=(Lanes<T> x, Lanes<T> y) {
  return y <= x;
}

// x - a b, rounded once where the machine can.
template <typename T>
AVATAR_HD Lanes<T> minus_product(Lanes<T> x, Lanes<T> a, Lanes<T> b) {
  return x + (Lanes<T>(0.0) - a) * b;
}
#if defined(__AVX512F__)
AVATAR_HD Lanes<float> minus_product(Lanes<float> x, Lanes<float> a, Lanes<float> b) {
  return Lanes<float>((Vector<float>::values)_mm512_fnmadd_ps((__m512)a.v, (__m512)b.v, (__m512)x.v));
}
#endif

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

// out[i] = lane_sum(in[i]) for `count` vectors.
template <int count, typename T>
AVATAR_HD void lane_sums(const Lanes<T>* in, T* out) {
  for (int i = 0; i < count; ++i) out[i] = lane_sum(in[i]);
}

#if defined(__AVX512F__)
// Up to sixteen at once: each step adds the halves of two vectors into one, so four steps leave one sum per lane.
template <int count>
AVATAR_HD void lane_sums(const Lanes<float>* in, float* out) {
  static_assert(count <= 16, "one lane per sum");
  __m512 part[16];
  for (int i = 0; i < 16; ++i) part[i] = i < count ? (__m512)in[i].v : _mm512_setzero_ps();
  for (int i = 0; i < (count + 1) / 2; ++i)
    part[i] = _mm512_add_ps(_mm512_shuffle_f32x4(part[2 * i], part[2 * i + 1], 0x44),
                            _mm512_shuffle_f32x4(part[2 * i], part[2 * i + 1], 0xee));
  for (int i = (count + 1) / 2; i < 8; ++i) part[i] = _mm512_setzero_ps();
  for (int i = 0; i < 4; ++i)
    part[i] = _mm512_add_ps(_mm512_shuffle_f32x4(part[2 * i], part[2 * i + 1], 0x88),
                            _mm512_shuffle_f32x4(part[2 * i], part[2 * i + 1], 0xdd));
  for (int i = 0; i < 2; ++i)
    part[i] = _mm512_add_ps(_mm512_shuffle_ps(part[2 * i], part[2 * i + 1], 0x44),
                            _mm512_shuffle_ps(part[2 * i], part[2 * i + 1], 0xee));
  const __m512 sums =
      _mm512_add_ps(_mm512_shuffle_ps(part[0], part[1], 0x88), _mm512_shuffle_ps(part[0], part[1], 0xdd));
  // Lane 4 i + j now holds sum 4 j + i.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_mask_storeu_ps(out, static_cast<__mmask16>((1u << count) - 1u), _mm512_permutexvar_ps(order, sums));
}
#endif

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

// 1 / x for ordinary x; within one unit in the last place where the machine has an estimate to refine.
template <typename T>
AVATAR_HD Lanes<T> reciprocal(Lanes<T> x) {
  return Lanes<T>(1.0) / x;
}
#if defined(__AVX512F__)
AVATAR_HD Lanes<float> reciprocal(Lanes<float> x) {
  const Lanes<float> estimate((Vector<float>::values)_mm512_rcp14_ps((__m512)x.v));
  return estimate + estimate * (Lanes<float>(1.0) - x * estimate);
}
#endif

// The smallest integer not below x, for |x| < 2^22 (float); larger numbers may come out one off.
template <typename T>
AVATAR_HD Lanes<T> round_up(Lanes<T> x) {
  const Lanes<T> magic(sizeof(T) == 4 ? 12582912.0 : 6755399441055744.0);  // 1.5 * 2^23 and 1.5 * 2^52
  const Lanes<T> nearest = x + magic - magic;
  return nearest + select(nearest < x, Lanes<T>(1.0), Lanes<T>(0.0));
}

AVATAR_HD Lanes<double> opacity_of(Lanes<double> tau) {
  return map_lanes(tau, [](double value) { return opacity_of(value); });
}

AVATAR_HD Lanes<double> exp2_approximate(Lanes<double> x) {
  return map_lanes(x, [](double value) { return ::exp2(value); });
}

// 2^x for x below 127; zero or nearly so where 2^x is no ordinary number. A minimax polynomial of degree 4 in the
// fraction: relative error below 3e-6, far less than the step of a picture of 8 or even 16 bits.
AVATAR_HD Lanes<float> exp2_approximate(Lanes<float> x) {
  using V = Lanes<float>;
#if defined(__AVX512F__)
  const V f((Vector<float>::values)_mm512_reduce_ps((__m512)x.v, _MM_FROUND_TO_NEG_INF));  // x - floor(x)
  V p = V(1.3534167747e-2);
  p = p * f + V(5.2011460935e-2);
  p = p * f + V(2.4144275670e-1);
  p = p * f + V(6.9300383451e-1);
  p = p * f + V(1.0000025934);
  return V((Vector<float>::values)_mm512_scalef_ps((__m512)p.v, (__m512)x.v));  // p * 2^floor(x)
#else
  typedef uint32_t words __attribute__((vector_size(AVATAR_REGISTER_BYTES)));
  const V y = at_least(x, V(-126.0)), magic(12582912.0);  // 1.5 * 2^23: adding it rounds to an integer
  const V shifted = y + magic;
  const V f = y - (shifted - magic);
  V p = V(9.5701017916e-3);
  p = p * f + V(5.5917860310e-2);
  p = p * f + V(2.4024744831e-1);
  p = p * f + V(6.9312181474e-1);
  p = p * f + V(9.9999926144e-1);
  // The low bits of `shifted` hold that integer n; moved to the exponent field they multiply by 2^n.
  return V((Vector<float>::values)((words)p.v + ((words)shifted.v << 23)));
#endif
}

// 1 / (1 + e^-x) to 1e-6; NaN stays NaN.
template <typename T>
AVATAR_HD Lanes<T> sigmoid(Lanes<T> x) {
  using V = Lanes<T>;
  const V other = exp2_approximate(at_most(x * V(-1.44269504088896341), V(120.0)));
  return select(x <= x, reciprocal(V(1.0) + other), x);
}

AVATAR_HD Lanes<double> exponential(Lanes<double> x) {
  return map_lanes(x, [](double value) { return ::exp(value); });
}

// e^x to two units in the last place, for results that are ordinary numbers; beyond, the nearest of those. NaN stays NaN.
AVATAR_HD Lanes<float> exponential(Lanes<float> x) {
  using V = Lanes<float>;
  typedef uint32_t words __attribute__((vector_size(AVATAR_REGISTER_BYTES)));
  const V inside = at_most(at_least(x, V(-87.0)), V(87.0)), magic(12582912.0);  // 1.5 * 2^23: adding it rounds
  const V shifted = inside * V(1.44269504088896341) + magic, n = shifted - magic;
  const V f = (inside - n * V(0.693359375)) + n * V(2.12194440e-4);  // the logarithm of 2 in two parts
  V p = V(1.0 / 5040);
  for (const double factor : {1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2, 1.0, 1.0}) p = p * f + V(factor);
  const V out((Vector<float>::values)((words)p.v + ((words)shifted.v << 23)));
  return select(x <= x, out, x);
}

// To 1e-5 of itself; NaN stays NaN.
AVATAR_HD Lanes<float> opacity_of(Lanes<float> tau) {
  using V = Lanes<float>;
  // Where tau is small, 1 - exp(-tau) would lose its digits: there the Taylor series.
  V series = V(1.0 / 5040);
  for (const double factor : {1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2, 1.0}) series = V(factor) - tau * series;
  series = tau * series;
  const V far = V(1.0) - exp2_approximate(at_most(tau * V(-1.44269504088896341), V(126.0)));
  const V small(0.5);
  const V out = select(tau <= small, select(V(0.0) - small <= tau, series, far), far);
  return select(tau <= tau, out, tau);
}

}  // namespace AVATAR_ISA
}  // namespace avatar
