// Causal attention within segments, forward and backward, without a mask and without a matrix of scores.
//
// As FlashAttention (Dao 2023, arXiv:2307.08691) does on a GPU: scores exist for one tile at a time, their maximum and
// sum are kept as a logarithm for the backward pass, which computes them again. Keys and values may be shared by
// several heads (grouped queries), and a window may hide what is far behind. A segment may continue another one, which
// several do: it sees all of that, and what that one continues. Each number is written by one thread and added up in
// one order, so a run repeats to the bit, with any number of threads.

#pragma once

#include <vector>

#include "panels.h"

namespace studio {

// (tokens, heads, size) with steps between tokens and heads in elements; sizes lie side by side.
template <class T>
struct Heads {
  T* data;
  long token, head;
  T* row(long t, long h) const { return data + t * token + h * head; }
};

struct Shape {
  long heads, key_heads, size, padded, window;  // padded: size, filled up to whole vectors; window 0: all before
  float scale;
  long group() const { return heads / key_heads; }
};

struct Segment {
  long start, length, before;  // before: the segment that it continues, earlier in the list; -1 for none
};

constexpr long TILE = 64;  // queries and keys of a tile; whole vectors
constexpr long STRIP = 32;  // of a tile on the diagonal, of which half is not seen

// Rows of one head as cells, [rows][padded]; what is beyond them stays 0.
template <class Kind, class T>
void take_rows(const Heads<T>& from, long head, long first, long rows, const Shape& s, typename Kind::Cell* to) {
  for (long r = 0; r < rows; r++) take<Kind>(from.row(first + r, head), s.size, to + r * s.padded);
}

// Whether query i of a segment sees key j.
inline bool sees(long i, long j, long window) { return j <= i && (window == 0 || j > i - window); }

// How many of a tile's keys, in whole vectors, a strip of `have` queries needs: not all on the diagonal.
inline long seen_by(long first, long strip, long have, bool diagonal, long keys) {
  return filled(diagonal ? std::min(first + strip, have) : keys, WIDTH);
}

template <class Kind, class T>
void forward(const Heads<const T>& q, const Heads<const T>& k, const Heads<const T>& v, const Heads<T>& out,
             float* logsum, const std::vector<Segment>& segments, const Shape& s) {
  typedef typename Kind::Cell Cell;
  std::vector<long> at;  // where the panels of a segment begin, in tokens
  long tokens = 0;
  for (auto& one : segments) at.push_back(tokens), tokens += filled(one.length, TILE);
  auto keys = room<Cell>(tokens * s.key_heads * s.padded), values = room<Cell>(tokens * s.key_heads * s.padded);
  long count = long(segments.size());
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (long n = 0; n < count; n++)
    for (long h = 0; h < s.key_heads; h++) {
      long length = segments[n].length, whole = filled(length, TILE);
      auto cells = room<Cell>(whole * s.padded);
      Cell* to = keys.get() + (at[n] * s.key_heads + whole * h) * s.padded;
      take_rows<Kind>(k, h, segments[n].start, length, s, cells.get());
      for (long key = 0; key < length; key += TILE)
        lay_across(cells.get() + key * s.padded, s.padded, TILE, s.padded, to + key * s.padded, TILE);
      take_rows<Kind>(v, h, segments[n].start, length, s, cells.get());
      lay(cells.get(), s.padded, whole, s.padded, values.get() + (to - keys.get()), s.padded);
    }
  struct Job {
    long segment, head, first;
  };
  std::vector<Job> jobs;
  for (long n = 0; n < count; n++)  // the longest first: nobody waits for them at the end
    for (long first = (segments[n].length - 1) / TILE * TILE; first >= 0; first -= TILE)
      for (long h = 0; h < s.heads; h++) jobs.push_back({n, h, first});
  long todo = long(jobs.size());
#pragma omp parallel
  {
    auto rows = room<Cell>(TILE * s.padded), weights = room<Cell>(TILE * TILE);
    auto scores = room<float>(TILE * TILE), total = room<float>(TILE * s.padded);
    float top[TILE], mass[TILE];
#pragma omp for schedule(dynamic)
    for (long job = 0; job < todo; job++) {
      auto [n, h, first] = jobs[job];
      long start = segments[n].start, length = segments[n].length;
      long have = std::min(TILE, length - first);
      take_rows<Kind>(q, h, start + first, have, s, rows.get());
      std::fill(total.get(), total.get() + TILE * s.padded, 0.0f);
      std::fill(top, top + TILE, -INFINITY);
      std::fill(mass, mass + TILE, 0.0f);
      for (long other = n; other >= 0; other = segments[other].before) {
        const bool own = other == n;
        const long many = segments[other].length, stop = own ? first + have : many;
        const Cell* right = keys.get() + (at[other] * s.key_heads + filled(many, TILE) * (h / s.group())) * s.padded;
        const Cell* below = values.get() + (right - keys.get());
        const long from = own && s.window ? std::max(0L, first - s.window + 1) / TILE * TILE : 0;
        for (long key = from; key < stop; key += TILE) {
          // On the diagonal a strip of queries sees the keys up to its own end.
          const bool diagonal = own && key == first;
          const long strip = diagonal ? STRIP : TILE, some = std::min(TILE, many - key);
          for (long r = 0; r < have; r += strip)
            product<Kind>(std::min(strip, have - r), seen_by(r, strip, have, diagonal, some), s.padded,
                          rows.get() + r * s.padded, s.padded, right + key * s.padded, TILE, scores.get() + r * TILE,
                          TILE, false);
          const bool edge = own ? diagonal || (s.window && key <= first + have - s.window) : some % WIDTH;
          for (long r = 0; r < have; r++) {
            float* row = scores.get() + r * TILE;
            const long wide = seen_by(r / strip * strip, strip, have, diagonal, some);
            if (edge) {
              const long newest = first + r - key, oldest = own && s.window ? newest - s.window + 1 : 0;
              std::fill(row, row + std::clamp(oldest, 0L, wide), -INFINITY);
              std::fill(row + std::clamp(own ? newest + 1 : some, 0L, wide), row + wide, -INFINITY);
            }
            vec most = load(row);
            for (long j = WIDTH; j < wide; j += WIDTH) most = greater(most, load(row + j));
            float now = std::max(largest(most) * s.scale, top[r]);  // no number if the first is none
            Cell* weight = weights.get() + r * TILE;
            if (now == -INFINITY) {
              for (long j = 0; j < wide; j++) weight[j] = Kind::cell(0);
              continue;
            }
            vec added = vec{};
            for (long j = 0; j < wide; j += WIDTH) {
              vec e = exponential(load(row + j) * s.scale - now);
              added += e;
              Kind::cells(weight + j, e);
            }
            float shrink = top[r] == -INFINITY ? 0.0f : std::exp(top[r] - now);
            mass[r] = mass[r] * shrink + sum(added);
            if (shrink != 1.0f)
              for (long d = 0; d < s.padded; d += WIDTH)
                store(&total[r * s.padded + d], load(&total[r * s.padded + d]) * shrink);
            top[r] = now;
          }
          for (long r = 0; r < have; r += strip)
            product<Kind>(std::min(strip, have - r), s.padded, seen_by(r, strip, have, diagonal, some),
                          weights.get() + r * TILE, TILE, below + key * s.padded, s.padded, total.get() + r * s.padded,
                          s.padded, true);
        }
      }
      for (long r = 0; r < have; r++) {
        T* to = out.row(start + first + r, h);
        give(&total[r * s.padded], 1.0f / mass[r], s.size, to);
        logsum[(start + first + r) * s.heads + h] = top[r] + std::log(mass[r]);
      }
    }
  }
}

template <class Kind, class T>
void backward(const Heads<const T>& q, const Heads<const T>& k, const Heads<const T>& v, const Heads<const T>& out,
              const float* logsum, const Heads<const T>& given, const Heads<T>& dq, const Heads<T>& dk,
              const Heads<T>& dv, const std::vector<Segment>& segments, const Shape& s) {
  typedef typename Kind::Cell Cell;
  struct Job {
    long segment, head, first, last, piece;  // the keys from first to last of a head of keys
  };
  struct Reader {
    long segment, piece;  // who sees the keys of a segment, and which of its sums for dq their first piece adds to
  };
  const long count = long(segments.size());
  std::vector<Job> jobs;
  std::vector<std::vector<Reader>> readers(count);
  std::vector<long> places, pieces;  // of the sums for dq: where those of a segment begin, and how many there are
  long floats = 0;
  auto piece_of = [&](long n) { return std::max(256L, filled((segments[n].length + 3) / 4, TILE)); };
  for (long n = 0; n < count; n++) {
    const long length = segments[n].length, piece = piece_of(n);
    for (long first = 0; first < length; first += piece)
      for (long h = 0; h < s.key_heads; h++)
        jobs.push_back({n, h, first, std::min(length, first + piece), first / piece});
    places.push_back(floats), pieces.push_back(0);
    for (long other = n; other >= 0; other = segments[other].before) {
      readers[other].push_back({n, pieces[n]});
      pieces[n] += (segments[other].length + piece_of(other) - 1) / piece_of(other);
    }
    floats += pieces[n] * length * s.heads * s.padded;
  }
  std::unique_ptr<float[]> sums(new float[floats]);
  const long todo = long(jobs.size());
#pragma omp parallel
  {
    auto left = room<Cell>(TILE * s.padded), seen = room<Cell>(TILE * s.padded);
    auto q_across = room<Cell>(TILE * s.padded), q_along = room<Cell>(TILE * s.padded);
    auto g_across = room<Cell>(TILE * s.padded), g_along = room<Cell>(TILE * s.padded);
    auto weights = room<Cell>(TILE * TILE), slopes = room<Cell>(TILE * TILE), turned = room<Cell>(TILE * TILE);
    auto scores = room<float>(TILE * TILE), inner = room<float>(TILE * TILE);
    float log_of[TILE], mean[TILE];
#pragma omp for schedule(dynamic)
    for (long job = 0; job < todo; job++) {
      auto [n, key_head, begin, end, piece] = jobs[job];
      const long own_start = segments[n].start, whole = filled(end - begin, TILE);
      auto k_rows = room<Cell>(whole * s.padded), v_rows = room<Cell>(whole * s.padded);
      auto k_along = room<Cell>(whole * s.padded);
      auto k_sum = room<float>(whole * s.padded), v_sum = room<float>(whole * s.padded);
      take_rows<Kind>(k, key_head, own_start + begin, end - begin, s, k_rows.get());
      take_rows<Kind>(v, key_head, own_start + begin, end - begin, s, v_rows.get());
      lay(k_rows.get(), s.padded, whole, s.padded, k_along.get(), s.padded);
      for (long lap = 0; lap < s.group() * long(readers[n].size()); lap++) {
        const long h = key_head * s.group() + lap % s.group();
        const auto [reader, before] = readers[n][lap / s.group()];
        const long start = segments[reader].start, length = segments[reader].length;
        const bool own = reader == n;
        float* q_sum = sums.get() + places[reader] + ((before + piece) * s.heads + h) * length * s.padded;
        std::fill(q_sum, q_sum + length * s.padded, 0.0f);
        for (long first = own ? begin / TILE * TILE : 0; first < length; first += TILE) {
          long have = std::min(TILE, length - first), rows = filled(have, WIDTH);
          if (own && s.window && end - 1 <= first - s.window) break;
          std::fill(left.get() + have * s.padded, left.get() + rows * s.padded, Cell{});
          std::fill(seen.get() + have * s.padded, seen.get() + rows * s.padded, Cell{});
          take_rows<Kind>(q, h, start + first, have, s, left.get());
          take_rows<Kind>(given, h, start + first, have, s, seen.get());
          lay_across(left.get(), s.padded, rows, s.padded, q_across.get(), TILE);
          lay(left.get(), s.padded, rows, s.padded, q_along.get(), s.padded);
          lay_across(seen.get(), s.padded, rows, s.padded, g_across.get(), TILE);
          lay(seen.get(), s.padded, rows, s.padded, g_along.get(), s.padded);
          for (long r = 0; r < rows; r++) {
            log_of[r] = INFINITY, mean[r] = 0;  // a row that is not there weighs nothing
            if (r >= have) continue;
            const T *o = out.row(start + first + r, h), *g = given.row(start + first + r, h);
            vec both = vec{};
            long d = 0;
            for (; d + WIDTH <= s.size; d += WIDTH) both += load(o + d) * load(g + d);
            for (; d < s.size; d++) mean[r] += to_float(o[d]) * to_float(g[d]);
            mean[r] += sum(both);
            log_of[r] = logsum[(start + first + r) * s.heads + h];
          }
          for (long key = begin; key < (own ? std::min(end, first + have) : end); key += TILE) {
            long off = (key - begin) * s.padded, keys = std::min(TILE, end - key);
            if (own && s.window && key + keys - 1 <= first - s.window) continue;
            // Turned: keys are rows and queries columns, which is what dk and dv are summed from. On the diagonal a
            // strip of keys is seen by the queries from its own beginning on.
            const bool diagonal = own && key == first;
            const long strip = diagonal ? STRIP : TILE;
            const bool edge = diagonal || (own && s.window && key <= first + have - 1 - s.window);
            for (long j = 0; j < keys; j += strip) {
              long from = diagonal ? j : 0, some = std::min(strip, keys - j), cell = off + j * s.padded;
              long tile = j * TILE + from, depth = rows - from;
              const long panel = from * Kind::PAIR, below = from * s.padded;
              product<Kind>(some, depth, s.padded, k_rows.get() + cell, s.padded, q_across.get() + panel, TILE,
                            scores.get() + tile, TILE, false);
              product<Kind>(some, depth, s.padded, v_rows.get() + cell, s.padded, g_across.get() + panel, TILE,
                            inner.get() + tile, TILE, false);
              for (long one = j; one < j + some; one++) {
                float *score = scores.get() + one * TILE, *slope = inner.get() + one * TILE;
                if (edge)
                  for (long r = from; r < rows; r++)
                    if (!sees(first + r, key + one, s.window)) score[r] = -INFINITY;
                for (long r = from; r < rows; r += WIDTH) {
                  vec weight = exponential(load(score + r) * s.scale - load(log_of + r));
                  Kind::cells(weights.get() + one * TILE + r, weight);
                  Kind::cells(slopes.get() + one * TILE + r, weight * (load(slope + r) - load(mean + r)) * s.scale);
                }
              }
              product<Kind>(some, s.padded, depth, weights.get() + tile, TILE, g_along.get() + below, s.padded,
                            v_sum.get() + cell, s.padded, true);
              product<Kind>(some, s.padded, depth, slopes.get() + tile, TILE, q_along.get() + below, s.padded,
                            k_sum.get() + cell, s.padded, true);
              turn(slopes.get() + tile, TILE, some, depth, turned.get(), TILE);
              product<Kind>(std::min(depth, have - from), s.padded, filled(some, Kind::PAIR), turned.get(), TILE,
                            k_along.get() + cell, s.padded, q_sum + (first + from) * s.padded, s.padded, true);
            }
          }
        }
      }
      for (long j = 0; j < end - begin; j++) {
        T *to_k = dk.row(own_start + begin + j, key_head), *to_v = dv.row(own_start + begin + j, key_head);
        give(&k_sum[j * s.padded], 1.0f, s.size, to_k);
        give(&v_sum[j * s.padded], 1.0f, s.size, to_v);
      }
    }
#pragma omp for collapse(2) schedule(dynamic)
    for (long n = 0; n < count; n++)
      for (long h = 0; h < s.heads; h++) {
        long length = segments[n].length, step = length * s.heads * s.padded;
        const float* piece = sums.get() + places[n] + h * length * s.padded;
        for (long t = 0; t < length; t++) {
          T* to = dq.row(segments[n].start + t, h);
          for (long d = 0; d < s.size; d += WIDTH) {
            vec whole = vec{};
            for (long one = 0; one < pieces[n]; one++) whole += load(piece + one * step + t * s.padded + d);
            if (d + WIDTH <= s.size) store(to + d, whole);
            else
              for (long rest = d; rest < s.size; rest++) from_float(whole[rest - d], to[rest]);
          }
        }
      }
  }
}

}  // namespace studio
