// The tiles of a vector register of Gaussians: avatar_tiles.h, branch-free and in lanes of double.
#pragma once

#include "avatar_tiles.h"
#include "common.h"

namespace avatar {
namespace AVATAR_ISA {

typedef Lanes<double> DoubleLanes;

AVATAR_HD DoubleLanes round_down(DoubleLanes x) { return DoubleLanes(0.0) - round_up(DoubleLanes(0.0) - x); }
AVATAR_HD DoubleLanes within(DoubleLanes x, double low, double high) {
  return at_most(at_least(x, DoubleLanes(low)), DoubleLanes(high));
}

struct TileEllipses {
  DoubleLanes x, y, b, inverse_a, determinant, level, half_height, lean;
  DoubleLanes limit;                // zero for what is left out
  DoubleLanes first_row, last_row;  // rows of tiles; none if first > last
};

// Twice the exponent at alpha = 1/255 is `limit`; not positive for what is not seen.
AVATAR_HD TileEllipses tile_ellipses(DoubleLanes x, DoubleLanes y, DoubleLanes a, DoubleLanes b, DoubleLanes c,
                                     DoubleLanes limit, int width, int height) {
  typedef DoubleLanes V;
  const V zero(0.0), infinite(HUGE_VAL);
  TileEllipses e;
  const V determinant = a * c - b * b;
  // Phrased so that NaN and infinity leave the Gaussian out.
  const Mask<double> good = (limit > zero) & (limit < infinite) & (a > zero) & (c > zero) &
                            (determinant < infinite) & (determinant > zero - infinite);
  const Mask<double> closed = determinant > zero;
  e.x = x;
  e.y = y;
  e.b = b;
  e.inverse_a = V(1.0) / a;
  e.determinant = select(closed, determinant, zero);
  e.limit = select(good, limit, zero);
  e.level = limit * a;
  // Where rounding opened the ellipse, it may be anywhere.
  const V anywhere = V(2.0 * (width + height)) + at_least(x, zero - x) + at_least(y, zero - y);
  const V half_width = select(closed, root(limit * c / determinant) + V(kTileMargin), anywhere);
  e.half_height = select(closed, root(limit * a / determinant) + V(kTileMargin), anywhere);
  e.lean = (zero - b) / c * half_width;
  const V top = y - e.half_height - V(0.5), bottom = y + e.half_height - V(0.5);
  const V left = x - half_width - V(0.5), right = x + half_width - V(0.5);
  const Mask<double> reached = good & (bottom >= zero) & (top <= V(height - 1.0)) & (right >= zero) &
                               (left <= V(width - 1.0));
  const V in_tiles(1.0 / kTile);
  e.first_row = select(reached, round_down(round_up(within(top, 0, height - 1)) * in_tiles), zero);
  e.last_row = select(reached, round_down(round_down(within(bottom, 0, height - 1)) * in_tiles), V(-1.0));
  return e;
}

// Columns of tiles [first, last] on the `i`th row of tiles of each; none if first > last.
AVATAR_HD void tile_columns(const TileEllipses& e, int i, int width, DoubleLanes* first, DoubleLanes* last) {
  typedef DoubleLanes V;
  const V zero(0.0), from = (e.first_row + V(i)) * V(kTile) + V(0.5) - e.y;
  const V low = at_least(from, zero - e.half_height), high = at_most(from + V(kTile - 1.0), e.half_height);
  const V at_right = at_most(at_least(e.lean, low), high), at_left = at_most(at_least(zero - e.lean, low), high);
  const V square_right = at_least(e.level - e.determinant * at_right * at_right, zero);
  const V square_left = at_least(e.level - e.determinant * at_left * at_left, zero);
  const V middle = e.x - V(0.5), margin(kTileMargin);
  const V right = (root(square_right) - e.b * at_right) * e.inverse_a + margin + middle;
  const V left = (zero - e.b * at_left - root(square_left)) * e.inverse_a - margin + middle;
  const V first_pixel = round_up(within(left, -1, width)), last_pixel = round_down(within(right, -1, width));
  const Mask<double> some = (low <= high) & (right >= zero) & (left <= V(width - 1.0)) & (first_pixel <= last_pixel) &
                            (e.first_row + V(i) <= e.last_row);
  const V in_tiles(1.0 / kTile);
  *first = select(some, round_down(within(first_pixel, 0, width - 1) * in_tiles), zero);
  *last = select(some, round_down(within(last_pixel, 0, width - 1) * in_tiles), V(-1.0));
}

}  // namespace AVATAR_ISA
}  // namespace avatar
