// CUDA's words, as far as the kernels use them, for g++: see fibers.h for how they run.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "fibers.h"
#include "types.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx (::emulator::current->index)
#define blockIdx (::emulator::launched.block_index)
#define gridDim (::emulator::launched.grid)

#define SHARED(type, name, dimensions)                                \
  static ::emulator::Shared<type dimensions> name##_of_block;         \
  auto& name = name##_of_block.here()
#define LAUNCH(kernel, grid, block, stream, ...) \
  (static_cast<void>(stream), ::emulator::run(grid, block, [&] { (kernel)(__VA_ARGS__); }))

namespace emulator {

template <class Body>
int run(dim3 grid, dim3 block, const Body& body) {
  return launch(grid, block, [](const void* it) { (*static_cast<const Body*>(it))(); }, &body);
}

template <class T>
uint64_t packed(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = ~uint64_t{0};
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
T unpacked(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulator

inline void __syncthreads(int line = __builtin_LINE()) { emulator::wait_for_block(line); }

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int apart, int line = __builtin_LINE()) {
  const unsigned from = emulator::current->lane ^ unsigned(apart);
  if (!(mask >> from & 1)) emulator::fail("line %d: reads lane %u, not in the mask", line, from);
  return emulator::unpacked<T>(emulator::exchange(mask, emulator::packed(value), line)[from]);
}

inline unsigned long long atomicMin(unsigned long long* to, unsigned long long value) {
  const unsigned long long before = *to;
  if (value < before) *to = value;
  return before;
}

inline uint32_t __float_as_uint(float x) { return emulator::bits_of(x); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t{a} * b >> 32); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline void sincospif(float x, float* sine, float* cosine) {
  const double angle = double(x) * 3.14159265358979323846;
  *sine = float(std::sin(angle));
  *cosine = float(std::cos(angle));
}
