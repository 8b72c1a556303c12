// Rotary positions (Su et al. 2021, arXiv:2104.09864) in one pass: each number of a head's first half is turned with the
// one at its place in the second half.

#pragma once

#include "rows.h"

namespace studio {

// (rows, tokens, heads, size) with steps in elements; sizes lie side by side.
template <class T>
struct Turned {
  const T* data;
  long row, token, head;
  const T* at(long r, long t, long h = 0) const { return data + r * row + t * token + h * head; }
};

// out (rows, tokens, heads, size), side by side, from x and the cosines and sines of each row and token; `back` gives
// the slope of x for that of what it became.
template <class T>
void rotate(const Turned<T>& x, const Turned<T>& cosine, const Turned<T>& sine, T* out, long rows, long tokens,
            long heads, long size, bool back) {
  const long half = size / 2;
#pragma omp parallel for collapse(2) schedule(static) if (rows * tokens * heads * size > ALONE)
  for (long r = 0; r < rows; r++)
    for (long t = 0; t < tokens; t++) {
      const T *c = cosine.at(r, t), *s = sine.at(r, t);
      for (long h = 0; h < heads; h++) {
        const T* from = x.at(r, t, h);
        T* to = out + ((r * tokens + t) * heads + h) * size;
        long d = 0;
        for (; d + WIDTH <= half; d += WIDTH) {
          const vec first = load(from + d), second = load(from + half + d);
          const vec low = load(s + d), high = load(s + half + d);
          store(to + d, first * load(c + d) + second * (back ? high : -low));
          store(to + half + d, second * load(c + half + d) + first * (back ? -low : high));
        }
        for (; d < half; d++) {
          const float first = to_float(from[d]), second = to_float(from[half + d]);
          const float low = to_float(s[d]), high = to_float(s[half + d]);
          from_float(first * to_float(c[d]) + second * (back ? high : -low), to[d]);
          from_float(second * to_float(c[half + d]) + first * (back ? -low : high), to[half + d]);
        }
      }
    }
}

}  // namespace studio
