// Rows made into what tiles.h multiplies: cells, and panels in which the numbers that are multiplied together lie side by
// side.

#pragma once

#include <memory>

#include "tiles.h"

namespace studio {

typedef uint32_t word __attribute__((may_alias));

template <class Cell>
std::unique_ptr<Cell[]> room(long count) {
  return std::unique_ptr<Cell[]>(new Cell[count]());
}

// Numbers that lie side by side, as cells.
template <class Kind, class T>
inline void take(const T* from, long count, typename Kind::Cell* to) {
  long d = 0;
  for (; d + WIDTH <= count; d += WIDTH) Kind::cells(to + d, load(from + d));
  for (; d < count; d++) to[d] = Kind::cell(to_float(from[d]));
}

// Sums that lie side by side, as numbers.
template <class T>
inline void give(const float* from, float factor, long count, T* to) {
  long d = 0;
  for (; d + WIDTH <= count; d += WIDTH) store(to + d, load(from + d) * factor);
  for (; d < count; d++) from_float(from[d] * factor, to[d]);
}

// A panel, `width` columns wide, whose depth are rows of cells that lie `row` apart. An odd last row is paired with 0.
inline void lay(const float* cells, long row, long rows, long columns, float* panel, long width) {
  for (long r = 0; r < rows; r++) std::memcpy(panel + r * width, cells + r * row, columns * sizeof(float));
}
inline void lay(const bf16* cells, long row, long rows, long columns, bf16* panel, long width) {
  for (long r = 0; r < rows; r += 2, panel += 2 * width) {
    const bf16 *even = cells + r * row, *odd = even + row;
    const bool alone = r + 1 == rows;
    long c = 0;
    for (; c + WIDTH <= columns; c += WIDTH) {
      uvec both = __builtin_convertvector(*reinterpret_cast<const half_vec*>(even + c), uvec);
      if (!alone) both |= __builtin_convertvector(*reinterpret_cast<const half_vec*>(odd + c), uvec) << 16;
      *reinterpret_cast<uvec*>(panel + 2 * c) = both;
    }
    for (; c < columns; c++) panel[2 * c] = even[c], panel[2 * c + 1] = alone ? bf16{} : odd[c];
  }
}

#ifdef __AVX512F__
// 16 x 16 words turned, by pairs, fours and quarters of a vector.
inline void turn_block(const word* from, long row, word* to, long to_row) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from + i * row);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {  // a quarter of a[4 n + c] is the word c, c + 4, c + 8 or c + 12 of four rows
    __m512i even = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88), odd = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
    __m512i more = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88);
    __m512i rest = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
    _mm512_storeu_si512(to + c * to_row, _mm512_shuffle_i32x4(even, more, 0x88));
    _mm512_storeu_si512(to + (c + 4) * to_row, _mm512_shuffle_i32x4(odd, rest, 0x88));
    _mm512_storeu_si512(to + (c + 8) * to_row, _mm512_shuffle_i32x4(even, more, 0xdd));
    _mm512_storeu_si512(to + (c + 12) * to_row, _mm512_shuffle_i32x4(odd, rest, 0xdd));
  }
}
#endif

// (rows, words) as (words, rows), of 32 bits each.
inline void turn_words(const void* from_, long row, long rows, long words, void* to_, long to_row) {
  auto from = static_cast<const word*>(from_);
  auto to = static_cast<word*>(to_);
  long whole_rows = 0, whole_words = 0;
#ifdef __AVX512F__
  whole_rows = rows / 16 * 16, whole_words = words / 16 * 16;
  for (long r = 0; r < whole_rows; r += 16)
    for (long w = 0; w < whole_words; w += 16) turn_block(from + r * row + w, row, to + w * to_row + r, to_row);
#endif
  for (long w = 0; w < words; w++)
    for (long r = w < whole_words ? whole_rows : 0; r < rows; r++) to[w * to_row + r] = from[r * row + w];
}

// A panel, `width` columns wide, whose columns are rows of cells and whose depth is a whole number of pairs: for products
// with what the rows are the transpose of.
template <class Cell>
inline void lay_across(const Cell* cells, long row, long rows, long depth, Cell* panel, long width) {
  constexpr long P = 4 / sizeof(Cell);
  turn_words(cells, row / P, rows, depth / P, panel, width);
}

// Cells turned: (rows, columns) as (columns, rows), with 0 behind an odd last one. Pairs are made and turned in parts.
inline void turn(const float* cells, long row, long rows, long columns, float* to, long to_row) {
  turn_words(cells, row, rows, columns, to, to_row);
}
inline void turn(const bf16* cells, long row, long rows, long columns, bf16* to, long to_row) {
  constexpr long ROWS = 32, COLUMNS = 64;
  bf16 panel[ROWS * COLUMNS];
  for (long r = 0; r < rows; r += ROWS)
    for (long c = 0; c < columns; c += COLUMNS) {
      const long here = std::min(ROWS, rows - r), wide = std::min(COLUMNS, columns - c);
      lay(cells + r * row + c, row, here, wide, panel, wide);
      turn_words(panel, wide, (here + 1) / 2, wide, to + c * to_row + r, to_row / 2);
    }
}

}  // namespace studio
