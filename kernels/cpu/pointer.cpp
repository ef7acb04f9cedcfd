// A step of a pointer: one head over the positions that hold a source.
#include "isa.h"
#include "linear.h"
#include "scratch.h"

namespace duologue::ISA {
namespace {

constexpr float SHUT = -1e4f;  // a gate's logit where there is nothing to point at

float dot(const float* a, const float* b, int64_t size) {
  Vector total{};
  for (int64_t i = 0; i < size; i += LANES)
    total += load_some(a + i, size - i) * load_some(b + i, size - i);
  return sum(total);
}

// Weights [window] over what a row can see, zero elsewhere; whether there is anything.
bool point(const float* query, const float* keys, const int64_t* sources, int64_t count,
           int64_t dim, float* weights) {
  const float scale = 1.0f / __builtin_sqrtf(float(dim));
  float most = -1e30f, total = 0;
  bool is_any = false;
  for (int64_t s = 0; s < count; ++s)
    if (sources[s] > 0) {
      weights[s] = dot(query, keys + s * dim, dim) * scale;
      most = larger(most, weights[s]);
      is_any = true;
    }
  for (int64_t s = 0; s < count; ++s)
    if (sources[s] > 0) total += weights[s] = __builtin_expf(weights[s] - most);
  for (int64_t s = 0; s < count; ++s)
    if (sources[s] > 0) weights[s] /= total;
  return is_any;
}

}  // namespace

void pointer_step(const PointerStep& step) {
  Scratch scratch;
  const int64_t rows = step.lanes.count, dim = step.key.outputs, inputs = step.key.inputs;
  float* x = scratch.floats(rows * inputs);
  float *keys = scratch.floats(rows * dim), *queries = scratch.floats(rows * dim);
  for (int64_t n = 0; n < rows; ++n)
    __builtin_memcpy(x + n * inputs, step.x + step.lanes.rows[n] * inputs, inputs * sizeof(float));
  linear(step.key, x, rows, [=](int64_t row, int64_t column, Vector v) {
    store_some(keys + row * dim + column, v, dim - column);
  });
  linear(step.query, x, rows, [=](int64_t row, int64_t column, Vector v) {
    store_some(queries + row * dim + column, v, dim - column);
  });
  parallel(rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t row = step.lanes.rows[n], held = step.held ? step.held[row] : row;
      const int64_t position = step.position[row], slot = position % step.window;
      const int64_t count = least(position + 1, step.window);
      float* held_keys = step.keys + held * step.window * dim;
      int64_t *held_sources = step.sources + held * step.window;
      __builtin_memcpy(held_keys + slot * dim, keys + n * dim, dim * sizeof(float));
      held_sources[slot] = step.source[row];
      const bool is_any = point(queries + n * dim, held_keys, held_sources, count, dim,
                                step.weights + row * step.window);
      __builtin_memcpy(step.pointed + row * step.window, held_sources, count * sizeof(int64_t));
      const float gate = dot(x + n * inputs, step.gate, inputs) + *step.gate_bias;
      step.gates[row] = is_any ? gate : SHUT;
    }
  });
}

}  // namespace duologue::ISA
