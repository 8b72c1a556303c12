// A few rows times a matrix that lies as torch keeps weights, (out x in), in float32: the next token of each answer.
// Libraries lay such a matrix out anew for each product, which takes longer than the product where the rows are few. Here
// each number of it is read once, while the processor fetches what comes next. Sums are made in one order with any number
// of threads.

#pragma once

#include <algorithm>
#include <vector>

#include "tiles.h"

namespace studio {

// As many sums as leave registers for what is multiplied, of 32 or 16.
constexpr int FEW_ROWS = WIDTH == 16 ? 6 : 4, FEW_COLUMNS = WIDTH == 16 ? 4 : 3;
constexpr long CACHE_LINE = 64, ALONE = 1 << 17;  // multiplications that are not worth waking threads for

// Keeps a vector in a register: compilers read it from memory again for each use, which is what takes the time here.
inline void held(vec& value) {
#if defined(__x86_64__)
  __asm__("" : "+v"(value));
#else
  (void)value;
#endif
}

inline float halved(vec value) {
  typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
  const quad* parts = reinterpret_cast<const quad*>(&value);
  quad total = parts[0];
  for (int i = 1; i < WIDTH / 4; i++) total += parts[i];
  return (total[0] + total[2]) + (total[1] + total[3]);
}

// Rows and the columns that they meet, each side by side: of both, `depth` numbers.
struct Sides {
  const float* left;
  long left_row;
  const float* right;
  long right_row, depth;
  Sides at(long row, long column) const {
    return {left + row * left_row, left_row, right + column * right_row, right_row, depth};
  }
};

// Always inlined: where a compiler finds that there is enough of that, sums are kept in memory, at half the speed.
template <int ROWS, int COLUMNS>
__attribute__((always_inline)) inline void add_whole(const Sides& s, vec (&total)[ROWS][COLUMNS]) {
  for (long k = 0; k + WIDTH <= s.depth; k += WIDTH) {
    vec here[COLUMNS];
#pragma GCC unroll 4
    for (int c = 0; c < COLUMNS; c++) held(here[c] = load(s.right + c * s.right_row + k));
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      vec one = load(s.left + r * s.left_row + k);
      held(one);
#pragma GCC unroll 4
      for (int c = 0; c < COLUMNS; c++) total[r][c] += one * here[c];
    }
  }
}

inline float rest(const Sides& s, int row, int column) {
  float made = 0;
  for (long k = s.depth / WIDTH * WIDTH; k < s.depth; k++)
    made += s.left[row * s.left_row + k] * s.right[column * s.right_row + k];
  return made;
}

template <int ROWS, int COLUMNS>
inline void dots(const Sides& first, const Sides& second, float* out, long out_row) {
  vec total[ROWS][COLUMNS] = {};
  add_whole(first, total);
  add_whole(second, total);
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int c = 0; c < COLUMNS; c++)
      out[r * out_row + c] = halved(total[r][c]) + rest(first, r, c) + rest(second, r, c);
}

// All rows times some columns, whose numbers are in the cache after the first rows. Meanwhile `next` is fetched.
template <int COLUMNS>
inline void columns(const Sides& first, const Sides& second, long rows, float* out, long out_row, const float* next) {
  const char *at = reinterpret_cast<const char*>(next), *end = at + COLUMNS * first.right_row * sizeof(float);
  const long tiles = std::max(1L, rows / FEW_ROWS), lines = (end - at + CACHE_LINE - 1) / CACHE_LINE;
  const long share = (lines + tiles - 1) / tiles * CACHE_LINE;
  long r = 0;
  for (; r + FEW_ROWS <= rows; r += FEW_ROWS) {
    for (const char* stop = std::min(end, at + share); at < stop; at += CACHE_LINE) __builtin_prefetch(at);
    dots<FEW_ROWS, COLUMNS>(first.at(r, 0), second.at(r, 0), out + r * out_row, out_row);
  }
  for (; r + 2 <= rows; r += 2) dots<2, COLUMNS>(first.at(r, 0), second.at(r, 0), out + r * out_row, out_row);
  for (; r < rows; r++) dots<1, COLUMNS>(first.at(r, 0), second.at(r, 0), out + r * out_row, out_row);
}

// Fewer rows than a tile has, whose time is that of reading the numbers of `right`: one column after the other, as they
// lie in memory, by as many sums as keep the processor from waiting for the last one.
constexpr int STREAMS = 4;
constexpr long ALONE_STREAMED = 1 << 20;  // numbers that one thread reads while another wakes up

template <int ROWS>
__attribute__((always_inline)) inline void add_streamed(const Sides& s, vec (&total)[ROWS][STREAMS]) {
  long k = 0;
  for (; k + STREAMS * WIDTH <= s.depth; k += STREAMS * WIDTH)
#pragma GCC unroll 4
    for (int part = 0; part < STREAMS; part++) {
      const vec here = load(s.right + k + part * WIDTH);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) total[r][part] += load(s.left + r * s.left_row + k + part * WIDTH) * here;
    }
  for (; k + WIDTH <= s.depth; k += WIDTH)
    for (int r = 0; r < ROWS; r++) total[r][0] += load(s.left + r * s.left_row + k) * load(s.right + k);
}

template <int ROWS>
void streamed(const Sides& first, const Sides& second, float* out, long out_row, long width) {
#pragma omp parallel for schedule(static) if (width * first.depth > ALONE_STREAMED)
  for (long c = 0; c < width; c++) {
    const Sides here = first.at(0, c), there = second.at(0, c);
    vec total[ROWS][STREAMS] = {};
    add_streamed(here, total);
    add_streamed(there, total);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
      out[r * out_row + c] = halved((total[r][0] + total[r][1]) + (total[r][2] + total[r][3])) + rest(here, r, 0) +
                             rest(there, r, 0);
  }
}

// out (rows x width) = the sum of both products of left (rows x depth) and the transpose of right (width x depth).
inline void few_rows(const Sides& first, const Sides& second, float* out, long out_row, long rows, long width) {
  if (rows == 1) return streamed<1>(first, second, out, out_row, width);
  if (rows == 2) return streamed<2>(first, second, out, out_row, width);
  if (rows == 3) return streamed<3>(first, second, out, out_row, width);
  const long parts = (width + FEW_COLUMNS - 1) / FEW_COLUMNS;
#pragma omp parallel for schedule(static) if (rows * width * first.depth > ALONE)
  for (long part = 0; part < parts; part++) {
    const long c = part * FEW_COLUMNS;
    const Sides here = first.at(0, c), there = second.at(0, c);
    if (c + FEW_COLUMNS <= width)
      columns<FEW_COLUMNS>(here, there, rows, out + c, out_row, here.right + FEW_COLUMNS * here.right_row);
    else
      for (long one = 0; c + one < width; one++)
        columns<1>(here.at(0, one), there.at(0, one), rows, out + c + one, out_row, here.right);
  }
}

// x Wᵀ + (x Aᵀ) Bᵀ, or without the latter where the rank is 0.
inline void adapted_rows(const Sides& layer, const float* down, const float* up, long rank, float* out, long out_row,
                         long rows, long width) {
  const Sides none = {nullptr, 0, nullptr, 0, 0};
  std::vector<float> low(rows * rank);
  if (rank)
    few_rows({layer.left, layer.left_row, down, layer.depth, layer.depth}, none, low.data(), rank, rows, rank);
  few_rows(layer, {low.data(), rank, up, rank, rank}, out, out_row, rows, width);
}

}  // namespace studio
