// What goes through memory once instead of several times: RMSNorm, the gate of an MLP, and the loss of the next token.

#pragma once

#include <vector>

#include "tiles.h"

namespace studio {

// What a number becomes when it is written and read again.
inline vec rounded(vec value, const float*) { return value; }
inline vec rounded(vec value, const bf16*) {
  bf16 held[WIDTH];
  store(held, value);
  return load(held);
}

// RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467), rounded where transformers' LlamaRMSNorm rounds; with `offset` the
// weights are what is added to 1, and nothing is rounded between, as in Gemma.
template <class T>
void norm_rows(const void* x_, const void* weight_, void* out_, float* scales, long rows, long size, float epsilon,
               bool offset) {
  auto x = static_cast<const T*>(x_), weight = static_cast<const T*>(weight_);
  auto out = static_cast<T*>(out_);
#pragma omp parallel for schedule(static)
  for (long r = 0; r < rows; r++) {
    const T* row = x + r * size;
    vec squares = vec{};
    for (long d = 0; d < size; d += WIDTH) squares += load(row + d) * load(row + d);
    float scale = 1.0f / std::sqrt(sum(squares) / size + epsilon);
    scales[r] = scale;
    for (long d = 0; d < size; d += WIDTH) {
      vec normed = load(row + d) * scale, w = load(weight + d);
      store(out + r * size + d, offset ? normed * (w + 1.0f) : w * rounded(normed, out));
    }
  }
}

// `slopes` gets the gradient of the weights where it is not null, added up in the same order with any number of threads.
template <class T>
void norm_rows_back(const void* x_, const void* weight_, const float* scales, const void* given_, void* dx_,
                    float* slopes, long rows, long size, bool offset) {
  auto x = static_cast<const T*>(x_), weight = static_cast<const T*>(weight_), given = static_cast<const T*>(given_);
  auto dx = static_cast<T*>(dx_);
  const float more = offset ? 1.0f : 0.0f;
  const long blocks = std::min(rows, 64L);
  std::vector<float> parts(slopes ? blocks * size : 0);
#pragma omp parallel for schedule(static)
  for (long block = 0; block < blocks; block++)
    for (long r = rows * block / blocks; r < rows * (block + 1) / blocks; r++) {
      const T *row = x + r * size, *slope = given + r * size;
      vec shared = vec{};
      for (long d = 0; d < size; d += WIDTH)
        shared += load(slope + d) * (load(weight + d) + more) * load(row + d);
      float scale = scales[r], pull = sum(shared) * scale * scale * scale / size;
      for (long d = 0; d < size; d += WIDTH)
        store(dx + r * size + d, load(slope + d) * (load(weight + d) + more) * scale - load(row + d) * pull);
      if (!slopes) continue;
      float* part = parts.data() + block * size;
      for (long d = 0; d < size; d += WIDTH)
        store(part + d, load(part + d) + load(slope + d) * rounded(load(row + d) * scale, dx));
    }
  for (long block = 0; slopes && block < blocks; block++)
    for (long d = 0; d < size; d++) slopes[d] += parts[block * size + d];
}

// 0 where e to the -x is more than a float holds: times a gate of 1e38 the least that is left would be much.
inline vec sigmoid(vec x) { return choose(x < splat(-88.0f), splat(0.0f), 1.0f / (1.0f + exponential(-x))); }

// Both gates are x times a sigmoid: of x (SiLU), or of 2 sqrt(2/pi) (x + 0.044715 x³), which is GELU by tanh.
inline vec inside(vec x, bool gelu) { return gelu ? 1.59576912f * (x + 0.044715f * x * x * x) : x; }
inline vec inside_slope(vec x, bool gelu) { return gelu ? 1.59576912f * (1.0f + 0.134145f * x * x) : x * 0.0f + 1.0f; }

// act(gate) * up (Shazeer 2020, arXiv:2002.05202) of rows that lie `step` numbers apart.
template <class T>
void gate_rows(const void* gates_, const void* ups_, long step, void* out_, long rows, long size, bool gelu) {
  auto gates = static_cast<const T*>(gates_), ups = static_cast<const T*>(ups_);
  auto out = static_cast<T*>(out_);
#pragma omp parallel for schedule(static)
  for (long r = 0; r < rows; r++) {
    const T *gate = gates + r * step, *up = ups + r * step;
    for (long d = 0; d < size; d += WIDTH) {
      vec g = load(gate + d);
      store(out + r * size + d, rounded(g * sigmoid(inside(g, gelu)), out) * load(up + d));
    }
  }
}

// Of rows that hold the gate first and then what it lets through.
template <class T>
void gate_rows_back(const void* both_, const void* given_, void* slopes_, long rows, long size, bool gelu) {
  auto both = static_cast<const T*>(both_), given = static_cast<const T*>(given_);
  auto slopes = static_cast<T*>(slopes_);
#pragma omp parallel for schedule(static)
  for (long r = 0; r < rows; r++) {
    const T *gate = both + r * 2 * size, *up = gate + size;
    T *dgate = slopes + r * 2 * size, *dup = dgate + size;
    for (long d = 0; d < size; d += WIDTH) {
      vec g = load(gate + d), slope = load(given + r * size + d), s = sigmoid(inside(g, gelu));
      store(dup + d, slope * (g * s));
      store(dgate + d, slope * load(up + d) * (s + s * (1.0f - s) * g * inside_slope(g, gelu)));
    }
  }
}

// Cross-entropy of each row, and its gradient in place of the logits; with `by_probability` a row counts by the
// probability of its target (Wu et al. 2025, arXiv:2508.05629).
template <class T>
void entropy_rows(void* logits_, const int64_t* targets, float* losses, int64_t* best, long rows, long size,
                  bool by_probability, bool gradient) {
  auto logits = static_cast<T*>(logits_);
#pragma omp parallel for schedule(dynamic)
  for (long r = 0; r < rows; r++) {
    T* row = logits + r * size;
    long whole = size / WIDTH * WIDTH;
    vec most = splat(-INFINITY);
    for (long j = 0; j < whole; j += WIDTH) most = greater(most, load(row + j));
    float top = largest(most);
    for (long j = whole; j < size; j++) top = std::max(top, to_float(row[j]));
    vec added = vec{};
    for (long j = 0; j < whole; j += WIDTH) added += exponential(load(row + j) - top);
    float mass = sum(added);
    for (long j = whole; j < size; j++) mass += std::exp(to_float(row[j]) - top);
    best[r] = 0;
    while (best[r] < size - 1 && to_float(row[best[r]]) != top) best[r]++;
    float wanted = to_float(row[targets[r]]) - top;
    losses[r] = std::log(mass) - wanted;
    if (!gradient) continue;
    float weight = by_probability ? std::exp(-losses[r]) : 1.0f, share = weight / mass;
    for (long j = 0; j < whole; j += WIDTH) store(row + j, exponential(load(row + j) - top) * share);
    for (long j = whole; j < size; j++) from_float(std::exp(to_float(row[j]) - top) * share, row[j]);
    from_float(std::exp(wanted) * share - weight, row[targets[r]]);
  }
}

// What is known of the distribution of each row's next token, (rows, 5): log-probability of its target, logarithm of the
// sum of exponentials, entropy, mean of the logits, and whether the target is the first of the largest. Logits count
// `factor` times. With `gradient` they become factor (p - [target]), the slope of the negative log-probability.
template <class T>
void likely_rows(void* logits_, const int64_t* targets, float* known, long rows, long size, float factor,
                 bool gradient) {
  auto logits = static_cast<T*>(logits_);
#pragma omp parallel for schedule(dynamic)
  for (long r = 0; r < rows; r++) {
    T* row = logits + r * size;
    const long whole = size / WIDTH * WIDTH, target = targets[r];
    vec most = splat(-INFINITY), before = most, all = vec{};
    float top = -INFINITY, earlier = -INFINITY, total = 0;
    const long near = target / WIDTH * WIDTH;  // whole vectors that lie before the target
    for (long j = 0; j < near; j += WIDTH) before = greater(before, load(row + j));
    for (long j = near; j < target; j++) earlier = std::max(earlier, factor * to_float(row[j]));
    for (long j = 0; j < whole; j += WIDTH) {
      vec z = load(row + j) * factor;
      most = greater(most, z);
      all += z;
    }
    for (long j = whole; j < size; j++) {
      float z = factor * to_float(row[j]);
      top = std::max(top, z);
      total += z;
    }
    top = std::max(top, largest(most));
    if (near) earlier = std::max(earlier, factor * largest(before));
    vec added = vec{}, weighted = vec{};
    for (long j = 0; j < whole; j += WIDTH) {
      vec z = load(row + j) * factor - top, e = exponential(z);
      added += e;
      weighted += e * z;
    }
    float mass = sum(added), turned = sum(weighted);
    for (long j = whole; j < size; j++) {
      float z = factor * to_float(row[j]) - top, e = std::exp(z);
      mass += e;
      turned += e * z;
    }
    const float wanted = factor * to_float(row[target]), spread = std::log(mass);
    float* out = known + 5 * r;
    out[0] = wanted - top - spread;
    out[1] = top + spread;
    out[2] = spread - turned / mass;
    out[3] = (total + sum(all)) / size;
    out[4] = wanted >= top && wanted > earlier;
    if (!gradient) continue;
    const float share = factor / mass;
    for (long j = 0; j < whole; j += WIDTH) store(row + j, exponential(load(row + j) * factor - top) * share);
    for (long j = whole; j < size; j++) from_float(std::exp(factor * to_float(row[j]) - top) * share, row[j]);
    from_float(std::exp(wanted - top) * share - factor, row[target]);
  }
}

}  // namespace studio
