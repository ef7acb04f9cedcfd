// CUDA's vector and small floating-point types, as far as the kernels use them, on a CPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulator {

inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

// A float of `mantissa` bits behind its leading one and a biased exponent above them, without its
// sign. A number's bits are how many of its last places it has, and for each place that its
// exponent is above the least one, 2^mantissa more: so a carry goes where it should.
struct Format {
  int mantissa, bias;
  uint32_t largest;  // what is beyond it becomes `beyond`
  uint32_t beyond, nan;

  uint32_t encode(float x) const {
    if (std::isnan(x)) return nan;
    if (std::isinf(x)) return beyond;
    int exponent;  // x = fraction * 2^exponent, the fraction in 0.5..1
    std::frexp(x, &exponent);
    if (x == 0 || exponent - 1 < 1 - bias) exponent = 2 - bias;
    const float places = std::nearbyint(std::ldexp(std::fabs(x), mantissa - (exponent - 1)));
    const uint32_t bits = uint32_t(places) + (uint32_t(exponent - 2 + bias) << mantissa);
    return bits > largest ? beyond : bits;
  }

  float decode(uint32_t bits) const {
    if (bits > largest) return bits == beyond ? INFINITY : NAN;
    const int exponent = int(bits >> mantissa), places = int(bits & ((1u << mantissa) - 1));
    if (exponent == 0) return std::ldexp(float(places), 1 - bias - mantissa);
    return std::ldexp(float(places + (1 << mantissa)), exponent - bias - mantissa);
  }
};

constexpr Format HALF{10, 15, 0x7bff, 0x7c00, 0x7fff};
constexpr Format BFLOAT16{7, 127, 0x7f7f, 0x7f80, 0x7fff};
constexpr Format E4M3{3, 7, 0x7e, 0x7e, 0x7f};  // saturates, has no infinity

// Every value of half precision: reading them is most of what some kernels do.
inline float half_value(uint16_t bits) {
  static const float* const values = [] {
    static float table[1 << 16];
    for (uint32_t i = 0; i < 1 << 16; ++i)
      table[i] = std::copysign(HALF.decode(i & 0x7fff), i & 0x8000 ? -1.0f : 1.0f);
    return table;
  }();
  return values[bits];
}

inline uint16_t encode16(const Format& format, float x) {
  return uint16_t(format.encode(x) | (std::signbit(x) ? 0x8000 : 0));
}

}  // namespace emulator

struct __half {
  uint16_t bits;
};
inline float __half2float(__half x) { return emulator::half_value(x.bits); }
inline __half __float2half(float x) { return {emulator::encode16(emulator::HALF, x)}; }

struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) {
  return emulator::float_of(uint32_t{x.bits} << 16);
}
inline __nv_bfloat16 __float2bfloat16(float x) {
  return {emulator::encode16(emulator::BFLOAT16, x)};
}

struct __nv_fp8_e4m3 {
  uint8_t bits;
  __nv_fp8_e4m3() = default;
  explicit __nv_fp8_e4m3(float x)
      : bits(uint8_t(emulator::E4M3.encode(x) | (std::signbit(x) ? 0x80 : 0))) {}
  explicit operator float() const {
    const float value = emulator::E4M3.decode(bits & 0x7f);
    return bits & 0x80 ? -value : value;
  }
};
