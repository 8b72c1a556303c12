// Products of small tiles in registers: the inner loops of attention.h.
//
// A right operand stands as a panel, [depth / PAIR][columns][PAIR], whose columns fill whole vectors; a left operand
// stands in rows, its depth side by side. Numbers are added up in float32. With AVX512-BF16 two bfloat16 products are
// one instruction; elsewhere everything is computed in float32, with the vectors that the compiler has for the CPU.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace studio {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float vec __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef uint16_t half_vec __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));
typedef uint32_t uvec __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

inline long filled(long count, long to) { return (count + to - 1) / to * to; }

struct bf16 {
  uint16_t bits;
};

inline float to_float(float value) { return value; }
inline float to_float(bf16 value) {
  uint32_t wide = uint32_t(value.bits) << 16;
  float out;
  std::memcpy(&out, &wide, 4);
  return out;
}
inline void from_float(float value, float& out) { out = value; }
inline void from_float(float value, bf16& out) {  // to the nearest, ties to even; what is no number stays none
  uint32_t wide;
  std::memcpy(&wide, &value, 4);
  if (value != value) {
    out.bits = uint16_t((wide >> 16) | 0x40);
    return;
  }
  out.bits = uint16_t((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
}

inline vec splat(float value) { return value - vec{}; }
inline vec load(const float* from) { return *reinterpret_cast<const vec*>(from); }
inline vec load(const bf16* from) {
  uvec wide = __builtin_convertvector(*reinterpret_cast<const half_vec*>(from), uvec) << 16;
  return reinterpret_cast<vec&>(wide);
}
inline void store(float* to, vec value) { *reinterpret_cast<vec*>(to) = value; }
inline void store(bf16* to, vec value) {
#ifdef __AVX512BF16__
  *reinterpret_cast<half_vec*>(to) = (half_vec)_mm512_cvtneps_pbh((__m512)value);
#else
  uvec wide = reinterpret_cast<uvec&>(value);
  uvec rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
  uvec none = (wide >> 16) | 0x40;
  ivec odd = value != value;
  uvec mask = reinterpret_cast<uvec&>(odd);
  *reinterpret_cast<half_vec*>(to) = __builtin_convertvector((rounded & ~mask) | (none & mask), half_vec);
#endif
}
inline vec choose(ivec mask, vec yes, vec no) {
  ivec out = (reinterpret_cast<ivec&>(yes) & mask) | (reinterpret_cast<ivec&>(no) & ~mask);
  return reinterpret_cast<vec&>(out);
}
// The larger of both, and what is no number where one is.
inline vec greater(vec a, vec b) { return choose((a > b) | (a != a), a, b); }
inline float sum(vec value) {
  float total = 0;
  for (int i = 0; i < WIDTH; i++) total += value[i];
  return total;
}
inline float largest(vec value) {
  float top = value[0];
  for (int i = 1; i < WIDTH; i++)
    if (value[i] > top || value[i] != value[i]) top = value[i];
  return top;
}

// e to the x, to 2 units in the last place; 0 below -87 (Cephes' polynomial, Moshier 1992).
inline vec exponential(vec x) {
  const vec low = splat(-87.0f);
  ivec tiny = x < low;
  x = choose(x > splat(88.0f), splat(88.0f), choose(tiny, low, x));
  vec scaled = x * 1.44269504f + choose(x < splat(0.0f), splat(-0.5f), splat(0.5f));
  ivec whole = __builtin_convertvector(scaled, ivec);
  vec n = __builtin_convertvector(whole, vec);
  vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  ivec power = (whole + 127) << 23;
  vec out = p * reinterpret_cast<vec&>(power);
  return choose(tiny, splat(0.0f), out);
}

// How a number is held while it is multiplied.
struct Single {
  typedef float Cell;
  static constexpr int PAIR = 1;
  typedef vec Right;
  static inline Cell cell(float value) { return value; }
  static inline void cells(Cell* to, vec value) { store(to, value); }
  static inline Right right(const Cell* from) { return load(from); }
  static inline vec multiply(vec sum, const Cell* left, Right right) { return sum + splat(*left) * right; }
};

#ifdef __AVX512BF16__
struct Paired {
  typedef bf16 Cell;
  static constexpr int PAIR = 2;
  typedef __m512bh Right;
  static inline Cell cell(float value) {
    bf16 out;
    from_float(value, out);
    return out;
  }
  static inline void cells(Cell* to, vec value) { store(to, value); }
  static inline Right right(const Cell* from) { return (__m512bh)_mm512_loadu_si512(from); }
  static inline vec multiply(vec sum, const Cell* left, Right right) {
    int32_t pair;
    std::memcpy(&pair, left, 4);
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair), right);
  }
};
#endif

// What is added to comes last: long sums are sums of short ones, which lose less.
template <class Kind, int ROWS, int VECTORS, class T>
inline void tile(long steps, const typename Kind::Cell* left, long left_row, const typename Kind::Cell* right,
                 long columns, T* out, long out_row, bool add) {
  vec total[ROWS][VECTORS];
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) total[r][v] = vec{};
  for (long k = 0; k < steps; k++) {
    typename Kind::Right here[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) here[v] = Kind::right(right + (k * columns + v * WIDTH) * Kind::PAIR);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++)
        total[r][v] = Kind::multiply(total[r][v], left + r * left_row + k * Kind::PAIR, here[v]);
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      T* at = out + r * out_row + v * WIDTH;
      store(at, add ? load(at) + total[r][v] : total[r][v]);
    }
}

// As many rows as leave registers for what is multiplied: 24 sums of 32, 12 of 16.
template <class Kind, int VECTORS, class T>
inline void strip(long rows, long steps, const typename Kind::Cell* left, long left_row,
                  const typename Kind::Cell* right, long columns, T* out, long out_row, bool add) {
  constexpr int ROWS = VECTORS == 1 ? 12 : 6;
  long r = 0;
  for (; r + ROWS <= rows; r += ROWS)
    tile<Kind, ROWS, VECTORS>(steps, left + r * left_row, left_row, right, columns, out + r * out_row, out_row, add);
  for (; r + 4 <= rows; r += 4)
    tile<Kind, 4, VECTORS>(steps, left + r * left_row, left_row, right, columns, out + r * out_row, out_row, add);
  for (; r < rows; r++)
    tile<Kind, 1, VECTORS>(steps, left + r * left_row, left_row, right, columns, out + r * out_row, out_row, add);
}

// out (rows x width) = or += left (rows x depth) times a panel (depth x columns), of whose columns `width` are taken.
template <class Kind, class T>
inline void product(long rows, long width, long depth, const typename Kind::Cell* left, long left_row,
                    const typename Kind::Cell* panel, long columns, T* out, long out_row, bool add) {
  const long steps = depth / Kind::PAIR;
  long at = 0;
  constexpr int MOST = WIDTH == 16 ? 4 : 2;
  for (; at + MOST * WIDTH <= width; at += MOST * WIDTH)
    strip<Kind, MOST>(rows, steps, left, left_row, panel + at * Kind::PAIR, columns, out + at, out_row, add);
  for (; at + 2 * WIDTH <= width; at += 2 * WIDTH)
    strip<Kind, 2>(rows, steps, left, left_row, panel + at * Kind::PAIR, columns, out + at, out_row, add);
  for (; at + WIDTH <= width; at += WIDTH)
    strip<Kind, 1>(rows, steps, left, left_row, panel + at * Kind::PAIR, columns, out + at, out_row, add);
}

}  // namespace studio
