// What goes into the speech transformer: the words around a frame, times and the codes before it.
#include "isa.h"
#include "linear.h"
#include "scratch.h"

namespace duologue::ISA {
namespace {

// erf as in Abramowitz and Stegun 7.1.26, absolute error below 2e-7.
Vector gelu(Vector x) {
  const Vector z = x * 0.70710678118654752f, size = z < 0 ? -z : z;
  const Vector t = 1.0f / (1.0f + 0.3275911f * size);
  Vector y = 1.061405429f * t - 1.453152027f;
  y = y * t + 1.421413741f;
  y = y * t - 0.284496736f;
  y = (y * t + 0.254829592f) * t;
  const Vector erf = 1.0f - y * exp(-size * size);
  return 0.5f * x * (1.0f + (z < 0 ? -erf : erf));
}

// The sum of a vector for each column of values -> y [dim]
void sum_up(const Summed& table, const int64_t* values, int64_t dim, float* y) {
  __builtin_memset(y, 0, dim * sizeof(float));
  for (int64_t i = 0; i < table.columns; ++i) {
    if (table.skip_zero && values[i] <= 0) continue;
    const float* vector = table.vectors + (values[i] + table.offset[i]) * dim;
    for (int64_t c = 0; c < dim; c += LANES)
      store_some(y + c, load_some(y + c, dim - c) + load_some(vector + c, dim - c), dim - c);
  }
}

struct Both {
  const SpeechInput& args;
  Scratch& scratch;

  // x [rows, inputs] through a layer, what is more in the functor -> [rows, outputs]
  template <class More>
  float* run(const Weight& weight, const float* bias, const float* x, int64_t rows,
             const More& more) const {
    const int64_t outputs = weight.outputs;
    float* y = scratch.floats(rows * outputs);
    linear(weight, x, rows, [&](int64_t row, int64_t column, Vector v) {
      const int64_t left = outputs - column;
      if (bias) v += load_some(bias + column, left);
      store_some(y + row * outputs + column, more(row, column, v), left);
    });
    return y;
  }
};

}  // namespace

void speech_input(const SpeechInput& args) {
  Scratch scratch;
  const int64_t rows = args.lanes.count, dim = args.dim, each = args.words.columns;
  const int64_t columns = args.roles * each + args.times.columns;
  float* words = scratch.floats(rows * args.roles * dim);
  float *joined = scratch.floats(rows * 2 * dim), *times = scratch.floats(rows * dim);
  for (int64_t n = 0; n < rows; ++n) {
    const int64_t row = args.lanes.rows[n], *features = args.features + row * columns;
    for (int64_t role = 0; role < args.roles; ++role)
      sum_up(args.words, features + role * each, dim, words + (n * args.roles + role) * dim);
    sum_up(args.times, features + args.roles * each, dim, times + n * dim);
    sum_up(args.codes, args.previous + row * args.codes.columns, dim, joined + n * 2 * dim + dim);
  }
  const Both both{args, scratch};
  const auto shaped = [](int64_t, int64_t, Vector v) { return gelu(v); };
  const auto as_it_is = [](int64_t, int64_t, Vector v) { return v; };
  const float* hidden = both.run(args.sound_input, args.sound_input_bias, words, rows * args.roles,
                                 shaped);
  const float* sound = both.run(args.sound_output, args.sound_output_bias, hidden,
                                rows * args.roles, [&](int64_t row, int64_t column, Vector v) {
                                  return v + load_some(words + row * dim + column, dim - column);
                                });
  const float* text = both.run(args.word_roles, nullptr, sound, rows,
                               [&](int64_t row, int64_t column, Vector v) {
                                 return v + load_some(times + row * dim + column, dim - column);
                               });
  for (int64_t n = 0; n < rows; ++n)
    __builtin_memcpy(joined + n * 2 * dim, text + n * dim, dim * sizeof(float));
  hidden = both.run(args.join_input, args.join_input_bias, joined, rows, shaped);
  float* x = both.run(args.join_output, nullptr, hidden, rows, as_it_is);
  for (int64_t n = 0; n < rows; ++n) {
    const float* own = joined + n * 2 * dim;
    for (int64_t c = 0; c < dim; c += LANES) {
      const int64_t left = dim - c;
      const Vector before = load_some(own + c, left) + load_some(own + dim + c, left);
      store_some(x + n * dim + c, before + load_some(x + n * dim + c, left), left);
    }
    rms_norm(x + n * dim, args.norm, args.eps, dim, args.y + args.lanes.rows[n] * dim);
  }
}

}  // namespace duologue::ISA
