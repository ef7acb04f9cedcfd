// The end of the decoder: pulses, shaped, and the rest of the spectrum, back to a waveform.
#include <cmath>  // M_PI

#include "fourier.h"
#include "isa.h"
#include "linear.h"

namespace duologue::ISA {
namespace {

constexpr float LEAST_HZ = 60.0f, MOST_HZ = 450.0f, LOUDEST = 5.0f;

// Sum of cos(k * phase) over k = 1..harmonics, at unit power; `last` is (harmonics + 0.5) * phase.
Vector pulses_of(Vector phase, Vector last, float harmonics) {
  Vector half, sine, unused;
  sine_cosine(phase / 2, half, unused);
  sine_cosine(last, sine, unused);
  const Vector size = half < 0 ? -half : half;
  const Vector kernel = sine / (size < 1e-4f ? all(1.0f) : 2 * half) - 0.5f;
  return (size < 1e-4f ? all(harmonics) : kernel) * __builtin_sqrtf(2.0f / harmonics);
}

// Rounded to float32, never joined to an addition: what is summed up over hundreds of harmonics
// must be rounded as the reference does it.
float product(float a, float b) { return float(double(a) * double(b)); }

// Turns of a hop's samples since it began, the pitch in a straight line -> those of its last one.
double turn(const Voice& args, double turns, float last_hz, float hz, float* phases) {
  const int64_t hop = args.window.hop;
  const double scale = double(hop) / args.rate_hz;
  double within = 0;
  for (int64_t i = 0; i < hop; ++i) {
    const float ramp = float(i + 1) / float(hop);
    const float change = product(hz - last_hz, product(ramp, ramp)) / 2;
    within = double(product(last_hz, ramp) + change) * scale;
    const double turn = turns + within;
    phases[i] = float((turn - __builtin_floor(turn)) * (2 * M_PI));
  }
  return within;
}

// The source of one row [hops * hop] -> samples; its phase runs on in the state.
void source(const Voice& args, int64_t row, float* samples) {
  Scratch scratch;
  const int64_t hop = args.window.hop;
  float *phases = scratch.floats(hop), *angles = scratch.floats(hop);
  double turns = args.turns[row];
  float last_hz = args.last_hz[row];
  for (int64_t t = 0; t < args.hops; ++t) {
    float hz = args.pitch_hz[row * args.hops + t];
    hz = hz < LEAST_HZ ? LEAST_HZ : hz > MOST_HZ ? MOST_HZ : hz;
    if (!(last_hz > 0)) last_hz = hz;
    turns += turn(args, turns, last_hz, hz, phases);
    last_hz = hz;
    const float harmonics = __builtin_floorf(float(args.rate_hz / 2) / hz);
    for (int64_t i = 0; i < hop; ++i) angles[i] = product(harmonics + 0.5f, phases[i]);
    for (int64_t i = 0; i < hop; i += LANES) {
      const Vector phase = load_some(phases + i, hop - i), angle = load_some(angles + i, hop - i);
      store_some(samples + t * hop + i, pulses_of(phase, angle, harmonics), hop - i);
    }
  }
  args.turns[row] = turns - __builtin_floor(turns);
  args.last_hz[row] = last_hz;
}

void polar(Vector log_magnitude, Vector phase, Vector& real, Vector& imaginary) {
  const Vector magnitude = exp(smaller(log_magnitude, all(LOUDEST)));
  Vector sine, cosine;
  sine_cosine(phase, sine, cosine);
  real = magnitude * cosine;
  imaginary = magnitude * sine;
}

// Rows of LANES windows side by side: from [count] pointers to [size][LANES].
void beside(const float* const* from, int64_t size, Vector* to) {
  for (int64_t k = 0; k < size; ++k)
    for (int64_t i = 0; i < LANES; ++i) lane(to, k, i) = from[i][k];
}

// Spectra of pulses -> of the voice: through their filter, and what is not voiced beside them.
void shape(const Voice& args, const Vector* filters, const Vector* rest, Complex spectrum) {
  const int64_t bins = args.window.size / 2 + 1, bands = args.bands;
  const float scale = float(bands - 1) / float(bins - 1);
  for (int64_t k = 0; k < bins; ++k) {
    const float at = scale * float(k);
    const int64_t low = int64_t(at), high = low + (low < bands - 1);
    const float share = at - float(low);
    const Vector* phases = filters + bands;
    Vector real, imaginary, rest_real, rest_imaginary;
    polar(filters[low] * (1 - share) + filters[high] * share,
          phases[low] * (1 - share) + phases[high] * share, real, imaginary);
    polar(rest[k], rest[bins + k], rest_real, rest_imaginary);
    const Vector a = spectrum.real[k], b = spectrum.imaginary[k];
    spectrum.real[k] = a * real - b * imaginary + rest_real;
    spectrum.imaginary[k] = a * imaginary + b * real + rest_imaginary;
  }
}

// LANES windows of all, `hops` a row -> frames [windows, size]
void frames_of(const Voice& args, const float* samples, int64_t length, int64_t first,
               int64_t windows, float* frames) {
  Scratch scratch;
  const Window& w = args.window;
  const int64_t bins = w.size / 2 + 1, count = least<int64_t>(LANES, windows - first);
  const Complex x = complex(bins, scratch), y = complex(bins, scratch);
  const Complex spectrum = complex(bins, scratch), shapes = complex(2 * bins, scratch);
  const float *filter[LANES], *rest[LANES];
  for (int64_t i = 0; i < LANES; ++i) {
    const int64_t window = first + least(i, count - 1), hop = window % args.hops;
    const int64_t at = args.lanes.rows[window / args.hops] * args.hops + hop;
    put_window(w, samples + window / args.hops * length + hop * w.hop, i, x);
    filter[i] = args.filters + at * 2 * args.bands;
    rest[i] = args.spectrum + at * 2 * bins;
  }
  to_spectrum(w, x, y, spectrum);
  beside(filter, 2 * args.bands, shapes.real);
  beside(rest, 2 * bins, shapes.imaginary);
  shape(args, shapes.real, shapes.imaginary, spectrum);
  const Complex z = to_samples(w, spectrum, x, y);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t n = 0; n < w.size / 2; ++n) {
      float* to = frames + (first + i) * w.size + 2 * n;
      to[0] = lane(z.real, n, i) * w.shape[2 * n];
      to[1] = lane(z.imaginary, n, i) * w.shape[2 * n + 1];
    }
}

// frames [hops, size] of one row, added up behind what waits in its state.
void overlap_add(const Voice& args, int64_t row, const float* frames) {
  Scratch scratch;
  const Window& w = args.window;
  const int64_t count = args.hops * w.hop, after = w.size - w.hop;
  float *y = scratch.floats(count + after), *overlap = args.overlap + row * after;
  for (int64_t i = 0; i < count + after; ++i) y[i] = 0;
  for (int64_t t = 0; t < args.hops; ++t)
    for (int64_t i = 0; i < w.size; ++i) y[t * w.hop + i] += frames[t * w.size + i];
  for (int64_t i = 0; i < after; ++i) y[i] += overlap[i];
  __builtin_memcpy(args.pcm + row * count, y, count * sizeof(float));
  __builtin_memcpy(overlap, y + count, after * sizeof(float));
}

}  // namespace

void voice(const Voice& args) {
  Scratch scratch;
  const Window& w = args.window;
  const int64_t count = args.hops * w.hop, before = w.size - w.hop;
  const int64_t windows = args.lanes.count * args.hops;
  float *pulses = scratch.floats(args.lanes.count * count);
  float* samples = scratch.floats(args.lanes.count * (before + count));
  float* frames = scratch.floats(windows * w.size);
  parallel(args.lanes.count, 4, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      source(args, args.lanes.rows[n], pulses + n * count);
      behind_past(w, args.past + args.lanes.rows[n] * before, pulses + n * count, count,
                  samples + n * (before + count));
    }
  });
  parallel((windows + LANES - 1) / LANES, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      frames_of(args, samples, before + count, i * LANES, windows, frames);
  });
  parallel(args.lanes.count, 8, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      overlap_add(args, args.lanes.rows[n], frames + n * args.hops * w.size);
  });
}

}  // namespace duologue::ISA
