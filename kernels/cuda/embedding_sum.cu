// The sum of a row's embeddings, one of each table.
#include "portable.h"

namespace duologue {
namespace {

constexpr int THREADS = 128, MOST_TABLES = 64;

template <class T>
struct Tables {
  const T* of[MOST_TABLES];
};

template <class T, int N>
__global__ void __launch_bounds__(THREADS)
    embedding_sum(const int64_t* tokens, const Tables<T> tables, T* y, int64_t count, int64_t dim) {
  const int64_t row = blockIdx.x;
  const int64_t i = (static_cast<int64_t>(blockIdx.y) * THREADS + threadIdx.x) * N;
  if (i >= dim) return;
  float sum[N] = {};
  for (int64_t k = 0; k < count; ++k) {
    const int64_t token = tokens[row * count + k];
    if (token < 0) continue;
    const Pack<T, N> vector = load<N>(tables.of[k] + token * dim + i);
#pragma unroll
    for (int n = 0; n < N; ++n) sum[n] += to_float(vector.lane[n]);
  }
  Pack<T, N> result;
#pragma unroll
  for (int n = 0; n < N; ++n) result.lane[n] = from_float<T>(sum[n]);
  store(y + row * dim + i, result);
}

}  // namespace
}  // namespace duologue

extern "C" int duologue_embedding_sum(const int64_t* tokens, const void* const* tables, void* y,
                                      int64_t batch, int64_t count, int64_t dim, int dtype,
                                      void* stream) {
  using namespace duologue;
  if (batch == 0) return 0;  // whose tensors have no memory
  if (batch < 0 || count < 1 || count > MOST_TABLES || dim < 1) return INVALID;
  return with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    Tables<T> all{};
    bool are_wide = is_wide(dim, sizeof(T), y);
    for (int64_t k = 0; k < count; ++k) {
      all.of[k] = static_cast<const T*>(tables[k]);
      are_wide &= is_wide(dim, sizeof(T), all.of[k]);
    }
    const auto grid = [&](int width) {
      return dim3(static_cast<unsigned>(batch),
                  static_cast<unsigned>(divided_up(dim, int64_t{THREADS} * width)));
    };
    if (are_wide)
      return LAUNCH((embedding_sum<T, WIDEST<T>>), grid(WIDEST<T>), dim3(THREADS), stream, tokens,
                    all, static_cast<T*>(y), count, dim);
    return LAUNCH((embedding_sum<T, 1>), grid(1), dim3(THREADS), stream, tokens, all,
                  static_cast<T*>(y), count, dim);
  });
}
