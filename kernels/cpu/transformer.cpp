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

// Scores [group, reach] of the slots first..end of one head of keys, `stride` floats apart.
template <int G>
void score(const float* query, const float* keys, int64_t stride, int64_t dim, int64_t first,
           int64_t end, int64_t reach, float* scores) {
  for (int64_t slot = first; slot < end; slot += LANES) {
    Vector totals[G][LANES] = {};
    const int64_t count = least<int64_t>(LANES, end - slot);
    for (int64_t j = 0; j < count; ++j) {
      const float* key = keys + (slot + j) * stride;
      for (int64_t d = 0; d < dim; d += LANES) {
        const Vector k = load_some(key + d, dim - d);
        for (int g = 0; g < G; ++g) totals[g][j] += k * load_some(query + g * dim + d, dim - d);
      }
    }
    for (int g = 0; g < G; ++g) store_some(scores + g * reach + slot, sums(totals[g]), count);
  }
}

template <int G>
void mix(const float* scores, const float* values, int64_t stride, int64_t dim, int64_t count,
         int64_t reach, float* y) {
  for (int64_t d = 0; d < dim; d += LANES) {
    Vector totals[G] = {};
    for (int64_t slot = 0; slot < count; ++slot) {
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

// As many of a group's queries at a time as share what they read.
template <int G>
void attend_group(const Attention& a, const float* near, const float* far, const float* keys,
                  const float* values, int64_t count, float* scores, float* y) {
  const TransformerStep& step = a.step;
  const int64_t dim = step.dim / step.heads, stride = step.kv_heads * dim;
  const int64_t reach = step.pinned + step.window, pinned = least(step.pinned, count);
  score<G>(far, keys, stride, dim, 0, pinned, reach, scores);
  score<G>(near, keys, stride, dim, pinned, count, reach, scores);
  for (int g = 0; g < G; ++g) softmax(scores + g * reach, count);
  mix<G>(scores, values, stride, dim, count, reach, y);
}

// heads [heads + 2 * kv_heads, head_dim] of one row: remembers its key and value -> y [dim]
void attend(const Attention& a, int64_t n, const float* heads, float* y) {
  const TransformerStep& step = a.step;
  const int64_t dim = step.dim / step.heads, half = dim / 2, row = step.lanes.rows[n];
  const int64_t reach = step.pinned + step.window, position = step.position[row];
  const int64_t slot =
      position < step.pinned ? position : step.pinned + (position - step.pinned) % step.window;
  const int64_t stride = step.kv_heads * dim, held = step.held ? step.held[row] : row;
  float* keys = a.layer.keys + held * reach * stride;
  float* values = a.layer.values + held * reach * stride;
  const float *cosine = a.near.cosine + n * half, *sine = a.near.sine + n * half;
  turn(heads + step.dim, step.kv_heads, half, cosine, sine, 1.0f, keys + slot * stride);
  __builtin_memcpy(values + slot * stride, heads + step.dim + stride, stride * sizeof(float));

  Scratch scratch;
  float *near = scratch.floats(step.dim), *far = near;
  const float scale = 1.0f / __builtin_sqrtf(float(dim));
  turn(heads, step.heads, half, cosine, sine, scale, near);
  if (step.pinned && position >= reach) {
    far = scratch.floats(step.dim);
    turn(heads, step.heads, half, a.far.cosine + n * half, a.far.sine + n * half, scale, far);
  }
  const int64_t group = step.heads / step.kv_heads, count = least(position + 1, reach);
  float* scores = scratch.floats(4 * reach);
  for (int64_t h = 0; h < step.heads;) {
    const int64_t left = group - h % group, at = h * dim;
    const float *key = keys + h / group * dim, *value = values + h / group * dim;
    const auto run = [&](auto attended) {
      attended(a, near + at, far + at, key, value, count, scores, y + at);
    };
    if (left >= 4) run(attend_group<4>), h += 4;
    else if (left >= 2) run(attend_group<2>), h += 2;
    else run(attend_group<1>), h += 1;
  }
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
      for (int64_t n = begin; n < end; ++n) attend(attention, n, heads + n * width, y + n * dim);
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
