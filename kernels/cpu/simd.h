// A vector of floats as wide as the instructions that this file is compiled for have them.
//
// Every source in this folder but dispatch.cpp, scratch.cpp and choice.cpp is compiled once for each
// set of instructions, with ISA naming the namespace. Nothing here may come from a template of the
// standard library: the linker keeps one copy of such a function, perhaps the one that an older
// processor can't run.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

namespace duologue::ISA {

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
enum BFloat16 : uint16_t {};  // the upper half of a float's bits

inline Vector load(const float* from) {
  Vector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, Vector v) { __builtin_memcpy(to, &v, sizeof v); }

// Numbers of half precision, exactly.
inline Vector load(const uint16_t* from) {
#if LANES == 16
  return (Vector)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif LANES == 8
  return (Vector)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#else
  Integers bits;
  for (int i = 0; i < LANES; ++i) bits[i] = from[i];
  const Vector magnitude = (Vector)((bits & 0x7fff) << 13) * 0x1p112f;  // of subnormals, too
  return (Vector)((Integers)magnitude | ((bits & 0x8000) << 16));
#endif
}

inline Vector load(const BFloat16* from) {
  Halves bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return (Vector)(__builtin_convertvector(bits, Integers) << 16);
}

// To the nearest, of two that are as near the even one, as PyTorch does.
inline void store(BFloat16* to, Vector v) {
  const Integers bits = v == v ? (Integers)v : Integers{} + 0x7fc00000;
  const Halves halves = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Halves);
  __builtin_memcpy(to, &halves, sizeof halves);
}

inline Vector all(float x) { return x - Vector{}; }

template <class Number>
inline Vector load_some(const Number* from, int64_t count) {
  if (count >= LANES) return load(from);
  Number some[LANES]{};
  __builtin_memcpy(some, from, count * sizeof(Number));
  return load(some);
}

template <class Number>
inline void store_some(Number* to, Vector v, int64_t count) {
  if (count >= LANES) return store(to, v);
  Number some[LANES];
  store(some, v);
  __builtin_memcpy(to, some, count * sizeof(Number));
}

inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }
inline Vector smaller(Vector a, Vector b) { return a < b ? a : b; }
inline float larger(float a, float b) { return a > b ? a : b; }
template <class T>
inline T least(T a, T b) {
  return a < b ? a : b;
}

// Always in the same order.
inline float sum(Vector v) {
  float x[LANES];
  store(x, v);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

inline float largest(Vector v) {
  float most = v[0];
  for (int i = 1; i < LANES; ++i) most = larger(most, v[i]);
  return most;
}

#if LANES == 16
constexpr Integers EVEN = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
#elif LANES == 8
constexpr Integers EVEN = {0, 2, 4, 6, 8, 10, 12, 14};
#else
constexpr Integers EVEN = {0, 2, 4, 6};
#endif

// Lane i of the result is the sum of v[i]: a transposition that adds on its way.
inline Vector sums(Vector (&v)[LANES]) {
  for (int left = LANES / 2; left; left /= 2)
    for (int i = 0; i < left; ++i)
      v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], EVEN) +
             __builtin_shuffle(v[2 * i], v[2 * i + 1], EVEN + 1);
  return v[0];
}

// exp as in Cephes, relative error below 2e-7; 0 below -87.3.
inline Vector exp(Vector x) {
  const Vector magic = all(12582912.0f);  // 1.5 * 2^23: what is added to it is rounded to an integer
  const Vector clamped = larger(smaller(x, all(88.0f)), all(-87.3f));
  const Vector shifted = clamped * 1.44269504088896341f + magic;
  const Vector n = shifted - magic;
  const Vector r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector y = all(1.9875691500e-4f);
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  const Integers power = (((Integers)shifted - (Integers)magic) + 127) << 23;
  return x < -87.3f ? Vector{} : y * (Vector)power;
}

// Sine and cosine as in Cephes; absolute error below 2e-7 up to some thousand radians.
inline void sine_cosine(Vector x, Vector& sine, Vector& cosine) {
  const Vector magic = all(12582912.0f);
  const Vector shifted = x * 0.636619772367581343f + magic;
  const Vector n = shifted - magic;
  const Integers quadrant = (Integers)shifted - (Integers)magic;
  const Vector r = ((x - n * 1.5703125f) - n * 4.837512969970703e-4f) - n * 7.549789954891e-8f;
  const Vector z = r * r;
  const Vector s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
  const Vector c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z +
                    4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
  const Integers swapped = (quadrant & 1) != 0;
  sine = swapped ? c : s;
  cosine = swapped ? s : c;
  sine = (quadrant & 2) != 0 ? -sine : sine;
  cosine = ((quadrant + 1) & 2) != 0 ? -cosine : cosine;
}

}  // namespace duologue::ISA
