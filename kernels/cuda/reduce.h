// Sums and the like over a warp or a block, in an order that depends on nothing but its size.
#pragma once

#include "portable.h"

namespace duologue {

// op over all lanes, in every lane.
template <class T, class Op>
__device__ __forceinline__ T warp_all(T value, Op op) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2)
    value = op(value, __shfl_xor_sync(EVERY_LANE, value, apart));
  return value;
}

// op over all threads of a block of WARPS warps, in every thread; all of them must come here.
template <int WARPS, class T, class Op>
__device__ __forceinline__ T block_all(T value, Op op) {
  SHARED(T, parts, [WARPS]);
  value = warp_all(value, op);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  T total = parts[0];
#pragma unroll
  for (int warp = 1; warp < WARPS; ++warp) total = op(total, parts[warp]);
  __syncthreads();  // before `parts` are those of the next call
  return total;
}

struct Add {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

struct Larger {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

// Whole numbers in the order of floats.
__device__ __forceinline__ uint32_t in_order(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

}  // namespace duologue
