// Linear blend skinning of a Gaussian between two rigid transforms, shared by the CPU loops and the CUDA kernels.
//
// by_a = A mean + a, by_b = B (mean + offset) + b: mean' = by_b + weight (by_a - by_b), quat' = turn * quat with
// turn = turn_b + weight (turn_a - turn_b): a product is linear in its factors, so blending the turned quaternions
// blends the turns.
#pragma once

#include "avatar_math.h"

namespace avatar {
namespace AVATAR_ISA {

template <typename T>
struct SkinModel {
  T transforms[24];      // [A | a], [B | b], each 3x4 row-major
  T transform_quats[8];  // quaternions wxyz of both
};

template <typename T>
AVATAR_HD void quaternion_product(const T a[4], const T b[4], T out[4]) {
  out[0] = a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3];
  out[1] = a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2];
  out[2] = a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1];
  out[3] = a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0];
}

// The blended rotation.
template <typename T>
AVATAR_HD void skin_turn(const SkinModel<T>& skin, T weight, T turn[4]) {
  const T *a = skin.transform_quats, *b = skin.transform_quats + 4;
  for (int i = 0; i < 4; ++i) turn[i] = b[i] + weight * (a[i] - b[i]);
}

template <typename T>
AVATAR_HD void skin_gaussian(const SkinModel<T>& skin, const T mean[3], const T quat[4], T weight,
                             const T offset[3], T posed_mean[3], T posed_quat[4]) {
  const T shifted[3] = {mean[0] + offset[0], mean[1] + offset[1], mean[2] + offset[2]};
  for (int i = 0; i < 3; ++i) {
    const T *a = skin.transforms + 4 * i, *b = skin.transforms + 12 + 4 * i;
    const T by_a = a[0] * mean[0] + a[1] * mean[1] + a[2] * mean[2] + a[3];
    const T by_b = b[0] * shifted[0] + b[1] * shifted[1] + b[2] * shifted[2] + b[3];
    posed_mean[i] = by_b + weight * (by_a - by_b);
  }
  T turn[4];
  skin_turn(skin, weight, turn);
  quaternion_product(turn, quat, posed_quat);
}

template <typename T>
struct SkinCotangent {
  T mean[3], quat[4], weight, offset[3];
  T skin[32];  // of the transforms, then of their quaternions
};

template <typename T>
AVATAR_HD SkinCotangent<T> skin_gaussian_vjp(const SkinModel<T>& skin, const T mean[3], const T quat[4], T weight,
                                             const T offset[3], const T v_mean[3], const T v_quat[4]) {
  SkinCotangent<T> out;
  const T rest = T(1) - weight;
  out.weight = T(0);
  for (int k = 0; k < 3; ++k) out.mean[k] = out.offset[k] = T(0);
  for (int i = 0; i < 3; ++i) {
    const T *a = skin.transforms + 4 * i, *b = skin.transforms + 12 + 4 * i;
    const T to_a = weight * v_mean[i], to_b = rest * v_mean[i];
    T apart = a[3] - b[3];
    for (int k = 0; k < 3; ++k) {
      apart = apart + ((a[k] - b[k]) * mean[k] - b[k] * offset[k]);
      out.offset[k] = out.offset[k] + to_b * b[k];
      out.mean[k] = out.mean[k] + (to_a * a[k] + to_b * b[k]);
      out.skin[4 * i + k] = to_a * mean[k];
      out.skin[12 + 4 * i + k] = to_b * (mean[k] + offset[k]);
    }
    out.weight = out.weight + v_mean[i] * apart;
    out.skin[4 * i + 3] = to_a;
    out.skin[12 + 4 * i + 3] = to_b;
  }

  // A product by a quaternion is undone, but for its length, by its conjugate.
  T turn[4], v_turn[4];
  skin_turn(skin, weight, turn);
  const T zero(0), turned[4] = {turn[0], zero - turn[1], zero - turn[2], zero - turn[3]};
  const T conjugate[4] = {quat[0], zero - quat[1], zero - quat[2], zero - quat[3]};
  quaternion_product(turned, v_quat, out.quat);
  quaternion_product(v_quat, conjugate, v_turn);
  for (int i = 0; i < 4; ++i) {
    out.weight = out.weight + v_turn[i] * (skin.transform_quats[i] - skin.transform_quats[4 + i]);
    out.skin[24 + i] = weight * v_turn[i];
    out.skin[28 + i] = rest * v_turn[i];
  }
  return out;
}

}  // namespace AVATAR_ISA
}  // namespace avatar
