// Products with the low-rank matrices of adapters: one side is some dozen numbers wide, for which libraries have no shape
// of their own. Each number is made by one thread in one order, so their count changes nothing.

#pragma once

#include <algorithm>

#include "panels.h"

namespace studio {

// out (rows x width) = or += left (rows x depth) times right (depth x width), width or depth being small; pairs make up
// the depth. A few rows go through all of `right`, which stays in the cache.
template <class Kind>
void low_rank(const typename Kind::Cell* left, long left_row, const typename Kind::Cell* right,
              typename Kind::Cell* out, long out_row, long rows, long width, long depth, bool add) {
  typedef typename Kind::Cell Cell;
  constexpr long ROWS = 12;
  const bool pairs = Kind::PAIR > 1;
  const long part = pairs ? depth : std::min(depth, 128L);  // what is rounded is rounded once
  std::unique_ptr<Cell[]> laid(pairs ? new Cell[depth * width] : nullptr);
  if (pairs) lay(right, width, depth, width, laid.get(), width);
  const Cell* panel = pairs ? laid.get() : right;
#pragma omp parallel for schedule(static)
  for (long r = 0; r < rows; r += ROWS)
    for (long d = 0; d < depth; d += part)
      product<Kind>(std::min(ROWS, rows - r), width, std::min(part, depth - d), left + r * left_row + d, left_row,
                    panel + d * width, width, out + r * out_row, out_row, add || d > 0);
}

// out (few x width) = the transpose of left (rows x few) times right (rows x width): the gradients of low-rank matrices.
// `right` is read once, a block at a time, which is laid side by side.
template <class Kind>
void over_rows(const typename Kind::Cell* left, long left_row, const typename Kind::Cell* right, long right_row,
               float* out, long few, long rows, long width) {
  typedef typename Kind::Cell Cell;
  constexpr long ROWS = 128, COLUMNS = 64;
  const long deep = filled(rows, Kind::PAIR);
  auto turned = room<Cell>(few * deep);
  turn(left, left_row, rows, few, turned.get(), deep);
#pragma omp parallel for schedule(dynamic)
  for (long c = 0; c < width; c += COLUMNS) {
    Cell panel[ROWS * COLUMNS];
    const long columns = std::min(COLUMNS, width - c);
    for (long r = 0; r < rows; r += ROWS) {
      const long here = std::min(ROWS, rows - r);
      lay(right + r * right_row + c, right_row, here, columns, panel, columns);
      product<Kind>(few, columns, filled(here, Kind::PAIR), turned.get() + r, deep, panel, columns, out + c, width,
                    r > 0);
    }
  }
}

}  // namespace studio
