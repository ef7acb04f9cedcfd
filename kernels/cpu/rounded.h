// Products with a matrix that is rounded to 8 bits, of rows that are rounded as they come.
//
// What is summed are whole numbers, so no order and no set of instructions changes a sum.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace duologue::ISA {

// Rows [rows, quads * 4] as whole numbers 0..255: value = low + step * number, of each row its own.
struct Rounded {
  const int32_t* quads;  // four numbers in each
  const float *step, *low;
  int64_t count;  // of quads in a row
};

// One row; what fills up the last quad meets weights of 0.
inline void round_row(const float* x, int64_t inputs, int32_t* quads, float& step, float& low) {
  Vector least_of = all(x[0]), most = least_of;
  int64_t i = 0;
  for (; i + LANES <= inputs; i += LANES) {
    least_of = smaller(least_of, load(x + i));
    most = larger(most, load(x + i));
  }
  float bottom = -largest(-least_of), top = largest(most);
  for (; i < inputs; ++i) bottom = least(bottom, x[i]), top = larger(top, x[i]);
  low = bottom;
  step = (top - bottom) / 255.0f;
  const float scale = step > 0 ? 1.0f / step : 0.0f;
  uint8_t* numbers = reinterpret_cast<uint8_t*>(quads);
  for (i = 0; i < inputs; i += LANES) {
    typedef uint8_t Bytes __attribute__((vector_size(LANES)));
    const Vector magic = all(12582912.0f);  // as in exp
    const Vector near = (load_some(x + i, inputs - i) - bottom) * scale + magic;
    const Bytes bytes = __builtin_convertvector((Integers)near - (Integers)magic, Bytes);
    __builtin_memcpy(numbers + i, &bytes, least<int64_t>(LANES, inputs - i));
  }
}

// total + the products of four numbers of x (0..255) with four of w (-127..127), in every lane.
inline Integers add_products(Integers total, Integers x, Integers w) {
#if defined(__AVX512VNNI__)
  return (Integers)_mm512_dpbusd_epi32((__m512i)total, (__m512i)x, (__m512i)w);
#elif LANES == 16
  const __m512i low = _mm512_set1_epi16(255);
  const __m512i even = _mm512_madd_epi16(_mm512_and_si512((__m512i)x, low),
                                         _mm512_srai_epi16(_mm512_slli_epi16((__m512i)w, 8), 8));
  const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16((__m512i)x, 8),
                                        _mm512_srai_epi16((__m512i)w, 8));
  return total + (Integers)even + (Integers)odd;
#elif LANES == 8
  const __m256i low = _mm256_set1_epi16(255);
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256((__m256i)x, low),
                                         _mm256_srai_epi16(_mm256_slli_epi16((__m256i)w, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16((__m256i)x, 8),
                                        _mm256_srai_epi16((__m256i)w, 8));
  return total + (Integers)even + (Integers)odd;
#else
  for (int shift = 0; shift < 32; shift += 8) total += ((x >> shift) & 255) * (w << (24 - shift) >> 24);
  return total;
#endif
}

// A panel of such a matrix, to go with such rows.
struct RoundedPanel {
  const int8_t* numbers;  // [count, PANEL, 4]
  Rounded x;

  // Of R rows, C vectors of outputs from the one at `first` of the panel.
  template <int R, int C, class Put>
  void tile(int64_t row, int64_t first, const Put& put) const {
    Integers total[R][C] = {};
    const int8_t* w = numbers + 4 * first;
    const int32_t* quads = x.quads + row * x.count;
    for (int64_t i = 0; i < x.count; ++i) {
      Integers weight[C];
      for (int c = 0; c < C; ++c)
        __builtin_memcpy(&weight[c], w + 4 * (i * PANEL + c * LANES), sizeof weight[c]);
      for (int r = 0; r < R; ++r) {
        const Integers value = quads[r * x.count + i] - Integers{};
        for (int c = 0; c < C; ++c) total[r][c] = add_products(total[r][c], value, weight[c]);
      }
    }
    const float* steps = reinterpret_cast<const float*>(numbers + 4 * x.count * PANEL) + first;
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        const Vector product = __builtin_convertvector(total[r][c], Vector) * x.step[row + r];
        const Vector sum = load(steps + PANEL + c * LANES);
        put(row + r, first + c * LANES,
            (product + sum * x.low[row + r]) * load(steps + c * LANES));
      }
  }
};

}  // namespace duologue::ISA
