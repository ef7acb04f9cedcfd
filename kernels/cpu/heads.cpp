// What goes into the temporal transformer and what its streams are told from.
#include "isa.h"
#include "linear.h"
#include "scratch.h"

namespace duologue::ISA {
namespace {

float log_sigmoid(float x) {
  const float away = x < 0 ? x : -x;
  return (x < 0 ? x : 0) - __builtin_log1pf(__builtin_expf(away));
}

float log_sum_exp(const float* x, int64_t count) {
  float most = x[0];
  for (int64_t i = 0; i < count; i += LANES) {
    if (count - i >= LANES) most = larger(most, largest(load(x + i)));
    else for (int64_t j = i; j < count; ++j) most = larger(most, x[j]);
  }
  Vector total{};
  float rest = 0;
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) total += exp(load(x + i) - most);
  for (; i < count; ++i) rest += __builtin_expf(x[i] - most);
  return most + __builtin_logf(sum(total) + rest);
}

// Naming (logits, in place) and copying together, as logarithms.
void mix(const LogProbabilities& args, int64_t row, float* y) {
  Scratch scratch;
  const int64_t count = args.table.outputs;
  const float gate = args.gate[row], shut = log_sigmoid(-gate), open = log_sigmoid(gate);
  const float total = log_sum_exp(y, count);
  for (int64_t i = 0; i < count; i += LANES)
    store_some(y + i, load_some(y + i, count - i) - total + shut, count - i);
  float* copied = scratch.floats(count);
  int64_t* touched = scratch.integers(args.window);
  int64_t touches = 0;
  const float* weights = args.weights + row * args.window;
  const int64_t* sources = args.sources + row * args.window;
  for (int64_t s = 0; s < args.window; ++s)
    if (weights[s] > 0) copied[args.targets[sources[s] - 1]] = 0;
  for (int64_t s = 0; s < args.window; ++s)
    if (weights[s] > 0) {
      const int64_t target = args.targets[sources[s] - 1];
      if (copied[target] == 0) touched[touches++] = target;
      copied[target] += weights[s];
    }
  for (int64_t i = 0; i < touches; ++i) {
    const float named = y[touched[i]], from = open + __builtin_logf(copied[touched[i]]);
    const float most = larger(named, from), least_of = named < from ? named : from;
    y[touched[i]] = most + __builtin_log1pf(__builtin_expf(least_of - most));
  }
}

}  // namespace

void log_probabilities(const LogProbabilities& args) {
  Scratch scratch;
  const int64_t dim = args.rotation.inputs, count = args.table.outputs;
  float* rotated = scratch.floats(args.rows * dim);
  linear(args.rotation, args.hidden, args.rows, [=](int64_t row, int64_t column, Vector v) {
    store_some(rotated + row * dim + column, v, dim - column);
  });
  linear(args.table, rotated, args.rows, [&](int64_t row, int64_t column, Vector v) {
    store_some(args.y + row * count + column, v, count - column);
  });
  parallel(args.rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* y = args.y + row * count;
      if (args.weights) {
        mix(args, row, y);
        continue;
      }
      const float total = log_sum_exp(y, count);
      for (int64_t i = 0; i < count; i += LANES)
        store_some(y + i, load_some(y + i, count - i) - total, count - i);
    }
  });
}

void frame_input(const FrameInput& args) {
  Scratch scratch;
  const int64_t dim = args.latent_input.outputs, latent_dim = args.latent_input.inputs;
  float* latents = scratch.floats(args.rows * latent_dim);
  int64_t *heard = scratch.integers(args.rows), count = 0;
  const auto add = [&](int64_t row, const float* vector) {
    float* y = args.y + row * dim;
    for (int64_t i = 0; i < dim; i += LANES)
      store_some(y + i, load_some(y + i, dim - i) + load_some(vector + i, dim - i), dim - i);
  };
  for (int64_t row = 0; row < args.rows; ++row) {
    float* y = args.y + row * dim;
    if (!args.is_frame[row]) {
      __builtin_memcpy(y, args.action_position, dim * sizeof(float));
    } else {
      __builtin_memcpy(y, args.agent_table + args.agent_text[row] * dim, dim * sizeof(float));
      add(row, args.user_table + args.user_text[row] * dim);
      if (args.is_heard[row]) {
        for (int64_t i = 0; i < latent_dim; ++i)
          latents[count * latent_dim + i] =
              (args.latents[row * latent_dim + i] - args.mean[i]) / args.deviation[i];
        heard[count++] = row;
      } else {
        add(row, args.unheard + (args.is_speaking[row] ? dim : 0));
      }
    }
  }
  linear(args.latent_input, latents, count, [&](int64_t n, int64_t column, Vector v) {
    float* y = args.y + heard[n] * dim + column;
    const int64_t left = dim - column;
    store_some(y, load_some(y, left) + (v + load_some(args.latent_bias + column, left)), left);
  });
  for (int64_t row = 0; row < args.rows; ++row)
    add(row, args.action_table + args.action[row] * dim);
}

}  // namespace duologue::ISA
