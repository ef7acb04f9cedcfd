// What lets a kernel's source be compiled both by nvcc and, for a CPU, under kernels/emulator.
//
// SHARED and LAUNCH stand for what only nvcc can read; everything else is written as CUDA has it.
#pragma once

#include <stdint.h>

#include "kernels.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <math.h>

// An array that the threads of a block share: SHARED(float, parts, [4][8]).
#define SHARED(type, name, dimensions) __shared__ type name dimensions
// Enqueues a kernel; a cudaError code.
#define LAUNCH(kernel, grid, block, stream, ...)                                          \
  ((kernel)<<<(grid), (block), 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__),      \
   static_cast<int>(cudaGetLastError()))
#else
#include "../emulator/cuda.h"
#endif

namespace duologue {

constexpr int INVALID = 1;  // cudaErrorInvalidValue
constexpr unsigned EVERY_LANE = 0xffffffffu;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__nv_fp8_e4m3 x) { return static_cast<float>(x); }
__device__ __forceinline__ float to_float(int8_t x) { return static_cast<float>(x); }

// To the nearest, ties to even.
template <class T>
__device__ __forceinline__ T from_float(float x) {
  return static_cast<T>(x);
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16(x);
}
template <>
__device__ __forceinline__ __nv_fp8_e4m3 from_float<__nv_fp8_e4m3>(float x) {
  return __nv_fp8_e4m3(x);
}

// N neighbours in memory that are read and written as one; where they make 16 bytes, by one
// instruction.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T lane[N];
};

template <class T>
constexpr int WIDEST = 16 / sizeof(T);

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <int N, class T>
__device__ __forceinline__ void store(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Whether tensors at these addresses, whose rows are `width` elements of `bytes` each, can be read
// 16 bytes at a time.
template <class... Pointers>
inline bool is_wide(int64_t width, int64_t bytes, Pointers... pointers) {
  return width * bytes % 16 == 0 && ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

// Whether a row of so many elements can be counted in an int, with what a grid strides beyond it.
inline bool fits(int64_t a, int64_t b, int64_t c) {
  constexpr double MOST = 1 << 30;
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c) < MOST;
}

inline int64_t divided_up(int64_t amount, int64_t by) { return (amount + by - 1) / by; }

// Calls run(T{}) with the type of activations that `dtype` names.
template <class Run>
int with_type(int dtype, const Run& run) {
  switch (dtype) {
    case DUOLOGUE_FLOAT32: return run(float{});
    case DUOLOGUE_FLOAT16: return run(__half{});
    case DUOLOGUE_BFLOAT16: return run(__nv_bfloat16{});
    default: return INVALID;
  }
}

// The same for keys and values.
template <class Run>
int with_key_type(int dtype, const Run& run) {
  switch (dtype) {
    case DUOLOGUE_INT8: return run(int8_t{});
    case DUOLOGUE_FLOAT8: return run(__nv_fp8_e4m3{});
    default: return with_type(dtype, run);
  }
}

}  // namespace duologue
