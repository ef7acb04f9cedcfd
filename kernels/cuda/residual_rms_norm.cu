// A residual stream and what is added to it, and the norm of their sum: a block a row.
#include "reduce.h"

namespace duologue {
namespace {

constexpr int THREADS = 128;

template <class T>
struct Norm {
  const T *x, *update, *weight;
  T *sum, *normed;  // sum may be x
  int64_t dim;
  float eps;
};

template <class T, int N>
__global__ void __launch_bounds__(THREADS) residual_rms_norm(const Norm<T> a) {
  const int64_t row = blockIdx.x * a.dim;
  float squares = 0;
  for (int64_t i = threadIdx.x * N; i < a.dim; i += THREADS * N) {
    Pack<T, N> value = load<N>(a.x + row + i);
    if (a.update) {
      const Pack<T, N> added = load<N>(a.update + row + i);
#pragma unroll
      for (int n = 0; n < N; ++n)
        value.lane[n] = from_float<T>(to_float(value.lane[n]) + to_float(added.lane[n]));
      store(a.sum + row + i, value);
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float v = to_float(value.lane[n]);
      squares = fmaf(v, v, squares);
    }
  }
  const float total = block_all<THREADS / 32>(squares, Add{});
  const float scale = rsqrtf(total / static_cast<float>(a.dim) + a.eps);
  const T* from = a.update ? a.sum : a.x;  // each thread reads what it has written itself
  for (int64_t i = threadIdx.x * N; i < a.dim; i += THREADS * N) {
    Pack<T, N> value = load<N>(from + row + i);
    const Pack<T, N> weight = load<N>(a.weight + i);
#pragma unroll
    for (int n = 0; n < N; ++n)
      value.lane[n] = from_float<T>(to_float(value.lane[n]) * scale * to_float(weight.lane[n]));
    store(a.normed + row + i, value);
  }
}

}  // namespace
}  // namespace duologue

extern "C" int duologue_residual_rms_norm(const void* x, const void* update, const void* weight,
                                          void* sum, void* normed, int64_t rows, int64_t dim,
                                          float eps, int dtype, void* stream) {
  using namespace duologue;
  if (rows == 0) return 0;  // whose tensors have no memory
  if (rows < 0 || dim < 1 || (update && !sum)) return INVALID;
  return with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Norm<T> args{static_cast<const T*>(x), static_cast<const T*>(update),
                       static_cast<const T*>(weight), static_cast<T*>(sum),
                       static_cast<T*>(normed), dim, eps};
    const dim3 grid(static_cast<unsigned>(rows));
    if (is_wide(dim, sizeof(T), x, update, weight, sum, normed))
      return LAUNCH((residual_rms_norm<T, WIDEST<T>>), grid, dim3(THREADS), stream, args);
    return LAUNCH((residual_rms_norm<T, 1>), grid, dim3(THREADS), stream, args);
  });
}
