// The whole stack of a transformer, one step a row: norms, attention over a ring, feed-forward.
#include "isa.h"
#include "linear.h"
#include "scratch.h"

namespace duologue::ISA {
namespace {

struct Angles {
  float *cosine, *sine;  // [count, head_dim / 2]
};

Angles angles_of(const TransformerStep& step, int64_t most, Scratch& scratch) {
  const int64_t half = step.dim / step.heads / 2;
  const Angles angles{scratch.floats(step.lanes.count * half),
                      scratch.floats(step.lanes.count * half)};
  for (int64_t i = 0; i < half; ++i) {
    const double wavelength = __builtin_pow(step.period, double(i) / double(half));
    for (int64_t n = 0; n < step.lanes.count; ++n) {
      const int64_t position = least(step.position[step.lanes.rows[n]], most);
      const double angle = double(position) / wavelength;
      angles.cosine[n * half + i] = float(__builtin_cos(angle));
      angles.sine[n * half + i] = float(__builtin_sin(angle));
    }
  }
  return angles;
}

// Turns the channel pairs of `heads` heads.
void turn(const float* x, int64_t heads, int64_t half, const float* cosine, const float* sine,
          float scale, float* y) {
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t i = 0; i < half; ++i) {
      const float even = x[2 * i], odd = x[2 * i + 1];
      y[0] = (even * cosine[i] - odd * sine[i]) * scale;
      y[1] = (even * sine[i] + odd * cosine[i]) * scale;
      y += 2;
      if (i + 1 == half) x += 2 * half;
    }
}

constexpr int64_t BLOCK = LANES;  // slots that are read by all heads before the next ones

// Scores of the slots first..end, no more than a block, of one head of keys, `stride` apart, for G
// queries; `reach` from one query's scores to the next one's.
template <int G, class Number>
void score(const float* query, const Number* keys, int64_t stride, int64_t dim, int64_t first,
           int64_t end, int64_t reach, float* scores) {
  Vector totals[G][LANES] = {};
  for (int64_t j = 0; j < end - first; ++j) {
    const Number* key = keys + (first + j) * stride;
    for (int64_t d = 0; d < dim; d += LANES) {
      const Vector k = load_some(key + d, dim - d);
      for (int g = 0; g < G; ++g) totals[g][j] += k * load_some(query + g * dim + d, dim - d);
    }
  }
  for (int g = 0; g < G; ++g) store_some(scores + g * reach + first, sums(totals[g]), end - first);
}

// Adds the values of the slots first..end, by their scores, to y [G, dim].
template <int G, class Number>
void mix(const float* scores, const Number* values, int64_t stride, int64_t dim, int64_t first,
         int64_t end, int64_t reach, float* y) {
  for (int64_t d = 0; d < dim; d += LANES) {
    Vector totals[G];
    for (int g = 0; g < G; ++g) totals[g] = load_some(y + g * dim + d, dim - d);
    for (int64_t slot = first; slot < end; ++slot) {
      const Vector v = load_some(values + slot * stride + d, dim - d);
      for (int g = 0; g < G; ++g) totals[g] += v * scores[g * reach + slot];
    }
    for (int g = 0; g < G; ++g) store_some(y + g * dim + d, totals[g], dim - d);
  }
}

void softmax(float* scores, int64_t count) {
  Vector most = all(scores[0]);
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) most = larger(most, load(scores + i));
  float top = largest(most);
  for (; i < count; ++i) top = larger(top, scores[i]);
  Vector total{};
  for (i = 0; i < count; i += LANES) {
    Vector e = exp(load_some(scores + i, count - i) - top);
    for (int64_t j = count - i; j < LANES; ++j) e[j] = 0;
    store_some(scores + i, e, count - i);
    total += e;
  }
  const float scale = 1.0f / sum(total);
  for (i = 0; i < count; i += LANES)
    store_some(scores + i, load_some(scores + i, count - i) * scale, count - i);
}

struct Attention {
  const TransformerStep& step;
  const TransformerLayer& layer;
  Angles near, far;
};

template <int G>
struct Queries {};

// Calls run(Queries<G>, head, key head) for all heads: as many of a group at a time as share what
// they read.
template <class Run>
void each_group(const TransformerStep& step, const Run& run) {
  const int64_t group = step.heads / step.kv_heads;
  for (int64_t h = 0; h < step.heads;) {
    const int64_t left = group - h % group, kv = h / group;
    if (left >= 4) run(Queries<4>{}, h, kv), h += 4;
    else if (left >= 2) run(Queries<2>{}, h, kv), h += 2;
    else run(Queries<1>{}, h, kv), h += 1;
  }
}

// What each head [heads, dim] makes of the first `count` slots, block by block: memory is read in
// the order in which it lies.
template <class Number>
void attend_slots(const TransformerStep& step, const float* near, const float* far,
                  const Number* keys, const Number* values, int64_t count, float* y) {
  Scratch scratch;
  const int64_t dim = step.dim / step.heads, stride = step.kv_heads * dim;
  const int64_t pinned = least(step.pinned, count);
  float* scores = scratch.floats(step.heads * count);
  const auto score_slots = [&](const float* query, int64_t first, int64_t end) {
    for (int64_t slot = first; slot < end; slot += BLOCK)
      each_group(step, [&]<int G>(Queries<G>, int64_t h, int64_t kv) {
        score<G>(query + h * dim, keys + kv * dim, stride, dim, slot, least(slot + BLOCK, end),
                 count, scores + h * count);
      });
  };
  score_slots(far, 0, pinned);
  score_slots(near, pinned, count);
  for (int64_t h = 0; h < step.heads; ++h) softmax(scores + h * count, count);
  __builtin_memset(y, 0, step.dim * sizeof(float));
  for (int64_t slot = 0; slot < count; slot += BLOCK)
    each_group(step, [&]<int G>(Queries<G>, int64_t h, int64_t kv) {
      mix<G>(scores + h * count, values + kv * dim, stride, dim, slot, least(slot + BLOCK, count),
             count, y + h * dim);
    });
}

template <class Number>
void write(const float* x, int64_t count, Number* to) {
  for (int64_t i = 0; i < count; i += LANES)
    store_some(to + i, load_some(x + i, count - i), count - i);
}

// heads [heads + 2 * kv_heads, head_dim] of one row: remembers its key and value -> y [dim]
template <class Number>
void attend(const Attention& a, int64_t n, const float* heads, float* y) {
  const TransformerStep& step = a.step;
  const int64_t dim = step.dim / step.heads, half = dim / 2, row = step.lanes.rows[n];
  const int64_t reach = step.pinned + step.window, position = step.position[row];
  const int64_t slot =
      position < step.pinned ? position : step.pinned + (position - step.pinned) % step.window;
  const int64_t stride = step.kv_heads * dim, held = step.held ? step.held[row] : row;
  Number* keys = static_cast<Number*>(a.layer.keys) + held * reach * stride;
  Number* values = static_cast<Number*>(a.layer.values) + held * reach * stride;
  const float *cosine = a.near.cosine + n * half, *sine = a.near.sine + n * half;
  Scratch scratch;
  float *near = scratch.floats(step.dim), *far = near, *key = scratch.floats(stride);
  turn(heads + step.dim, step.kv_heads, half, cosine, sine, 1.0f, key);
  write(key, stride, keys + slot * stride);
  write(heads + step.dim + stride, stride, values + slot * stride);
  const float scale = 1.0f / __builtin_sqrtf(float(dim));
  turn(heads, step.heads, half, cosine, sine, scale, near);
  if (step.pinned && position >= reach) {
    far = scratch.floats(step.dim);
    turn(heads, step.heads, half, a.far.cosine + n * half, a.far.sine + n * half, scale, far);
  }
  attend_slots(step, near, far, keys, values, least(position + 1, reach), y);
}

}  // namespace

void transformer_step(const TransformerStep& step) {
  Scratch scratch;
  const int64_t rows = step.lanes.count, dim = step.dim, head_dim = dim / step.heads;
  const int64_t width = (step.heads + 2 * step.kv_heads) * head_dim;
  float *x = scratch.floats(rows * dim), *normed = scratch.floats(rows * dim);
  float *heads = scratch.floats(rows * width), *hidden = scratch.floats(rows * step.hidden);
  float *both = scratch.floats(rows * 2 * step.hidden), *y = scratch.floats(rows * dim);
  const Angles near = angles_of(step, INT64_MAX, scratch);
  const Angles far = angles_of(step, step.pinned + step.window - 1, scratch);
  for (int64_t n = 0; n < rows; ++n)
    __builtin_memcpy(x + n * dim, step.x + step.lanes.rows[n] * dim, dim * sizeof(float));
  const auto normalise = [&](const float* weight) {
    for (int64_t n = 0; n < rows; ++n)
      rms_norm(x + n * dim, weight, step.eps, dim, normed + n * dim);
  };
  const auto into = [](float* to, int64_t columns) {
    return [=](int64_t row, int64_t column, Vector v) {
      store_some(to + row * columns + column, v, columns - column);
    };
  };
  const auto add = [&](int64_t row, int64_t column, Vector v) {
    float* to = x + row * dim + column;
    store_some(to, load_some(to, dim - column) + v, dim - column);
  };
  for (int64_t i = 0; i < step.layer_count; ++i) {
    const TransformerLayer& layer = step.layers[i];
    normalise(layer.attention_norm);
    linear(layer.input, normed, rows, into(heads, width));
    const Attention attention{step, layer, near, far};
    parallel(rows, 1, [&](int64_t begin, int64_t end) {
      const auto run = step.is_bfloat16 ? attend<BFloat16> : attend<float>;
      for (int64_t n = begin; n < end; ++n) run(attention, n, heads + n * width, y + n * dim);
    });
    linear(layer.output, y, rows, add);
    normalise(layer.feed_forward_norm);
    linear(layer.feed_forward_input, normed, rows, into(both, 2 * step.hidden));
    gated(both, rows, step.hidden, hidden);
    linear(layer.feed_forward_output, hidden, rows, add);
  }
  for (int64_t n = 0; n < rows; ++n)
    rms_norm(x + n * dim, step.norm, step.eps, dim, step.y + step.lanes.rows[n] * dim);
}

}  // namespace duologue::ISA
