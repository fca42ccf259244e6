// Which 16x16 tiles a Gaussian can be seen in: those that its ellipse of alpha >= 1/255 touches. For each row of tiles,
// the exact horizontal extent of the ellipse within that row (the idea of Speedy-Splat, Hanson et al. 2025). In double:
// the determinant of a thin Gaussian loses most of its digits.
#pragma once

#include "avatar_math.h"

namespace avatar {
namespace AVATAR_ISA {

constexpr int kTile = 16;
constexpr double kTileMargin = 1e-3;  // pixels; covers rounding of the per-pixel test, which decides

struct TileEllipse {
  double x, y, b, inverse_a, determinant;
  double limit;  // twice the exponent at alpha = 1/255
  double level;  // limit * a
  double half_width, half_height;
  double lean;              // dy at the rightmost point
  int first_row, last_row;  // rows of tiles; none if first > last
};

AVATAR_HD int clamp_index(double value, int low, int high) {
  if (!(value > low)) return low;
  return value < high ? static_cast<int>(value) : high;
}

AVATAR_HD TileEllipse tile_ellipse(double x, double y, double a, double b, double c, double opacity, int width,
                                   int height) {
  TileEllipse e = {};
  e.last_row = -1;
  const double limit = limit_of_opacity(opacity);
  e.determinant = a * c - b * b;
  // Phrased so that NaN and infinity leave the Gaussian out.
  if (!(limit > 0.0) || !(limit < HUGE_VAL) || !(a > 0.0) || !(c > 0.0) || !(::fabs(e.determinant) < HUGE_VAL)) return e;
  e.x = x;
  e.y = y;
  e.b = b;
  e.inverse_a = 1.0 / a;
  e.limit = limit;
  e.level = limit * a;
  if (e.determinant > 0.0) {
    e.half_width = ::sqrt(limit * c / e.determinant) + kTileMargin;
    e.half_height = ::sqrt(limit * a / e.determinant) + kTileMargin;
  } else {  // rounding opened the ellipse: it may be anywhere
    e.determinant = 0.0;
    e.half_width = e.half_height = 2.0 * (width + height) + ::fabs(x) + ::fabs(y);
  }
  e.lean = -b / c * e.half_width;
  const double top = y - e.half_height - 0.5, bottom = y + e.half_height - 0.5;
  const double left = x - e.half_width - 0.5, right = x + e.half_width - 0.5;
  if (!(bottom >= 0.0) || !(top <= height - 1.0) || !(right >= 0.0) || !(left <= width - 1.0)) return e;
  e.first_row = clamp_index(::ceil(top), 0, height - 1) / kTile;
  e.last_row = clamp_index(::floor(bottom), 0, height - 1) / kTile;
  return e;
}

// Columns of tiles [first, last] that the ellipse reaches on the pixel centres of one row of tiles.
AVATAR_HD bool tile_columns(const TileEllipse& e, int row, int width, int* first, int* last) {
  double low = row * kTile + 0.5 - e.y, high = low + (kTile - 1);
  if (low < -e.half_height) low = -e.half_height;
  if (high > e.half_height) high = e.half_height;
  if (low > high) return false;
  const double at_right = e.lean < low ? low : (e.lean > high ? high : e.lean);
  const double at_left = -e.lean < low ? low : (-e.lean > high ? high : -e.lean);
  const double square_right = e.level - e.determinant * at_right * at_right;
  const double square_left = e.level - e.determinant * at_left * at_left;
  const double right =
      (-e.b * at_right + ::sqrt(square_right > 0.0 ? square_right : 0.0)) * e.inverse_a + kTileMargin + e.x - 0.5;
  const double left =
      (-e.b * at_left - ::sqrt(square_left > 0.0 ? square_left : 0.0)) * e.inverse_a - kTileMargin + e.x - 0.5;
  if (!(right >= 0.0) || !(left <= width - 1.0)) return false;
  const double first_pixel = ::ceil(left), last_pixel = ::floor(right);
  if (first_pixel > last_pixel) return false;
  *first = clamp_index(first_pixel, 0, width - 1) / kTile;
  *last = clamp_index(last_pixel, 0, width - 1) / kTile;
  return true;
}

}  // namespace AVATAR_ISA
}  // namespace avatar
