// Products with a packed matrix: y = x W^T, each sum in the order of its inputs (rounded.h: of whole
// numbers).
//
// So neither how many rows there are, nor who shares them out to how many threads, changes a bit.
#pragma once

#include "kernels.h"
#include "rounded.h"
#include "scratch.h"
#include "simd.h"

namespace duologue::ISA {

constexpr int TILE_ROWS = LANES == 4 ? 4 : 6;
constexpr int TILE_VECTORS = LANES == 16 ? 4 : 2;
constexpr int64_t SHARE = 1 << 16;  // multiplications below which no other thread is asked

// A panel as it is, to go with rows of floats, `stride` apart.
template <class Number>
struct ExactPanel {
  const Number* weights;  // [inputs, PANEL]
  int64_t inputs;
  const float* x;
  int64_t stride;

  // Of R rows, C vectors of outputs from the one at `first` of the panel.
  template <int R, int C, class Put>
  void tile(int64_t row, int64_t first, const Put& put) const {
    Vector total[R][C] = {};
    const Number* w = weights + first;
    const float* from = x + row * stride;
    for (int64_t i = 0; i < inputs; ++i) {
      Vector weight[C];
      for (int c = 0; c < C; ++c) weight[c] = load(w + i * PANEL + c * LANES);
      for (int r = 0; r < R; ++r) {
        const Vector value = all(from[r * stride + i]);
        for (int c = 0; c < C; ++c) total[r][c] += value * weight[c];
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) put(row + r, first + c * LANES, total[r][c]);
  }
};

template <int C, class Panel, class Put>
inline void tile_rows(const Panel& panel, int64_t count, int64_t row, int64_t first,
                      const Put& put) {
  switch (count) {
    case 1: return panel.template tile<1, C>(row, first, put);
    case 2: return panel.template tile<2, C>(row, first, put);
    case 3: return panel.template tile<3, C>(row, first, put);
    case 4: return panel.template tile<4, C>(row, first, put);
#if LANES > 4
    case 5: return panel.template tile<5, C>(row, first, put);
    case 6: return panel.template tile<6, C>(row, first, put);
#endif
  }
}

// The first `width` outputs of a panel, of all rows.
template <class Panel, class Put>
inline void cover(const Panel& panel, int64_t width, int64_t rows, const Put& put) {
  const int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
  for (int64_t t = 0; t < tiles; ++t) {  // as even as can be
    const int64_t row = t * rows / tiles, count = (t + 1) * rows / tiles - row;
    int64_t c = 0;
    for (; c + (TILE_VECTORS - 1) * LANES < width; c += TILE_VECTORS * LANES)
      tile_rows<TILE_VECTORS>(panel, count, row, c, put);
    for (; c < width; c += LANES) tile_rows<1>(panel, count, row, c, put);
  }
}

// Calls run(index, width) for every panel.
template <class Run>
inline void each_panel(const Weight& w, int64_t rows, const Run& run) {
  const int64_t grain = 1 + SHARE / (rows * w.inputs * PANEL);
  parallel(w.panels(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) run(p, least<int64_t>(PANEL, w.outputs - p * PANEL));
  });
}

template <class Put>
inline void linear_rounded(const Weight& w, const float* x, int64_t stride, int64_t rows,
                           const Put& put) {
  Scratch scratch;
  const int64_t count = (w.inputs + 3) / 4;
  int32_t* quads = reinterpret_cast<int32_t*>(scratch.floats(rows * count));
  float *step = scratch.floats(rows), *low = scratch.floats(rows);
  parallel(rows, 1 + SHARE / (4 * w.inputs), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      round_row(x + r * stride, w.inputs, quads + r * count, step[r], low[r]);
  });
  each_panel(w, rows, [&](int64_t p, int64_t width) {
    const int8_t* numbers = w.rounded + p * w.panel_rows() * PANEL;
    cover(RoundedPanel{numbers, {quads, step, low, count}}, width, rows,
          [&](int64_t row, int64_t column, Vector v) { put(row, p * PANEL + column, v); });
  });
}

template <class Put>
inline void linear_exact(const Weight& w, const float* x, int64_t stride, int64_t rows,
                         const Put& put) {
  const int64_t size = w.inputs * PANEL;
  each_panel(w, rows, [&](int64_t p, int64_t width) {
    const auto run = [&](const auto* weights) {
      cover(ExactPanel{weights, w.inputs, x, stride}, width, rows,
            [&](int64_t row, int64_t column, Vector v) { put(row, p * PANEL + column, v); });
    };
    if (w.full) return run(w.full + p * size);
    const uint16_t* half = w.half + p * size;
    if (rows <= TILE_ROWS) return run(half);
    Scratch scratch;  // is read by every tile
    float* full = scratch.floats(size);
    for (int64_t i = 0; i < size; i += LANES) store(full + i, load(half + i));
    run(static_cast<const float*>(full));
  });
}

// Calls put(row, column, Vector) for all of x [rows, inputs] times the matrix; the last vector of a
// row may reach beyond the outputs.
template <class Put>
inline void linear(const Weight& w, const float* x, int64_t rows, const Put& put,
                   int64_t stride = 0) {
  if (!rows) return;
  if (!stride) stride = w.inputs;
  if (w.rounded) linear_rounded(w, x, stride, rows, put);
  else linear_exact(w, x, stride, rows, put);
}

inline Vector swish(Vector x) { return x / (1.0f + exp(-x)); }

// x times the logistic function of twice what tanh is taken of, which is the same.
inline Vector gelu_tanh(Vector x) {
  const Vector u = 1.5957691216057308f * (x + 0.044715f * x * x * x);
  return x / (1.0f + exp(-u));
}

// y = x / rms(x) * weight
inline void rms_norm(const float* x, const float* weight, float eps, int64_t dim, float* y) {
  Vector squares{};
  for (int64_t i = 0; i < dim; i += LANES) {
    const Vector v = load_some(x + i, dim - i);
    squares += v * v;
  }
  const float scale = 1.0f / __builtin_sqrtf(sum(squares) / dim + eps);
  for (int64_t i = 0; i < dim; i += LANES)
    store_some(y + i, load_some(x + i, dim - i) * scale * load_some(weight + i, dim - i), dim - i);
}

inline void layer_norm(const float* x, const Norm& norm, int64_t dim, float* y) {
  Vector total{};
  for (int64_t i = 0; i < dim; i += LANES) total += load_some(x + i, dim - i);
  const float mean = sum(total) / dim;
  Vector squares{};
  for (int64_t i = 0; i < dim; i += LANES) {
    Vector v = load_some(x + i, dim - i) - mean;
    if (dim - i < LANES)  // what is not there is not away from the mean
      for (int64_t j = dim - i; j < LANES; ++j) v[j] = 0;
    squares += v * v;
  }
  const float scale = 1.0f / __builtin_sqrtf(sum(squares) / dim + norm.eps);
  for (int64_t i = 0; i < dim; i += LANES) {
    const Vector v = (load_some(x + i, dim - i) - mean) * scale;
    store_some(y + i, v * load_some(norm.weight + i, dim - i) + load_some(norm.bias + i, dim - i),
               dim - i);
  }
}

// value of a gate's half of the channels and the other half: h [rows, 2 * hidden] -> [rows, hidden]
inline void gated(const float* h, int64_t rows, int64_t hidden, float* y) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < hidden; i += LANES) {
      const float* gate = h + r * 2 * hidden + i;
      const Vector g = load_some(gate, hidden - i), v = load_some(gate + hidden, hidden - i);
      store_some(y + r * hidden + i, swish(g) * v, hidden - i);
    }
}

}  // namespace duologue::ISA
