// Codes of latents under a split residual quantiser, a launch a codebook: all of its vectors are
// compared at once, by blocks that each have some of them, for a few rows at a time.
//
// Until the last launch a code stands below its distance, in one whole number whose least is
// sought.
#include "reduce.h"

namespace duologue {
namespace {

constexpr int WARPS = 8, THREADS = WARPS * 32, ROWS = 4;
constexpr int VECTORS = 64;      // that a block has
constexpr int MOST_DIM = 1024;

template <class T>
struct Encode {
  const T* x;
  const float *semantic, *acoustic, *square_norms;
  unsigned long long* codes;
  int64_t batch, semantic_dim, acoustic_dim, codebook_size, codebooks;

  __device__ bool is_semantic(int64_t code) const { return semantic_dim > 0 && code == 0; }
  __device__ const float* book(int64_t code) const {
    if (is_semantic(code)) return semantic;
    return acoustic + (code - (semantic_dim > 0 ? 1 : 0)) * codebook_size * acoustic_dim;
  }
};

// What the codebooks before it have left over of row -> residual [dim], by the whole block.
template <class T>
__device__ __forceinline__ void leave_over(const Encode<T>& a, int64_t code, int64_t row,
                                           int64_t dim, float* residual) {
  const T* x = a.x + row * (a.semantic_dim + a.acoustic_dim);
  if (!a.is_semantic(code)) x += a.semantic_dim;
  const int64_t first = a.semantic_dim > 0 ? 1 : 0;
#pragma unroll 1
  for (int d = threadIdx.x; d < dim; d += THREADS) {
    float left = row < a.batch ? to_float(x[d]) : 0;
#pragma unroll 1
    for (int64_t c = first; c < code && row < a.batch; ++c)
      left -= a.book(c)[(a.codes[row * a.codebooks + c] & 0xffffffffu) * dim + d];
    residual[d] = left;
  }
}

template <class T, int N>
__global__ void __launch_bounds__(THREADS) rvq_stage(const Encode<T> a, const int64_t first_code) {
  using Vector = Pack<float, N>;
  SHARED(Vector, shared, [ROWS * MOST_DIM / N]);
  float* residual = shared[0].lane;  // [ROWS, dim]
  const int64_t code = first_code + blockIdx.z, first_row = blockIdx.y * ROWS;
  const int64_t dim = a.is_semantic(code) ? a.semantic_dim : a.acoustic_dim;
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int r = 0; r < ROWS; ++r) leave_over(a, code, first_row + r, dim, residual + r * dim);
  __syncthreads();
  unsigned long long best[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) best[r] = ~0ull;
  const float* book = a.book(code);
  const int size = static_cast<int>(a.codebook_size), begin = blockIdx.x * VECTORS;
  const int end = begin + VECTORS < size ? begin + VECTORS : size;
  for (int base = begin; base < end; base += WARPS) {
    const int v = base + threadIdx.x / 32;
    float products[ROWS] = {};
#pragma unroll 1  // there are one or two
    for (int beside = 0; beside < dim; beside += 32 * N) {
      const int d = beside + lane * N;
      if (v >= end || d >= dim) continue;
      const Vector vector = load<N>(book + v * dim + d);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        const Vector left = load<N>(residual + r * dim + d);
#pragma unroll
        for (int n = 0; n < N; ++n) products[r] = fmaf(vector.lane[n], left.lane[n], products[r]);
      }
    }
    const float square = v < end ? a.square_norms[code * a.codebook_size + v] : 0;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const unsigned long long far = in_order(fmaf(-2, warp_all(products[r], Add{}), square));
      const unsigned long long found = far << 32 | static_cast<uint32_t>(v);
      if (v < end && found < best[r]) best[r] = found;
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
    if (lane == 0 && first_row + r < a.batch)
      atomicMin(a.codes + (first_row + r) * a.codebooks + code, best[r]);
}

__global__ void __launch_bounds__(THREADS) rvq_begin(unsigned long long* codes, int64_t count) {
  const int64_t i = blockIdx.x * int64_t{THREADS} + threadIdx.x;
  if (i < count) codes[i] = ~0ull;
}

__global__ void __launch_bounds__(THREADS) rvq_end(unsigned long long* codes, int64_t count) {
  const int64_t i = blockIdx.x * int64_t{THREADS} + threadIdx.x;
  if (i < count) codes[i] &= 0xffffffffu;
}

template <class T, int N>
int encode(const Encode<T>& args, void* stream) {
  const int64_t count = args.batch * args.codebooks;
  const dim3 all(static_cast<unsigned>(divided_up(count, THREADS)));
  int error = LAUNCH(rvq_begin, all, dim3(THREADS), stream, args.codes, count);
  for (int64_t code = 0; code < args.codebooks && !error;) {
    const bool are_two = code == 0 && args.semantic_dim > 0 && args.codebooks > 1;
    const dim3 grid(static_cast<unsigned>(divided_up(args.codebook_size, VECTORS)),
                    static_cast<unsigned>(divided_up(args.batch, ROWS)), are_two ? 2 : 1);
    error = LAUNCH((rvq_stage<T, N>), grid, dim3(THREADS), stream, args, code);
    code += are_two ? 2 : 1;
  }
  if (error) return error;
  return LAUNCH(rvq_end, all, dim3(THREADS), stream, args.codes, count);
}

}  // namespace
}  // namespace duologue

extern "C" int duologue_rvq_encode(const void* x, const float* semantic, const float* acoustic,
                                   const float* square_norms, int64_t* codes, int64_t batch,
                                   int64_t semantic_dim, int64_t acoustic_dim,
                                   int64_t codebook_size, int64_t codebooks, int dtype,
                                   void* stream) {
  using namespace duologue;
  if (batch == 0) return 0;  // whose tensors have no memory
  const int64_t chained = codebooks - (semantic_dim > 0 ? 1 : 0);
  if (batch < 0 || codebooks < 1 || codebook_size < 1 || codebook_size > INT32_MAX ||
      semantic_dim < 0 || semantic_dim > MOST_DIM || acoustic_dim < 0 || acoustic_dim > MOST_DIM ||
      (chained > 0 && acoustic_dim == 0))
    return INVALID;
  return with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Encode<T> args{static_cast<const T*>(x), semantic, acoustic, square_norms,
                         reinterpret_cast<unsigned long long*>(codes), batch, semantic_dim,
                         acoustic_dim, codebook_size, codebooks};
    if (is_wide(semantic_dim, 4, semantic) && is_wide(acoustic_dim, 4, acoustic))
      return encode<T, 4>(args, stream);
    return encode<T, 1>(args, stream);
  });
}
