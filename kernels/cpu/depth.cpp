// All codes of frames, one after the other: a small transformer whose weights differ by step.
#include "isa.h"
#include "linear.h"
#include "sampling.h"
#include "scratch.h"

namespace duologue::ISA {
namespace {

// The weight of one step in a stack of packed ones.
Weight at(const Weight& stacked, int64_t step) {
  const int64_t before = step * stacked.panels() * stacked.panel_rows() * PANEL;
  Weight one = stacked;
  if (one.full) one.full += before;
  if (one.half) one.half += before;
  if (one.rounded) one.rounded += before;
  return one;
}

// heads [3, heads, D] of a row, of which keys and values are kept at `step` -> y [dim]
void attend(const Depth& args, const float* query, float* past, int64_t step, float* y) {
  const int64_t dim = args.dim, size = dim / args.heads;
  const float scale = 1.0f / __builtin_sqrtf(float(size));
  __builtin_memcpy(past + step * 2 * dim, query + dim, 2 * dim * sizeof(float));
  Scratch scratch;
  float* scores = scratch.floats(step + 1);
  for (int64_t h = 0; h < args.heads; ++h) {
    float most = -1e30f, total = 0;
    for (int64_t s = 0; s <= step; ++s) {
      const float *q = query + h * size, *k = past + s * 2 * dim + h * size;
      Vector product{};
      for (int64_t d = 0; d < size; d += LANES)
        product += load_some(q + d, size - d) * load_some(k + d, size - d);
      scores[s] = sum(product) * scale;
      most = larger(most, scores[s]);
    }
    for (int64_t s = 0; s <= step; ++s) total += scores[s] = __builtin_expf(scores[s] - most);
    for (int64_t d = 0; d < size; d += LANES) {
      Vector mixed{};
      for (int64_t s = 0; s <= step; ++s)
        mixed += load_some(past + s * 2 * dim + dim + h * size + d, size - d) * (scores[s] / total);
      store_some(y + h * size + d, mixed, size - d);
    }
  }
}

struct Memory {
  float *x, *normed, *heads, *y, *both, *hidden, *past;  // past [layers, rows, steps, 2, dim]
};

void layer(const Depth& args, int64_t index, int64_t step, const Memory& m) {
  const DepthLayer& weights = args.layers[index];
  const int64_t rows = args.rows, dim = args.dim;
  const auto normalise = [&](const float* weight) {
    for (int64_t n = 0; n < rows; ++n)
      rms_norm(m.x + n * dim, weight, args.eps, dim, m.normed + n * dim);
  };
  const auto into = [](float* to, int64_t columns) {
    return [=](int64_t row, int64_t column, Vector v) {
      store_some(to + row * columns + column, v, columns - column);
    };
  };
  const auto add = [&](int64_t row, int64_t column, Vector v) {
    float* to = m.x + row * dim + column;
    store_some(to, load_some(to, dim - column) + v, dim - column);
  };
  normalise(weights.attention_norm);
  linear(at(weights.input, step), m.normed, rows, into(m.heads, 3 * dim));
  const int64_t room = args.steps * 2 * dim;
  parallel(rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      attend(args, m.heads + n * 3 * dim, m.past + (index * rows + n) * room, step, m.y + n * dim);
  });
  linear(at(weights.output, step), m.y, rows, add);
  normalise(weights.feed_forward_norm);
  linear(at(weights.feed_forward_input, step), m.normed, rows, into(m.both, 2 * args.hidden));
  gated(m.both, rows, args.hidden, m.hidden);
  linear(at(weights.feed_forward_output, step), m.hidden, rows, add);
}

}  // namespace

void depth_generate(const Depth& args) {
  Scratch scratch;
  const int64_t rows = args.rows, dim = args.dim, count = args.heads_weight.outputs;
  const Memory m{scratch.floats(rows * dim),     scratch.floats(rows * dim),
                 scratch.floats(rows * 3 * dim), scratch.floats(rows * dim),
                 scratch.floats(rows * 2 * args.hidden), scratch.floats(rows * args.hidden),
                 scratch.floats(args.layer_count * rows * args.steps * 2 * dim)};
  float* logits = scratch.floats(rows * count);
  for (int64_t step = 0; step < args.steps; ++step) {
    linear(at(args.input, step), args.context, rows, [&](int64_t row, int64_t column, Vector v) {
      const int64_t left = dim - column;
      const float* more = nullptr;
      if (step) more = args.embeddings[step - 1] + args.codes[row * args.steps + step - 1] * dim;
      else if (args.text) more = args.text_embedding + args.text[row] * dim;
      if (more) v += load_some(more + column, left);
      store_some(m.x + row * dim + column, v, left);
    });
    for (int64_t i = 0; i < args.layer_count; ++i) layer(args, i, step, m);
    linear(at(args.heads_weight, step), m.x, rows, [&](int64_t row, int64_t column, Vector v) {
      store_some(logits + row * count + column, v, count - column);
    });
    parallel(rows, 4, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        args.codes[n * args.steps + step] =
            draw(args.sampling, logits + n * count, count, args.uniform[n * args.steps + step]);
    });
  }
}

void sample(const Sample& args) {
  parallel(args.rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      args.tokens[n] =
          draw(args.sampling, args.logits + n * args.count, args.count, args.uniform[n]);
  });
}

}  // namespace duologue::ISA
