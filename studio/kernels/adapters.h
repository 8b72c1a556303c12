// Products with the low-rank matrices of adapters, in float32: one side is some dozen numbers wide, for which libraries
// have no shape of their own. Each number is made by one thread in one order, so their count changes nothing.

#pragma once

#include <algorithm>

#include "tiles.h"

namespace studio {

// out (rows x width) = or += left (rows x depth) times right (depth x width), width or depth being small. A few rows go
// through all of `right`, which stays in the cache.
inline void low_rank(const float* left, long left_row, const float* right, float* out, long out_row, long rows,
                     long width, long depth, bool add) {
  constexpr long ROWS = 6, DEPTH = 128;
#pragma omp parallel for schedule(static)
  for (long r = 0; r < rows; r += ROWS)
    for (long d = 0; d < depth; d += DEPTH)
      product<Single>(std::min(ROWS, rows - r), width, std::min(DEPTH, depth - d), left + r * left_row + d, left_row,
                      right + d * width, width, out + r * out_row, out_row, add || d > 0);
}

// out (few x width) = left (few x rows) times right (rows x width): the gradients of low-rank matrices. `right` is read
// once, a block at a time, which is laid side by side.
inline void over_rows(const float* left, const float* right, long right_row, float* out, long few, long rows,
                      long width) {
  constexpr long ROWS = 128, COLUMNS = 64;
#pragma omp parallel for schedule(dynamic)
  for (long c = 0; c < width; c += COLUMNS) {
    float panel[ROWS * COLUMNS];
    const long columns = std::min(COLUMNS, width - c);
    for (long r = 0; r < rows; r += ROWS) {
      const long here = std::min(ROWS, rows - r);
      for (long k = 0; k < here; k++)
        std::memcpy(panel + k * columns, right + (r + k) * right_row + c, columns * sizeof(float));
      product<Single>(few, columns, here, left + r, rows, panel, columns, out + c, width, r > 0);
    }
  }
}

}  // namespace studio
