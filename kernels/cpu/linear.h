// Products with a packed matrix: y = x W^T, each sum in the order of its inputs.
//
// So neither how many rows there are, nor who shares them out to how many threads, changes a bit.
#pragma once

#include "kernels.h"
#include "scratch.h"
#include "simd.h"

namespace duologue::ISA {

constexpr int TILE_ROWS = LANES == 4 ? 4 : 6;
constexpr int TILE_VECTORS = LANES == 16 ? 4 : 2;
constexpr int64_t SHARE = 1 << 16;  // multiplications below which no other thread is asked

template <int R, int C, class Number, class Put>
inline void tile(const Number* w, int64_t inputs, const float* x, int64_t stride, int64_t row,
                 int64_t column, const Put& put) {
  Vector total[R][C] = {};
  for (int64_t i = 0; i < inputs; ++i) {
    Vector weight[C];
    for (int c = 0; c < C; ++c) weight[c] = load(w + i * PANEL + c * LANES);
    for (int r = 0; r < R; ++r) {
      const Vector value = all(x[r * stride + i]);
      for (int c = 0; c < C; ++c) total[r][c] += value * weight[c];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) put(row + r, column + c * LANES, total[r][c]);
}

template <int C, class Number, class Put>
inline void tile_rows(int64_t count, const Number* w, int64_t inputs, const float* x, int64_t stride,
                      int64_t row, int64_t column, const Put& put) {
  switch (count) {
    case 1: return tile<1, C>(w, inputs, x, stride, row, column, put);
    case 2: return tile<2, C>(w, inputs, x, stride, row, column, put);
    case 3: return tile<3, C>(w, inputs, x, stride, row, column, put);
    case 4: return tile<4, C>(w, inputs, x, stride, row, column, put);
#if LANES > 4
    case 5: return tile<5, C>(w, inputs, x, stride, row, column, put);
    case 6: return tile<6, C>(w, inputs, x, stride, row, column, put);
#endif
  }
}

// Outputs first..first + width of all rows, whose weights are `data` [inputs, PANEL].
template <class Number, class Put>
inline void panel(const Number* data, int64_t first, int64_t width, int64_t inputs, const float* x,
                  int64_t stride, int64_t rows, const Put& put) {
  const int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
  for (int64_t t = 0; t < tiles; ++t) {  // as even as can be
    const int64_t row = t * rows / tiles, count = (t + 1) * rows / tiles - row;
    const float* from = x + row * stride;
    int64_t c = 0;
    for (; c + (TILE_VECTORS - 1) * LANES < width; c += TILE_VECTORS * LANES)
      tile_rows<TILE_VECTORS>(count, data + c, inputs, from, stride, row, first + c, put);
    for (; c < width; c += LANES)
      tile_rows<1>(count, data + c, inputs, from, stride, row, first + c, put);
  }
}

template <class Put>
inline void panel(const Weight& w, int64_t index, const float* x, int64_t stride, int64_t rows,
                  const Put& put) {
  const int64_t first = index * PANEL, width = least<int64_t>(PANEL, w.outputs - first);
  const int64_t size = PANEL * w.inputs;
  if (w.full) return panel(w.full + index * size, first, width, w.inputs, x, stride, rows, put);
  const uint16_t* half = w.half + index * size;
  if (rows <= TILE_ROWS) return panel(half, first, width, w.inputs, x, stride, rows, put);
  Scratch scratch;  // is read by every tile
  float* full = scratch.floats(size);
  for (int64_t i = 0; i < size; i += LANES) store(full + i, load(half + i));
  panel(full, first, width, w.inputs, x, stride, rows, put);
}

// Calls put(row, column, Vector) for all of x [rows, inputs] times the matrix; the last vector of a
// row may reach beyond the outputs.
template <class Put>
inline void linear(const Weight& w, const float* x, int64_t rows, const Put& put,
                   int64_t stride = 0) {
  if (!rows) return;
  if (!stride) stride = w.inputs;
  const int64_t panels = (w.outputs + PANEL - 1) / PANEL;
  const int64_t grain = 1 + SHARE / (rows * w.inputs * PANEL);
  parallel(panels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) panel(w, p, x, stride, rows, put);
  });
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
