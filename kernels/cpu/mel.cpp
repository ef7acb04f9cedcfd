// Log-mel magnitudes of overlapping windows.
#include "fourier.h"
#include "isa.h"
#include "linear.h"

namespace duologue::ISA {
namespace {

constexpr float FLOOR = 1e-3f;

// Windows first..first + LANES of all, `hops` a row -> magnitudes [windows, bins]
void magnitudes_of(const LogMel& args, const float* samples, int64_t length, int64_t first,
                   int64_t windows, float* magnitudes) {
  Scratch scratch;
  const Window& w = args.window;
  const int64_t bins = w.size / 2 + 1, count = least<int64_t>(LANES, windows - first);
  const Complex x = complex(bins, scratch), y = complex(bins, scratch);
  const Complex spectrum = complex(bins, scratch);
  for (int64_t i = 0; i < LANES; ++i) {
    const int64_t window = first + least(i, count - 1);
    put_window(w, samples + window / args.hops * length + window % args.hops * w.hop, i, x);
  }
  to_spectrum(w, x, y, spectrum);
  for (int64_t k = 0; k < bins; ++k) {
    const Vector a = spectrum.real[k], b = spectrum.imaginary[k], square = a * a + b * b;
    for (int64_t i = 0; i < count; ++i)
      magnitudes[(first + i) * bins + k] = __builtin_sqrtf(square[i]);
  }
}

}  // namespace

void log_mel(const LogMel& args) {
  Scratch scratch;
  const Window& w = args.window;
  const int64_t count = args.hops * w.hop, before = w.size - w.hop, bins = w.size / 2 + 1;
  const int64_t windows = args.lanes.count * args.hops, mels = args.filters.outputs;
  float* samples = scratch.floats(args.lanes.count * (before + count));
  float* magnitudes = scratch.floats(windows * bins);
  for (int64_t n = 0; n < args.lanes.count; ++n) {
    const int64_t row = args.lanes.rows[n];
    behind_past(w, args.past + row * before, args.pcm + row * count, count,
                samples + n * (before + count));
  }
  parallel((windows + LANES - 1) / LANES, 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      magnitudes_of(args, samples, before + count, i * LANES, windows, magnitudes);
  });
  linear(args.filters, magnitudes, windows, [&](int64_t row, int64_t column, Vector v) {
    const int64_t of = args.lanes.rows[row / args.hops];
    float* to = args.y + (of * args.hops + row % args.hops) * mels;
    for (int64_t i = 0; i < least<int64_t>(LANES, mels - column); ++i)
      to[column + i] = (__builtin_logf(v[i] + FLOOR) + 3.5f) / 2;
  });
}

}  // namespace duologue::ISA
