// Arrays of rows, one row per Gaussian, to and from vector registers, one per column.
#pragma once

#include "common.h"

namespace avatar {
namespace AVATAR_ISA {

// Transpose rows from `first` on of an [n, Columns] array into one vector per column. Rows past `end` repeat
// the last row, so that they hold ordinary numbers.
template <int Columns, typename T>
void gather_rows(const T* array, int64_t first, int64_t end, Lanes<T> out[Columns]) {
  T column[Columns][Lanes<T>::kCount];
  for (int lane = 0; lane < Lanes<T>::kCount; ++lane) {
    const int64_t row = first + lane < end ? first + lane : end - 1;
    for (int k = 0; k < Columns; ++k) column[k][lane] = array[row * Columns + k];
  }
  for (int k = 0; k < Columns; ++k) out[k] = Lanes<T>::load(column[k]);
}

// The reverse, for the rows before `end`.
template <int Columns, typename T>
void scatter_rows(const Lanes<T> in[Columns], int64_t first, int64_t end, T* array) {
  T column[Columns][Lanes<T>::kCount];
  for (int k = 0; k < Columns; ++k) in[k].store(column[k]);
  for (int lane = 0; lane < Lanes<T>::kCount && first + lane < end; ++lane)
    for (int k = 0; k < Columns; ++k) array[(first + lane) * Columns + k] = column[k][lane];
}

}  // namespace AVATAR_ISA
}  // namespace avatar
