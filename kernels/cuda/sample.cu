// Temperature, top-k, top-p and the draw, as model/sampling.py has them: a block a row.
//
// Probabilities are whole numbers, so their sums do not depend on an order. What stays of them, and
// which is drawn, is found by halving: whether a bound is high enough is one sum over the row.
#include "reduce.h"

namespace duologue {
namespace {

constexpr int THREADS = 256, WARPS = THREADS / 32;
constexpr float SCALE = 1099511627776.0f;  // 2^40, of probabilities as whole numbers

template <class T>
struct Sample {
  const T* logits;
  const double* uniform;
  const int64_t *seed, *draw;
  int64_t random_stream;
  const bool* active;
  int64_t *tokens, *weights;
  int64_t vocabulary;
  float temperature;
  int64_t top_k;
  double top_p;
};

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
__device__ __forceinline__ double philox(uint64_t seed, uint64_t draw, uint64_t random_stream) {
  uint32_t counter[4] = {static_cast<uint32_t>(draw), static_cast<uint32_t>(draw >> 32),
                         static_cast<uint32_t>(random_stream),
                         static_cast<uint32_t>(random_stream >> 32)};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t first = counter[0], second = counter[2];
    counter[0] = __umulhi(0xCD9E8D57u, second) ^ counter[1] ^ key[0];
    counter[1] = 0xCD9E8D57u * second;
    counter[2] = __umulhi(0xD2511F53u, first) ^ counter[3] ^ key[1];
    counter[3] = 0xD2511F53u * first;
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  const uint64_t bits = static_cast<uint64_t>(counter[0]) << 32 | counter[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// The sum over i in 0..count of term(i), in every thread.
template <class Term>
__device__ __forceinline__ int64_t sum_of(int64_t count, Term term) {
  int64_t total = 0;
  for (int64_t i = threadIdx.x; i < count; i += THREADS) total += term(i);
  return block_all<WARPS>(total, Add{});
}

// The least of low..high that is enough; what is above one that is enough is enough, and so is
// high.
template <class IsEnough>
__device__ __forceinline__ int64_t least_that(int64_t low, int64_t high, IsEnough is_enough) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (is_enough(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

// The largest logit, the first of equals.
template <class T>
__device__ __forceinline__ int64_t likeliest(const T* logits, int64_t count) {
  uint64_t best = 0;
  for (int64_t i = threadIdx.x; i < count; i += THREADS) {
    const uint64_t value = in_order(to_float(logits[i]) + 0.0f);  // -0 is 0
    best = Larger{}(best, value << 32 | (0xffffffffu - static_cast<uint32_t>(i)));
  }
  return 0xffffffffu - static_cast<uint32_t>(block_all<WARPS>(best, Larger{}));
}

template <class T>
__global__ void __launch_bounds__(THREADS) sample(const Sample<T> a) {
  const int64_t row = blockIdx.x, count = a.vocabulary;
  if (a.active && !a.active[row]) {
    if (threadIdx.x == 0) a.tokens[row] = 0;
    return;
  }
  const T* logits = a.logits + row * count;
  const int64_t best = likeliest(logits, count);
  if (a.temperature == 0) {
    if (threadIdx.x == 0) a.tokens[row] = best;
    return;
  }
  const float most = to_float(logits[best]);
  const auto raised = [&](int64_t i) {
    return expf((to_float(logits[i]) - most) / a.temperature);
  };
  float total = 0;
  for (int64_t i = threadIdx.x; i < count; i += THREADS) total += raised(i);
  total = block_all<WARPS>(total, Add{});
  int64_t* weights = a.weights + row * count;
  for (int64_t i = threadIdx.x; i < count; i += THREADS)
    weights[i] = static_cast<int64_t>(rintf(raised(i) / total * SCALE));
  // No barrier: sum_of has each thread read what it has written itself.

  const int64_t highest = static_cast<int64_t>(SCALE);
  int64_t least = 0;  // those below it are out
  if (0 < a.top_k && a.top_k < count)
    least = least_that(0, highest, [&](int64_t bound) {
      return sum_of(count, [&](int64_t i) { return int64_t{weights[i] > bound}; }) < a.top_k;
    });
  const auto kept = [&](int64_t i) { return weights[i] < least ? 0 : weights[i]; };
  if (a.top_p < 1) {
    const double goal = a.top_p * static_cast<double>(sum_of(count, kept));
    least = least_that(least, highest, [&](int64_t bound) {
      const auto above = [&](int64_t i) { return weights[i] > bound ? weights[i] : 0; };
      return static_cast<double>(sum_of(count, above)) < goal;
    });
  }
  const double uniform =
      a.uniform ? a.uniform[row]
                : philox(static_cast<uint64_t>(a.seed[row]), static_cast<uint64_t>(a.draw[row]),
                         static_cast<uint64_t>(a.random_stream));
  const int64_t target =
      static_cast<int64_t>(floor(uniform * static_cast<double>(sum_of(count, kept))));
  const int64_t token = least_that(0, count - 1, [&](int64_t last) {
    return sum_of(last + 1, kept) > target;
  });
  if (threadIdx.x == 0) a.tokens[row] = token;
}

}  // namespace
}  // namespace duologue

extern "C" int duologue_sample(const void* logits, const double* uniform, const int64_t* seed,
                               const int64_t* draw, int64_t random_stream, const bool* active,
                               int64_t* tokens, int64_t* weights, int64_t batch, int64_t vocabulary,
                               float temperature, int64_t top_k, double top_p, int dtype,
                               void* stream) {
  using namespace duologue;
  if (batch == 0) return 0;  // whose tensors have no memory
  const bool is_drawn = temperature != 0;
  if (batch < 0 || vocabulary < 1 || vocabulary > INT32_MAX || !(temperature >= 0) || top_k < 0 ||
      !(top_p > 0 && top_p <= 1) || (is_drawn && !(weights && (uniform || (seed && draw)))))
    return INVALID;
  return with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Sample<T> args{static_cast<const T*>(logits), uniform, seed, draw, random_stream, active,
                         tokens, weights, vocabulary, temperature, top_k, top_p};
    return LAUNCH(sample<T>, dim3(static_cast<unsigned>(batch)), dim3(THREADS), stream, args);
  });
}
