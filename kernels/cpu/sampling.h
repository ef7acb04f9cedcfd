// Draws a token as model/sampling.py does.
#pragma once

#include "choice.h"
#include "kernels.h"
#include "scratch.h"
#include "simd.h"

namespace duologue::ISA {

constexpr float SCALE = 1099511627776.0f;  // 2^40, of probabilities as integers

inline int64_t likeliest(const float* logits, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i)
    if (logits[i] > logits[best]) best = i;
  return best;
}

// Probabilities of logits [count] at that temperature, as integers.
inline void weigh(const float* logits, int64_t count, float temperature, int64_t* weights) {
  Scratch scratch;
  float* e = scratch.floats(count);
  Vector highest = all(logits[0]);
  for (int64_t i = 0; i + LANES <= count; i += LANES) highest = larger(highest, load(logits + i));
  float most = largest(highest);
  for (int64_t i = count - count % LANES; i < count; ++i) most = larger(most, logits[i]);
  Vector total{};
  for (int64_t i = 0; i < count; i += LANES) {
    Vector v = exp((load_some(logits + i, count - i) - most) / temperature);
    for (int64_t j = count - i; j < LANES; ++j) v[j] = 0;
    store_some(e + i, v, count - i);
    total += v;
  }
  const float of = sum(total);
  for (int64_t i = 0; i < count; ++i)
    weights[i] = int64_t(__builtin_rintf(e[i] / of * SCALE));  // to even, as torch rounds
}

inline int64_t draw(const Sampling& sampling, const float* logits, int64_t count, double uniform) {
  if (sampling.temperature == 0) return likeliest(logits, count);
  Scratch scratch;
  int64_t* weights = scratch.integers(count);
  weigh(logits, count, float(sampling.temperature), weights);
  int64_t least_kept = 0;
  if (0 < sampling.top_k && sampling.top_k < count)
    least_kept = largest_of(weights, count, sampling.top_k);
  if (least_kept > 0)
    for (int64_t i = 0; i < count; ++i) weights[i] = weights[i] < least_kept ? 0 : weights[i];
  if (sampling.top_p < 1) {
    least_kept = smallest_needed(weights, count, sampling.top_p);
    for (int64_t i = 0; i < count; ++i) weights[i] = weights[i] < least_kept ? 0 : weights[i];
  }
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) total += weights[i];
  const int64_t target = int64_t(__builtin_floor(uniform * double(total)));
  int64_t reached = 0;
  for (int64_t i = 0; i < count; ++i)
    if ((reached += weights[i]) > target) return i;
  return count - 1;
}

}  // namespace duologue::ISA
