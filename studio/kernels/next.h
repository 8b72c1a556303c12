// Attention of one new token of each row to the tokens before it, whose keys and values are kept: what a step of writing
// asks for. Its time is that of reading them, which heads that share keys do together. Sums are made in float32, by one
// thread for each row and head of keys, so their count changes nothing.

#pragma once

#include <vector>

#include "rows.h"

namespace studio {

// (rows, heads, tokens, size) with steps in elements; sizes lie side by side.
template <class T>
struct Kept {
  const T* data;
  long row, head, token, size;
  const T* at(long r, long h, long t = 0) const { return data + r * row + h * head + t * token; }
};

// Scores become weights whose sum is returned; `many` is a whole number of vectors.
inline float weigh(float* scores, long many, float scale) {
  vec top = load(scores);
  for (long t = WIDTH; t < many; t += WIDTH) top = greater(top, load(scores + t));
  const float most = largest(top);
  if (most == -INFINITY) return std::fill(scores, scores + many, 0.0f), 1.0f;
  vec total = vec{};
  for (long t = 0; t < many; t += WIDTH) {
    const vec weight = exponential((load(scores + t) - most) * scale);
    store(scores + t, weight);
    total += weight;
  }
  return sum(total);
}

// Values (tokens, size), some vectors wide, times the weights that heads give them: (HEADS x many), divided by `mass`.
template <int HEADS, int VECTORS, class T>
inline void mixed(const T* values, long step, long tokens, const float* weights, long many, const float* mass, T* out,
                  long out_row) {
  vec total[HEADS][VECTORS] = {};
  for (long t = 0; t < tokens; t++) {
    vec here[VECTORS];
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) here[i] = load(values + t * step + i * WIDTH);
#pragma GCC unroll 4
    for (int g = 0; g < HEADS; g++)
#pragma GCC unroll 4
      for (int i = 0; i < VECTORS; i++) total[g][i] += weights[g * many + t] * here[i];
  }
#pragma GCC unroll 4
  for (int g = 0; g < HEADS; g++)
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++) store(out + g * out_row + i * WIDTH, total[g][i] * (1 / mass[g]));
}

template <int HEADS, class T>
void mix(const T* values, long step, long tokens, long size, const float* weights, long many, const float* mass, T* out) {
  constexpr int MOST = 2;
  long d = 0;
  for (; d + MOST * WIDTH <= size; d += MOST * WIDTH)
    mixed<HEADS, MOST>(values + d, step, tokens, weights, many, mass, out + d, size);
  for (; d + WIDTH <= size; d += WIDTH)
    mixed<HEADS, 1>(values + d, step, tokens, weights, many, mass, out + d, size);
  for (; d < size; d++)
    for (int g = 0; g < HEADS; g++) {
      float total = 0;
      for (long t = 0; t < tokens; t++) total += weights[g * many + t] * to_float(values[t * step + d]);
      from_float(total / mass[g], out[g * size + d]);
    }
}

// q: (rows, heads, 1, size); out: (rows, heads, size of v); seen: (rows, tokens), or null where each sees all of them.
template <class T>
void next_token(const Kept<T>& q, const Kept<T>& k, const Kept<T>& v, T* out, const uint8_t* seen, long seen_row,
                long rows, long heads, long key_heads, long tokens, float scale) {
  const long group = heads / key_heads, many = filled(tokens, WIDTH);
  const Sides<T> none = {nullptr, 0, nullptr, 0, 0};
#pragma omp parallel if (rows * heads * tokens * q.size > ALONE)
  {
    std::vector<float> scores(group * many), mass(group);
#pragma omp for collapse(2) schedule(static)
    for (long r = 0; r < rows; r++)
      for (long h = 0; h < key_heads; h++) {
        const uint8_t* mine = seen ? seen + r * seen_row : nullptr;
        const Sides<T> all = {q.at(r, h * group), q.head, k.at(r, h), k.token, q.size};
        long first = 0;  // of what it sees: padding before it may hold anything
        while (mine && first < tokens && !mine[first]) first++;
        long t = first;
        for (; t + FEW_COLUMNS <= tokens; t += FEW_COLUMNS)
          columns<FEW_COLUMNS>(all.at(0, t), none, group, &scores[t], many, k.at(r, h, t + FEW_COLUMNS));
        for (; t < tokens; t++) columns<1>(all.at(0, t), none, group, &scores[t], many, k.at(r, h, t));
        for (long g = 0; g < group; g++) {
          float* row = &scores[g * many];
          std::fill(row, row + first, -INFINITY);
          for (long other = first; mine && other < tokens; other++)
            if (!mine[other]) row[other] = -INFINITY;
          std::fill(row + tokens, row + many, -INFINITY);
          mass[g] = weigh(row, many, scale);
        }
        const T* values = v.at(r, h, first);
        const float* weights = scores.data() + first;
        T* to = out + (r * heads + h * group) * v.size;
        long g = 0;
        for (; g + 3 <= group; g += 3)
          mix<3>(values, v.token, tokens - first, v.size, weights + g * many, many, &mass[g], to + g * v.size);
        for (; g < group; g++)
          mix<1>(values, v.token, tokens - first, v.size, weights + g * many, many, &mass[g], to + g * v.size);
      }
  }
}

}  // namespace studio
