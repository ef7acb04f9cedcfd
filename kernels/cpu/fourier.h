// Fourier transforms of real windows, as many at once as a vector has lanes: a lane a window.
#pragma once

#include "kernels.h"
#include "scratch.h"
#include "simd.h"

namespace duologue::ISA {

// Of all lanes [count].
struct Complex {
  Vector *real, *imaginary;
};

inline Complex complex(int64_t count, Scratch& scratch) {
  return {reinterpret_cast<Vector*>(scratch.floats(count * LANES)),
          reinterpret_cast<Vector*>(scratch.floats(count * LANES))};
}

// One pass of a Stockham transform: `length` is what is left of it, `stride` what is done.
template <int R>
void pass(const Window& w, int64_t length, int64_t stride, Complex x, Complex y) {
  const int64_t parts = length / R, turn = w.size / length;
  float cosine[R], sine[R];
  for (int j = 0; j < R; ++j) {
    cosine[j] = w.cosine[j * (w.size / R)];
    sine[j] = -w.sine[j * (w.size / R)];
  }
  for (int64_t p = 0; p < parts; ++p)
    for (int64_t q = 0; q < stride; ++q)
      for (int t = 0; t < R; ++t) {
        const int64_t at = q + stride * p;
        Vector real = x.real[at], imaginary = x.imaginary[at];
        for (int j = 1; j < R; ++j) {
          const Vector a = x.real[at + stride * parts * j];
          const Vector b = x.imaginary[at + stride * parts * j];
          const int root = j * t % R;
          real += a * cosine[root] - b * sine[root];
          imaginary += a * sine[root] + b * cosine[root];
        }
        const float c = w.cosine[p * t * turn], s = -w.sine[p * t * turn];
        const int64_t to = q + stride * (R * p + t);
        y.real[to] = real * c - imaginary * s;
        y.imaginary[to] = real * s + imaginary * c;
      }
}

// Of size / 2 complex numbers; the result lies in x or in `other`, which is returned.
inline Complex transform(const Window& w, Complex x, Complex other) {
  int64_t length = w.size / 2, stride = 1;
  while (length > 1) {
    int radix = length % 4 == 0 ? 4 : length % 2 == 0 ? 2 : length % 3 == 0 ? 3 : 5;
    if (radix == 4) pass<4>(w, length, stride, x, other);
    if (radix == 2) pass<2>(w, length, stride, x, other);
    if (radix == 3) pass<3>(w, length, stride, x, other);
    if (radix == 5) pass<5>(w, length, stride, x, other);
    length /= radix;
    stride *= radix;
    const Complex swapped = x;
    x = other;
    other = swapped;
  }
  return x;
}

// samples [size] as pairs in x [size / 2] -> spectrum [size / 2 + 1]
inline void to_spectrum(const Window& w, Complex x, Complex other, Complex spectrum) {
  const int64_t half = w.size / 2;
  const Complex z = transform(w, x, other);
  for (int64_t k = 0; k <= half; ++k) {
    const int64_t at = k % half, mirrored = (half - k) % half;
    const Vector a = z.real[at], b = z.imaginary[at];
    const Vector c = z.real[mirrored], d = z.imaginary[mirrored];
    const Vector odd_real = (b + d) * 0.5f, odd_imaginary = (c - a) * 0.5f;
    const float cosine = w.cosine[k], sine = -w.sine[k];
    spectrum.real[k] = (a + c) * 0.5f + odd_real * cosine - odd_imaginary * sine;
    spectrum.imaginary[k] = (b - d) * 0.5f + odd_real * sine + odd_imaginary * cosine;
  }
}

// spectrum [size / 2 + 1] -> samples [size] as pairs [size / 2]; what is imaginary at both ends
// counts for nothing.
inline Complex to_samples(const Window& w, Complex spectrum, Complex x, Complex other) {
  const int64_t half = w.size / 2;
  spectrum.imaginary[0] = spectrum.imaginary[half] = Vector{};
  for (int64_t k = 0; k < half; ++k) {
    const Vector a = spectrum.real[k], b = spectrum.imaginary[k];
    const Vector c = spectrum.real[half - k], d = spectrum.imaginary[half - k];
    const Vector real = (a - c) * 0.5f, imaginary = (b + d) * 0.5f;
    const float cosine = w.cosine[k], sine = w.sine[k];
    const Vector odd_real = real * cosine - imaginary * sine;
    const Vector odd_imaginary = real * sine + imaginary * cosine;
    // Real and imaginary change places, which makes the transform its own inverse.
    x.imaginary[k] = (a + c) * 0.5f - odd_imaginary;
    x.real[k] = (b - d) * 0.5f + odd_real;
  }
  const Complex z = transform(w, x, other);
  const float scale = 1.0f / half;
  for (int64_t n = 0; n < half; ++n) {
    const Vector real = z.imaginary[n] * scale;
    z.imaginary[n] = z.real[n] * scale;
    z.real[n] = real;
  }
  return z;
}

inline float& lane(Vector* v, int64_t at, int64_t number) {
  return reinterpret_cast<float*>(v)[at * LANES + number];
}

// Puts samples [size], each times the window, into a lane.
inline void put_window(const Window& w, const float* samples, int64_t number, Complex x) {
  for (int64_t n = 0; n < w.size / 2; ++n) {
    lane(x.real, n, number) = samples[2 * n] * w.shape[2 * n];
    lane(x.imaginary, n, number) = samples[2 * n + 1] * w.shape[2 * n + 1];
  }
}

// The spectrum of samples as if there was a past [size - hop] before them; remembers the next.
inline void behind_past(const Window& w, float* past, const float* samples, int64_t count,
                        float* all_samples) {
  const int64_t before = w.size - w.hop;
  __builtin_memcpy(all_samples, past, before * sizeof(float));
  __builtin_memcpy(all_samples + before, samples, count * sizeof(float));
  __builtin_memcpy(past, all_samples + count, before * sizeof(float));
}

}  // namespace duologue::ISA
