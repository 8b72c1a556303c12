// A few rows times a matrix that lies as torch keeps weights, (out x in): the next token of each answer. Libraries lay
// such a matrix out anew for each product, which takes longer than the product where the rows are few. Here each number
// of it is read once, while the processor fetches what comes next. Sums are made in float32, in one order with any
// number of threads.

#pragma once

#include <algorithm>
#include <vector>

#include "tiles.h"

namespace studio {

// As many sums as leave registers for what is multiplied, of 32 or 16.
constexpr int FEW_ROWS = WIDTH == 16 ? 6 : 4, FEW_COLUMNS = WIDTH == 16 ? 4 : 3;
constexpr long CACHE_LINE = 64, ALONE = 1 << 17;  // multiplications that are not worth waking threads for

// Keeps a vector in a register: compilers read it from memory again for each use, which is what takes the time here.
template <class V>
inline V held(V value) {
#if defined(__x86_64__)
  __asm__("" : "+v"(value));
#endif
  return value;
}

inline float halved(vec value) {
  typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
  const quad* parts = reinterpret_cast<const quad*>(&value);
  quad total = parts[0];
  for (int i = 1; i < WIDTH / 4; i++) total += parts[i];
  return (total[0] + total[2]) + (total[1] + total[3]);
}

#ifdef __AVX512F__
inline void store_four(float* to, __m128 values) { _mm_storeu_ps(to, values); }
inline void store_four(bf16* to, __m128 values) {
#ifdef __AVX512BF16__
  const __m128bh made = _mm_cvtneps_pbh(values);
  std::memcpy(to, &made, 8);
#else
  for (int i = 0; i < 4; i++) from_float(values[i], to[i]);
#endif
}
#endif

// The sums of four vectors, put side by side; where vectors cannot be shuffled, one after the other.
template <class T>
inline void put_sums(const vec (&values)[4], T* to) {
#ifdef __AVX512F__
  const __m512 a = (__m512)values[0], b = (__m512)values[1], c = (__m512)values[2], d = (__m512)values[3];
  const __m512d first = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512d second = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 all = _mm512_add_ps((__m512)_mm512_unpacklo_pd(first, second), (__m512)_mm512_unpackhi_pd(first, second));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), (__m256)_mm512_extractf64x4_pd((__m512d)all, 1));
  store_four(to, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
  for (int i = 0; i < 4; i++) from_float(halved(values[i]), to[i]);
#endif
}

// Numbers that lie side by side, STEP of them at a time: how they are read, and how two such add to a vector of sums.
template <class T>
struct Lane {
  typedef vec Part;
  static constexpr long STEP = WIDTH;
  static inline Part whole(const T* from) { return load(from); }
  static inline Part some(const T* from, long count) {
    float out[WIDTH] = {};
    for (long i = 0; i < count; i++) out[i] = to_float(from[i]);
    return load(out);
  }
  static inline void add(vec& sum, Part left, Part right) { sum += left * right; }
};

#ifdef __AVX512BF16__
template <>
struct Lane<bf16> {
  typedef __m512i Part;
  static constexpr long STEP = 2 * WIDTH;
  static inline Part whole(const bf16* from) { return _mm512_loadu_si512(from); }
  static inline Part some(const bf16* from, long count) {
    return _mm512_maskz_loadu_epi16((__mmask32(1) << count) - 1, from);
  }
  static inline void add(vec& sum, Part left, Part right) {
    sum = (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right);
  }
};
#endif

// Rows and the columns that they meet, each side by side: of both, `depth` numbers.
template <class T>
struct Sides {
  const T* left;
  long left_row;
  const T* right;
  long right_row, depth;
  Sides at(long row, long column) const {
    return {left + row * left_row, left_row, right + column * right_row, right_row, depth};
  }
  long whole() const { return depth / Lane<T>::STEP * Lane<T>::STEP; }
};

// Always inlined: where a compiler finds that there is enough of that, sums are kept in memory, at half the speed.
template <int ROWS, int COLUMNS, class T, class Read>
__attribute__((always_inline)) inline void add_step(const Sides<T>& s, long k, vec (&total)[ROWS][COLUMNS], Read read) {
  typename Lane<T>::Part here[COLUMNS];
#pragma GCC unroll 4
  for (int c = 0; c < COLUMNS; c++) here[c] = held(read(s.right + c * s.right_row + k));
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
    const typename Lane<T>::Part one = held(read(s.left + r * s.left_row + k));
#pragma GCC unroll 4
    for (int c = 0; c < COLUMNS; c++) Lane<T>::add(total[r][c], one, here[c]);
  }
}

template <int ROWS, int COLUMNS, class T>
__attribute__((always_inline)) inline void add_product(const Sides<T>& s, vec (&total)[ROWS][COLUMNS]) {
  const long whole = s.whole(), left = s.depth - whole;
  for (long k = 0; k < whole; k += Lane<T>::STEP) add_step(s, k, total, Lane<T>::whole);
  if (left) add_step(s, whole, total, [left](const T* from) { return Lane<T>::some(from, left); });
}

template <int ROWS, int COLUMNS, class T, class O>
inline void dots(const Sides<T>& first, const Sides<T>& second, O* out, long out_row) {
  vec total[ROWS][COLUMNS] = {};
  add_product(first, total);
  add_product(second, total);
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
    O* to = out + r * out_row;
    if constexpr (COLUMNS == 4) put_sums(total[r], to);
    else
#pragma GCC unroll 4
      for (int c = 0; c < COLUMNS; c++) from_float(halved(total[r][c]), to[c]);
  }
}

// All rows times some columns, whose numbers are in the cache after the first rows. Meanwhile `next` is fetched.
template <int COLUMNS, class T, class O>
inline void columns(const Sides<T>& first, const Sides<T>& second, long rows, O* out, long out_row, const T* next) {
  const char *at = reinterpret_cast<const char*>(next), *end = at + COLUMNS * first.right_row * sizeof(T);
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
constexpr long ALONE_STREAMED = 1 << 22;  // bytes that one thread reads while another wakes up

template <int ROWS, class T>
__attribute__((always_inline)) inline void add_streamed(const Sides<T>& s, vec (&total)[ROWS][STREAMS]) {
  constexpr long STEP = Lane<T>::STEP;
  const long whole = s.whole(), left = s.depth - whole;
  long k = 0;
  for (; k + STREAMS * STEP <= whole; k += STREAMS * STEP)
#pragma GCC unroll 4
    for (int part = 0; part < STREAMS; part++) {
      const auto here = Lane<T>::whole(s.right + k + part * STEP);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++)
        Lane<T>::add(total[r][part], Lane<T>::whole(s.left + r * s.left_row + k + part * STEP), here);
    }
  for (; k < whole; k += STEP)
    for (int r = 0; r < ROWS; r++)
      Lane<T>::add(total[r][0], Lane<T>::whole(s.left + r * s.left_row + k), Lane<T>::whole(s.right + k));
  for (int r = 0; left && r < ROWS; r++)
    Lane<T>::add(total[r][0], Lane<T>::some(s.left + r * s.left_row + k, left), Lane<T>::some(s.right + k, left));
}

template <int ROWS, class T>
void streamed(const Sides<T>& first, const Sides<T>& second, T* out, long out_row, long width) {
#pragma omp parallel for schedule(static) if (width * first.depth * long(sizeof(T)) > ALONE_STREAMED)
  for (long c = 0; c < width; c++) {
    vec total[ROWS][STREAMS] = {};
    add_streamed(first.at(0, c), total);
    add_streamed(second.at(0, c), total);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
      from_float(halved((total[r][0] + total[r][1]) + (total[r][2] + total[r][3])), out[r * out_row + c]);
  }
}

// out (rows x width) = the sum of both products of left (rows x depth) and the transpose of right (width x depth).
template <class T>
void few_rows(const Sides<T>& first, const Sides<T>& second, T* out, long out_row, long rows, long width) {
  if (rows == 1) return streamed<1>(first, second, out, out_row, width);
  if (rows == 2) return streamed<2>(first, second, out, out_row, width);
  if (rows == 3) return streamed<3>(first, second, out, out_row, width);
  const long parts = (width + FEW_COLUMNS - 1) / FEW_COLUMNS;
#pragma omp parallel for schedule(static) if (rows * width * first.depth > ALONE)
  for (long part = 0; part < parts; part++) {
    const long c = part * FEW_COLUMNS;
    const Sides<T> here = first.at(0, c), there = second.at(0, c);
    if (c + FEW_COLUMNS <= width)
      columns<FEW_COLUMNS>(here, there, rows, out + c, out_row, here.right + FEW_COLUMNS * here.right_row);
    else
      for (long one = 0; c + one < width; one++)
        columns<1>(here.at(0, one), there.at(0, one), rows, out + c + one, out_row, here.right);
  }
}

// x Wᵀ + (x Aᵀ) Bᵀ, or without the latter where the rank is 0.
template <class T>
void adapted_rows(const Sides<T>& layer, const void* down, const void* up, long rank, void* out, long out_row,
                  long rows, long width) {
  const Sides<T> none = {nullptr, 0, nullptr, 0, 0};
  std::vector<T> low(rows * rank);
  if (rank)
    few_rows({layer.left, layer.left_row, static_cast<const T*>(down), layer.depth, layer.depth}, none, low.data(),
             rank, rows, rank);
  few_rows(layer, {low.data(), rank, static_cast<const T*>(up), rank, rank}, static_cast<T*>(out), out_row, rows,
           width);
}

}  // namespace studio
