// What the engine computes by itself on a CPU: the C functions that `calls.py` calls.
//
// Each takes numbers as float32 (kind 0) or bfloat16 (kind 1), which lie side by side in the last dimension.

#include <omp.h>

#include "adapters.h"
#include "attention.h"
#include "elements.h"
#include "next.h"
#include "rotary.h"
#include "rows.h"

using namespace studio;

namespace {

#ifdef __AVX512BF16__
typedef Paired Half;
#else
typedef Single Half;
#endif

template <class T>
Heads<T> heads(void* data, const int64_t* steps) {
  return {static_cast<T*>(data), long(steps[0]), long(steps[1])};
}

std::vector<Segment> segments_of(const int64_t* starts, const int64_t* lengths, const int64_t* before, int64_t count) {
  std::vector<Segment> out;
  for (int64_t n = 0; n < count; n++) out.push_back({long(starts[n]), long(lengths[n]), long(before[n])});
  return out;
}

Shape shape_of(int64_t heads, int64_t key_heads, int64_t size, int64_t window, float scale) {
  return {long(heads), long(key_heads), long(size), filled(size, WIDTH), long(window), scale};
}

template <class Kind, class T>
void attend(void** at, const int64_t* steps, float* logsum, const std::vector<Segment>& segments, const Shape& s) {
  forward<Kind, T>(heads<const T>(at[0], steps), heads<const T>(at[1], steps + 2), heads<const T>(at[2], steps + 4),
                   heads<T>(at[3], steps + 6), logsum, segments, s);
}

template <class Kind, class T>
void attend_back(void** at, const int64_t* steps, const float* logsum, const std::vector<Segment>& segments,
                 const Shape& s) {
  backward<Kind, T>(heads<const T>(at[0], steps), heads<const T>(at[1], steps + 2), heads<const T>(at[2], steps + 4),
                    heads<const T>(at[3], steps + 6), logsum, heads<const T>(at[4], steps + 8),
                    heads<T>(at[5], steps + 10), heads<T>(at[6], steps + 12), heads<T>(at[7], steps + 14), segments, s);
}

template <class Kind>
void put_low_rank(const void* left, int64_t left_row, const void* right, void* out, int64_t out_row, int64_t rows,
                  int64_t width, int64_t depth, int add) {
  typedef typename Kind::Cell Cell;
  low_rank<Kind>(static_cast<const Cell*>(left), left_row, static_cast<const Cell*>(right), static_cast<Cell*>(out),
                 out_row, rows, width, depth, add);
}

template <class Kind>
void put_over_rows(const void* left, int64_t left_row, const void* right, int64_t right_row, float* out, int64_t few,
                   int64_t rows, int64_t width) {
  typedef typename Kind::Cell Cell;
  over_rows<Kind>(static_cast<const Cell*>(left), left_row, static_cast<const Cell*>(right), right_row, out, few, rows,
                  width);
}

template <class T>
Sides<T> sides(const void* left, int64_t left_row, const void* right, int64_t right_row, int64_t depth) {
  return {static_cast<const T*>(left), long(left_row), static_cast<const T*>(right), long(right_row), long(depth)};
}

template <class T>
void read_next(void** at, const int64_t* steps, const uint8_t* seen, int64_t seen_row, int64_t rows, int64_t heads,
               int64_t key_heads, int64_t tokens, int64_t size, int64_t value_size, float scale) {
  auto kept = [&](int which, int64_t width) {
    const int64_t* step = steps + 3 * which;
    return Kept<T>{static_cast<const T*>(at[which]), long(step[0]), long(step[1]), long(step[2]), long(width)};
  };
  next_token<T>(kept(0, size), kept(1, size), kept(2, value_size), static_cast<T*>(at[3]), seen, seen_row, rows, heads,
                key_heads, tokens, scale);
}

template <class T>
void turn_positions(void** at, const int64_t* steps, int64_t rows, int64_t tokens, int64_t heads, int64_t size,
                    int back) {
  auto given = [&](int which, const int64_t* step, int64_t head) {
    return Turned<T>{static_cast<const T*>(at[which]), long(step[0]), long(step[1]), long(head)};
  };
  rotate(given(0, steps, steps[2]), given(1, steps + 3, 0), given(2, steps + 5, 0), static_cast<T*>(at[3]), rows,
         tokens, heads, size, back);
}

}  // namespace

extern "C" {

// at: q, k, v, out; steps: between tokens and between heads, of each.
void attention(int kind, void** at, const int64_t* steps, float* logsum, const int64_t* starts, const int64_t* lengths,
               const int64_t* before, int64_t count, int64_t heads, int64_t key_heads, int64_t size, int64_t window,
               float scale) {
  Shape s = shape_of(heads, key_heads, size, window, scale);
  auto segments = segments_of(starts, lengths, before, count);
  kind ? attend<Half, bf16>(at, steps, logsum, segments, s) : attend<Single, float>(at, steps, logsum, segments, s);
}

// at: q, k, v, out, gradient of out, and where the gradients of q, k, v go.
void attention_backward(int kind, void** at, const int64_t* steps, const float* logsum, const int64_t* starts,
                        const int64_t* lengths, const int64_t* before, int64_t count, int64_t heads,
                        int64_t key_heads, int64_t size, int64_t window, float scale) {
  Shape s = shape_of(heads, key_heads, size, window, scale);
  auto segments = segments_of(starts, lengths, before, count);
  kind ? attend_back<Half, bf16>(at, steps, logsum, segments, s)
       : attend_back<Single, float>(at, steps, logsum, segments, s);
}

void norm(int kind, const void* x, const void* weight, void* out, float* scales, int64_t rows, int64_t size,
          float epsilon, int offset) {
  kind ? norm_rows<bf16>(x, weight, out, scales, rows, size, epsilon, offset)
       : norm_rows<float>(x, weight, out, scales, rows, size, epsilon, offset);
}

void norm_backward(int kind, const void* x, const void* weight, const float* scales, const void* given, void* dx,
                   float* slopes, int64_t rows, int64_t size, int offset) {
  kind ? norm_rows_back<bf16>(x, weight, scales, given, dx, slopes, rows, size, offset)
       : norm_rows_back<float>(x, weight, scales, given, dx, slopes, rows, size, offset);
}

void gated(int kind, const void* gates, const void* ups, int64_t step, void* out, int64_t rows, int64_t size, int gelu) {
  kind ? gate_rows<bf16>(gates, ups, step, out, rows, size, gelu)
       : gate_rows<float>(gates, ups, step, out, rows, size, gelu);
}

void gated_backward(int kind, const void* both, const void* given, void* slopes, int64_t rows, int64_t size,
                    int gelu) {
  kind ? gate_rows_back<bf16>(both, given, slopes, rows, size, gelu)
       : gate_rows_back<float>(both, given, slopes, rows, size, gelu);
}

// In place: the logits become their gradient.
void cross_entropy(int kind, void* logits, const int64_t* targets, float* losses, int64_t* best, int64_t rows,
                   int64_t size, int by_probability, int gradient) {
  kind ? entropy_rows<bf16>(logits, targets, losses, best, rows, size, by_probability, gradient)
       : entropy_rows<float>(logits, targets, losses, best, rows, size, by_probability, gradient);
}

// In place, where the gradient is wanted: the logits become it.
void likely(int kind, void* logits, const int64_t* targets, float* known, int64_t rows, int64_t size, float factor,
            int gradient) {
  kind ? likely_rows<bf16>(logits, targets, known, rows, size, factor, gradient)
       : likely_rows<float>(logits, targets, known, rows, size, factor, gradient);
}

// Whether `low_rank` and `over_rows` take bfloat16.
int multiplies_pairs() { return Half::PAIR == 2; }

void low_rank(int kind, const void* left, int64_t left_row, const void* right, void* out, int64_t out_row, int64_t rows,
              int64_t width, int64_t depth, int add) {
  auto multiply = kind ? put_low_rank<Half> : put_low_rank<Single>;
  multiply(left, left_row, right, out, out_row, rows, width, depth, add);
}

void over_rows(int kind, const void* left, int64_t left_row, const void* right, int64_t right_row, float* out,
               int64_t few, int64_t rows, int64_t width) {
  auto multiply = kind ? put_over_rows<Half> : put_over_rows<Single>;
  multiply(left, left_row, right, right_row, out, few, rows, width);
}

// down: (rank x depth), up: (width x rank); neither where the rank is 0.
void few_rows(int kind, const void* left, int64_t left_row, const void* right, int64_t right_row, const void* down,
              const void* up, int64_t rank, void* out, int64_t out_row, int64_t rows, int64_t width, int64_t depth) {
  kind ? adapted_rows(sides<bf16>(left, left_row, right, right_row, depth), down, up, rank, out, out_row, rows, width)
       : adapted_rows(sides<float>(left, left_row, right, right_row, depth), down, up, rank, out, out_row, rows, width);
}

// at: q, k, v, out; steps: between rows, heads and tokens, of the first three.
void next_token(int kind, void** at, const int64_t* steps, const uint8_t* seen, int64_t seen_row, int64_t rows,
                int64_t heads, int64_t key_heads, int64_t tokens, int64_t size, int64_t value_size, float scale) {
  auto read = kind ? read_next<bf16> : read_next<float>;
  read(at, steps, seen, seen_row, rows, heads, key_heads, tokens, size, value_size, scale);
}

// at: x, cosines, sines, out; steps: between rows, tokens and heads of x, and between rows and tokens of the others.
void rotary(int kind, void** at, const int64_t* steps, int64_t rows, int64_t tokens, int64_t heads, int64_t size,
            int back) {
  auto turn = kind ? turn_positions<bf16> : turn_positions<float>;
  turn(at, steps, rows, tokens, heads, size, back);
}
}
