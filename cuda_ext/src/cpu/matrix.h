// Products of small matrices for the networks: tiles of registers, rows padded to whole registers.
#pragma once

#include <type_traits>

#include "common.h"

namespace avatar {
namespace AVATAR_ISA {

template <typename T>
constexpr int64_t padded(int64_t size) {
  return (size + Lanes<T>::kCount - 1) / Lanes<T>::kCount * Lanes<T>::kCount;
}

// A matrix whose rows are `stride` apart; kTransposed: whose columns are.
template <typename T, bool kTransposed = false>
struct View {
  const T* data;
  int64_t stride;

  AVATAR_HD T at(int64_t r, int64_t k) const { return data[kTransposed ? k * stride + r : r * stride + k]; }
  AVATAR_HD View below(int64_t r) const { return {data + (kTransposed ? r : r * stride), stride}; }
};
template <typename T>
using Transposed = View<T, true>;

// kRows x kColumns registers of c = first + a b; `first` null: 0.
template <int kRows, int kColumns, typename A, typename T>
AVATAR_HD void multiply_tile(A a, const T* b, int64_t b_stride, T* c, int64_t c_stride, int depth, const T* first,
                             int64_t first_stride) {
  using V = Lanes<T>;
  V sum[kRows][kColumns];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) sum[r][j] = first != nullptr ? V::load(first + r * first_stride + j * V::kCount) : V(0.0);
  for (int k = 0; k < depth; ++k) {
    V line[kColumns];
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) line[j] = V::load(b + k * b_stride + j * V::kCount);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const V factor(a.at(r, k));
#pragma GCC unroll 4
      for (int j = 0; j < kColumns; ++j) sum[r][j] = sum[r][j] + factor * line[j];
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; ++j) sum[r][j].store(c + r * c_stride + j * V::kCount);
}

template <typename T>
constexpr int kMostSums = sizeof(typename Vector<T>::values) == 64 ? 24 : 12;  // registers: 32 of AVX-512, else 16

template <int kColumns, typename A, typename T>
void multiply_columns(A a, const T* b, int64_t b_stride, T* c, int64_t c_stride, int rows, int depth,
                      const T* first, int64_t first_stride) {
  int r = 0;
  const auto step = [&](auto tile) {
    constexpr int kRows = tile();
    for (; r + kRows <= rows; r += kRows)
      multiply_tile<kRows, kColumns>(a.below(r), b, b_stride, c + r * c_stride,
                                     c_stride, depth, first == nullptr ? first : first + r * first_stride,
                                     first_stride);
  };
  // Narrow tiles have more rows: each sum must wait for its last addition, so enough of them have to be on their way.
  if constexpr (kColumns * 12 <= kMostSums<T>) step(std::integral_constant<int, 12>());
  step(std::integral_constant<int, 6>());
  step(std::integral_constant<int, 4>());
  step(std::integral_constant<int, 2>());
  step(std::integral_constant<int, 1>());
}

// c [rows, columns] = first + a [rows, depth] b [depth, columns]; `columns` counts whole registers' worth of padding.
// `first` is a matrix of rows `first_stride` apart (0: the same one), or null: 0.
template <typename A, typename T>
void multiply(A a, const T* b, int64_t b_stride, T* c, int64_t c_stride, int rows, int64_t columns, int depth,
              const T* first, int64_t first_stride) {
  constexpr int kMost = kMostSums<T> / 6;
  for (int64_t j = 0; j < columns;) {
    const int64_t left = (columns - j) / Lanes<T>::kCount;
    const int width = static_cast<int>(left < kMost ? left : kMost);
    if (width == 4)
      multiply_columns<4>(a, b + j, b_stride, c + j, c_stride, rows, depth, first, first_stride);
    else if (width == 3)
      multiply_columns<3>(a, b + j, b_stride, c + j, c_stride, rows, depth, first, first_stride);
    else if (width == 2)
      multiply_columns<2>(a, b + j, b_stride, c + j, c_stride, rows, depth, first, first_stride);
    else
      multiply_columns<1>(a, b + j, b_stride, c + j, c_stride, rows, depth, first, first_stride);
    j += width * Lanes<T>::kCount;
    if (first != nullptr) first += width * Lanes<T>::kCount;
  }
}

// c (+)= a b.
template <typename A, typename T>
void multiply(A a, const T* b, int64_t b_stride, T* c, int64_t c_stride, int rows, int64_t columns, int depth,
              bool add) {
  multiply(a, b, b_stride, c, c_stride, rows, columns, depth, add ? c : nullptr, c_stride);
}

// Hands out consecutive arrays.
template <typename T>
struct Memory {
  T* next;
  T* take(int64_t size) {
    T* here = next;
    next += size;
    return here;
  }
};

template <typename T>
AVATAR_HD void add_rows(const T* rows, int count, int64_t width, T* sum) {
  using V = Lanes<T>;
  for (int64_t j = 0; j < width; j += V::kCount) {
    V total = V::load(sum + j);
    for (int p = 0; p < count; ++p) total = total + V::load(rows + p * width + j);
    total.store(sum + j);
  }
}

}  // namespace AVATAR_ISA
}  // namespace avatar
