// Per-element mathematics shared by every backend: the CPU loops (scalar and SIMD) and the CUDA kernels.
//
// Everything here is a branch-free template over a number type: `float`, `double`, or the 16-lane `Lanes<...>` of the
// CPU backend. Each translation unit defines AVATAR_ISA to its own name, because the same templates are compiled with
// different instruction sets and must not be merged by the linker.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define AVATAR_HD __host__ __device__ __forceinline__
#elif defined(__SANITIZE_ADDRESS__)  // inlining everything makes the instrumented code minutes to compile
#define AVATAR_HD inline
#else
#define AVATAR_HD inline __attribute__((always_inline))
#endif

#ifndef AVATAR_ISA
#define AVATAR_ISA generic
#endif

namespace avatar {
namespace AVATAR_ISA {

// ---- scalar forms of the few operations that need a vector twin ----------------------------------------------------

AVATAR_HD float select(bool mask, float yes, float no) { return mask ? yes : no; }
AVATAR_HD double select(bool mask, double yes, double no) { return mask ? yes : no; }
AVATAR_HD float root(float x) { return ::sqrtf(x); }
AVATAR_HD double root(double x) { return ::sqrt(x); }
AVATAR_HD float exp_negative(float x) {
#if defined(__CUDA_ARCH__)
  return __expf(-x);  // two instructions, and as exact as the polynomial of the CPU lanes
#else
  return ::expf(-x);
#endif
}
AVATAR_HD double exp_negative(double x) { return ::exp(-x); }

AVATAR_HD float exponential(float x) { return ::expf(x); }
AVATAR_HD double exponential(double x) { return ::exp(x); }

// Written so that a NaN in `x` comes out as `bound`, in every backend.
template <typename T>
AVATAR_HD T at_least(T x, T bound) {
  return select(x > bound, x, bound);
}
template <typename T>
AVATAR_HD T at_most(T x, T bound) {
  return select(x < bound, x, bound);
}

// x where it is positive, else zero; NaN stays NaN.
template <typename T>
AVATAR_HD T rectified(T x) {
  return select(x <= T(0), T(0), x);
}

// ---- projection of a 3D Gaussian -----------------------------------------------------------------------------------
//
// Elliptical weighted averaging (Zwicker et al. 2001, "EWA volume splatting") with the conventions of gsplat: the
// perspective map is linearised at the mean, whose direction is clamped to 1.3 times the field of view first.

template <typename T>
struct CameraModel {
  T rotation[9];     // world to camera, row-major
  T translation[3];  // world to camera
  T fx, fy, cx, cy;  // pixels
  T low_x, high_x;   // limits of x/z used for the linearisation
  T low_y, high_y;
  T eps2d;  // added to the diagonal of the 2D covariance, square pixels
};

template <typename T>
struct ProjectedGaussian {
  T x, y, depth;  // pixels, pixels, camera z
  T a, b, c;      // inverse 2D covariance [[a, b], [b, c]]
  T largest;      // larger eigenvalue of the 2D covariance
  T determinant;  // of the 2D covariance
};

// Values that the forward and the backward pass both need.
template <typename T>
struct ProjectionState {
  T camera[3];           // the mean in camera axes
  T inverse_depth;
  T norm;                // of the quaternion
  T w, x, y, z;          // unit quaternion
  T spin[9];             // its rotation matrix
  T axes[9];             // view rotation * spin * diag(scales)
  T ray_x, ray_y;        // clamped x/z and y/z
  T skew[6];             // 2x3: axes under the linearised projection
  T xx, xy, yy;          // 2D covariance, blurred
  T determinant;
};

template <typename T>
AVATAR_HD void quaternion_matrix(T w, T x, T y, T z, T out[9]) {
  const T two = T(2), one = T(1);
  out[0] = one - two * (y * y + z * z);
  out[1] = two * (x * y - w * z);
  out[2] = two * (x * z + w * y);
  out[3] = two * (x * y + w * z);
  out[4] = one - two * (x * x + z * z);
  out[5] = two * (y * z - w * x);
  out[6] = two * (x * z - w * y);
  out[7] = two * (y * z + w * x);
  out[8] = one - two * (x * x + y * y);
}

template <typename T>
AVATAR_HD ProjectionState<T> projection_state(const CameraModel<T>& camera, const T mean[3], const T quat[4],
                                              const T scale[3]) {
  ProjectionState<T> s;
  const T* r = camera.rotation;
  for (int i = 0; i < 3; ++i)
    s.camera[i] = r[3 * i] * mean[0] + r[3 * i + 1] * mean[1] + r[3 * i + 2] * mean[2] + camera.translation[i];
  s.inverse_depth = T(1) / s.camera[2];
  s.norm = root(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3]);
  const T unit = T(1) / s.norm;
  s.w = quat[0] * unit;
  s.x = quat[1] * unit;
  s.y = quat[2] * unit;
  s.z = quat[3] * unit;
  quaternion_matrix(s.w, s.x, s.y, s.z, s.spin);
  for (int i = 0; i < 3; ++i)
    for (int k = 0; k < 3; ++k)
      s.axes[3 * i + k] =
          (r[3 * i] * s.spin[k] + r[3 * i + 1] * s.spin[3 + k] + r[3 * i + 2] * s.spin[6 + k]) * scale[k];
  s.ray_x = at_least(at_most(s.camera[0] * s.inverse_depth, camera.high_x), camera.low_x);
  s.ray_y = at_least(at_most(s.camera[1] * s.inverse_depth, camera.high_y), camera.low_y);
  const T gain_x = camera.fx * s.inverse_depth, gain_y = camera.fy * s.inverse_depth;
  for (int k = 0; k < 3; ++k) {
    s.skew[k] = gain_x * (s.axes[k] - s.ray_x * s.axes[6 + k]);
    s.skew[3 + k] = gain_y * (s.axes[3 + k] - s.ray_y * s.axes[6 + k]);
  }
  const T* u = s.skew;
  s.xx = u[0] * u[0] + u[1] * u[1] + u[2] * u[2] + camera.eps2d;
  s.xy = u[0] * u[3] + u[1] * u[4] + u[2] * u[5];
  s.yy = u[3] * u[3] + u[4] * u[4] + u[5] * u[5] + camera.eps2d;
  s.determinant = s.xx * s.yy - s.xy * s.xy;
  return s;
}

template <typename T>
AVATAR_HD ProjectedGaussian<T> project_gaussian(const CameraModel<T>& camera, const T mean[3], const T quat[4],
                                                const T scale[3]) {
  const ProjectionState<T> s = projection_state(camera, mean, quat, scale);
  ProjectedGaussian<T> out;
  out.x = camera.fx * s.camera[0] * s.inverse_depth + camera.cx;
  out.y = camera.fy * s.camera[1] * s.inverse_depth + camera.cy;
  out.depth = s.camera[2];
  const T inverse = T(1) / s.determinant;
  out.a = s.yy * inverse;
  out.b = T(0) - s.xy * inverse;
  out.c = s.xx * inverse;
  const T middle = T(0.5) * (s.xx + s.yy);
  out.largest = middle + root(at_least(middle * middle - s.determinant, T(0)));
  out.determinant = s.determinant;
  return out;
}

template <typename T>
struct ProjectionCotangent {
  T mean[3], quat[4], scale[3];
  T rotation[9], translation[3];  // of the view matrix
};

// Vector-Jacobian product of project_gaussian with respect to its inputs and the view matrix.
template <typename T>
AVATAR_HD ProjectionCotangent<T> project_gaussian_vjp(const CameraModel<T>& camera, const T mean[3], const T quat[4],
                                                      const T scale[3], T v_x, T v_y, T v_depth, T v_a, T v_b,
                                                      T v_c) {
  const ProjectionState<T> s = projection_state(camera, mean, quat, scale);
  const T two = T(2), zero = T(0);

  // conic = covariance^-1, so v_covariance = -conic * v_conic * conic; `v_b` belongs to both off-diagonal entries.
  const T inverse = T(1) / s.determinant;
  const T a = s.yy * inverse, b = zero - s.xy * inverse, c = s.xx * inverse;
  const T half_b = T(0.5) * v_b;
  const T left0 = a * v_a + b * half_b, left1 = a * half_b + b * v_c;
  const T left2 = b * v_a + c * half_b, left3 = b * half_b + c * v_c;
  const T v_xx = zero - (left0 * a + left1 * b);
  const T v_xy = zero - (left0 * b + left1 * c);
  const T v_yy = zero - (left2 * b + left3 * c);

  // covariance = skew * skew^T
  T v_skew[6];
  for (int k = 0; k < 3; ++k) {
    v_skew[k] = two * (v_xx * s.skew[k] + v_xy * s.skew[3 + k]);
    v_skew[3 + k] = two * (v_xy * s.skew[k] + v_yy * s.skew[3 + k]);
  }

  const T gain_x = camera.fx * s.inverse_depth, gain_y = camera.fy * s.inverse_depth;
  T v_axes[9], v_ray_x = zero, v_ray_y = zero, v_inverse_depth = zero;
  for (int k = 0; k < 3; ++k) {
    v_axes[k] = gain_x * v_skew[k];
    v_axes[3 + k] = gain_y * v_skew[3 + k];
    v_axes[6 + k] = zero - (s.ray_x * v_axes[k] + s.ray_y * v_axes[3 + k]);
    v_ray_x = v_ray_x - v_axes[k] * s.axes[6 + k];
    v_ray_y = v_ray_y - v_axes[3 + k] * s.axes[6 + k];
    v_inverse_depth = v_inverse_depth + v_skew[k] * s.skew[k] + v_skew[3 + k] * s.skew[3 + k];
  }
  v_inverse_depth = v_inverse_depth * s.camera[2];

  // A clamped ray direction has no gradient.
  const T free_x = s.camera[0] * s.inverse_depth, free_y = s.camera[1] * s.inverse_depth;
  v_ray_x = select(free_x >= camera.low_x, select(free_x <= camera.high_x, v_ray_x, zero), zero);
  v_ray_y = select(free_y >= camera.low_y, select(free_y <= camera.high_y, v_ray_y, zero), zero);
  const T to_x = camera.fx * v_x + v_ray_x, to_y = camera.fy * v_y + v_ray_y;
  v_inverse_depth = v_inverse_depth + to_x * s.camera[0] + to_y * s.camera[1];

  ProjectionCotangent<T> out;
  T* v_camera = out.translation;
  v_camera[0] = to_x * s.inverse_depth;
  v_camera[1] = to_y * s.inverse_depth;
  v_camera[2] = v_depth - v_inverse_depth * s.inverse_depth * s.inverse_depth;

  const T* r = camera.rotation;
  for (int i = 0; i < 3; ++i)
    out.mean[i] = r[i] * v_camera[0] + r[3 + i] * v_camera[1] + r[6 + i] * v_camera[2];

  // axes = rotation * (spin * diag(scales))
  T v_spin[9];
  for (int k = 0; k < 3; ++k) {
    T v_scale = zero;
    for (int i = 0; i < 3; ++i) {
      const T v_shape = r[i] * v_axes[k] + r[3 + i] * v_axes[3 + k] + r[6 + i] * v_axes[6 + k];
      v_scale = v_scale + v_shape * s.spin[3 * i + k];
      v_spin[3 * i + k] = v_shape * scale[k];
    }
    out.scale[k] = v_scale;
  }
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) {
      T sum = v_camera[i] * mean[j];
      for (int k = 0; k < 3; ++k) sum = sum + v_axes[3 * i + k] * s.spin[3 * j + k] * scale[k];
      out.rotation[3 * i + j] = sum;
    }

  const T* g = v_spin;
  const T w = s.w, x = s.x, y = s.y, z = s.z;
  const T v_w = two * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1]));
  const T v_i = two * (y * (g[1] + g[3]) + z * (g[2] + g[6]) + w * (g[7] - g[5]) - two * x * (g[4] + g[8]));
  const T v_j = two * (x * (g[1] + g[3]) + z * (g[5] + g[7]) + w * (g[2] - g[6]) - two * y * (g[0] + g[8]));
  const T v_k = two * (x * (g[2] + g[6]) + y * (g[5] + g[7]) + w * (g[3] - g[1]) - two * z * (g[0] + g[4]));
  const T along = v_w * w + v_i * x + v_j * y + v_k * z;  // the part that normalisation removes
  const T unit = T(1) / s.norm;
  out.quat[0] = (v_w - along * w) * unit;
  out.quat[1] = (v_i - along * x) * unit;
  out.quat[2] = (v_j - along * y) * unit;
  out.quat[3] = (v_k - along * z) * unit;
  return out;
}

// Fill the camera of a picture of `width` x `height` pixels from a row-major 4x4 view matrix and a 3x3 matrix K.
template <typename S>
AVATAR_HD CameraModel<S> camera_model(const S* viewmat, const S* intrinsics, int width, int height, double eps2d) {
  CameraModel<S> camera;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) camera.rotation[3 * i + j] = viewmat[4 * i + j];
    camera.translation[i] = viewmat[4 * i + 3];
  }
  camera.fx = intrinsics[0];
  camera.fy = intrinsics[4];
  camera.cx = intrinsics[2];
  camera.cy = intrinsics[5];
  const S margin_x = S(0.15) * S(width) / camera.fx, margin_y = S(0.15) * S(height) / camera.fy;
  camera.low_x = S(0) - camera.cx / camera.fx - margin_x;
  camera.high_x = (S(width) - camera.cx) / camera.fx + margin_x;
  camera.low_y = S(0) - camera.cy / camera.fy - margin_y;
  camera.high_y = (S(height) - camera.cy) / camera.fy + margin_y;
  camera.eps2d = S(eps2d);
  return camera;
}

// ---- one Gaussian seen by one pixel --------------------------------------------------------------------------------

#define AVATAR_ALPHA_MAX 0.999
#define AVATAR_ALPHA_MIN (1.0 / 255.0)
#define AVATAR_TRANSMITTANCE_MIN 1e-4

// Opacity of a Gaussian at offset (dx, dy) pixels from its mean, before clamping. Rounding can make the exponent of a
// thin Gaussian slightly positive; it is cut at zero.
template <typename T>
AVATAR_HD T gaussian_alpha(T dx, T dy, T a, T b, T c, T opacity) {
  const T sigma = (T(0.5) * a * dx + b * dy) * dx + T(0.5) * c * dy * dy;
  return opacity * exp_negative(at_least(sigma, T(0)));
}

// ---- hash grid -----------------------------------------------------------------------------------------------------

// Row of a grid vertex in a table of `size` rows: row-major while the level fits, otherwise the spatial hash of
// Mueller et al. 2022 ("Instant neural graphics primitives"), equation 4, in two dimensions.
AVATAR_HD uint32_t grid_row(uint32_t x, uint32_t y, uint32_t resolution, uint32_t size) {
  const uint32_t side = resolution + 1u;
  if (uint64_t(side) * side <= size) return y * side + x;
  const uint32_t hash = x ^ (y * 2654435761u);
  return (size & (size - 1u)) == 0u ? hash & (size - 1u) : hash % size;
}

// The cell of one coordinate in [-1, 1] (clamped) on a grid of `resolution` cells. `slope` is d fraction / d x, zero
// where the coordinate was clamped. A NaN becomes the fraction, and so every feature read with it.
template <typename T>
struct GridCell {
  uint32_t index;
  T fraction, slope;
};

template <typename T>
AVATAR_HD GridCell<T> grid_cell(T x, uint32_t resolution) {
  const T inside = select(x < T(-1), T(-1), select(x > T(1), T(1), x));  // NaN stays NaN
  const T position = (inside + T(1)) * (T(0.5) * T(resolution));
  GridCell<T> cell;
  uint32_t index = static_cast<uint32_t>(at_least(position, T(0)));
  if (index > resolution - 1u) index = resolution - 1u;
  cell.index = index;
  cell.fraction = position - T(index);
  cell.slope = x >= T(-1) && x <= T(1) ? T(0.5) * T(resolution) : T(0);
  return cell;
}

template <typename T>
AVATAR_HD T bilinear(T v00, T v10, T v01, T v11, T fx, T fy) {
  const T low = v00 + fx * (v10 - v00), high = v01 + fx * (v11 - v01);
  return low + fy * (high - low);
}

// ---- rays ----------------------------------------------------------------------------------------------------------
//
// Volume rendering (Max 1995, "Optical models for direct volume rendering") of intervals of constant density. With
// tau = density * length: alpha = 1 - exp(-tau), T = product of (1 - alpha) of the samples before, weight = T alpha.
// Backward, with g = <v_color, color> + v_opacity + v_depth middle of a sample:
//   v_density = length * (T (1 - alpha) g - sum of weight g over the samples behind it).

AVATAR_HD float opacity_of(float tau) { return -::expm1f(-tau); }
AVATAR_HD double opacity_of(double tau) { return -::expm1(-tau); }

// The smallest number by which 1 can be increased.
template <typename T>
AVATAR_HD T spacing() {
  return sizeof(T) == 4 ? T(1.1920928955078125e-07) : T(2.220446049250313e-16);
}

// What the samples of a ray need of its cotangents. The depth is the sum of weight * middle over the opacity, which is
// bounded from below.
template <typename T>
struct RayCotangent {
  T opacity, middle, depth;

  // By the weight of a sample, without the part of its colour.
  AVATAR_HD T of_weight(T at) const { return opacity + middle * (at - depth); }
};

template <typename T>
AVATAR_HD RayCotangent<T> ray_cotangent(T opacity, T depth, T v_opacity, T v_depth) {
  return {v_opacity, v_depth / at_least(opacity, spacing<T>()), opacity > spacing<T>() ? depth : T(0)};
}

// ---- tile lists ----------------------------------------------------------------------------------------------------

// Twice the exponent at which a Gaussian of this opacity falls to alpha = 1/255, a little more for rounding; and back to
// the base 2 logarithm of the opacity.
constexpr double kLimitMargin = 1e-5;
template <typename T>
AVATAR_HD T limit_of_opacity(T opacity) {
  return T(2.0 * ::log(opacity / AVATAR_ALPHA_MIN) + kLimitMargin);
}
template <typename T>
AVATAR_HD T power_of_limit(T limit) {
  return (limit - T(kLimitMargin)) * T(0.72134752044448170) - T(7.994353436858858);  // log2(e) / 2, log2(255)
}

}  // namespace AVATAR_ISA
}  // namespace avatar
