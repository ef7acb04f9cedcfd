// Turns queries and keys by their positions and writes keys and values into the ring: a warp a
// head.
#include "reduce.h"

namespace duologue {
namespace {

constexpr int WARPS = 4;

template <class T, class KV>
struct Append {
  const T* projected;
  const int64_t *position, *held;
  const bool* active;
  const double* half_turns;
  float *query, *far_query;
  KV *keys, *values;
  float *key_scales, *value_scales;
  int64_t heads, kv_heads, head_dim, window, pinned;
};

struct Pair {
  float even, odd;
};

template <class T>
__device__ __forceinline__ Pair read_pair(const T* head, int64_t i) {
  const Pack<T, 2> both = load<2>(head + 2 * i);
  return {to_float(both.lane[0]), to_float(both.lane[1])};
}

// Angles are float64 until less than a turn is left: hours of frames keep their exact distances.
__device__ __forceinline__ Pair turned(Pair pair, int64_t position, double half_turns) {
  const double angle = static_cast<double>(position) * half_turns;
  const double rest = angle - 2 * rint(angle * 0.5);  // in -1..1
  float sine, cosine;
  sincospif(static_cast<float>(rest), &sine, &cosine);
  return {pair.even * cosine - pair.odd * sine, pair.even * sine + pair.odd * cosine};
}

// A lane writes every 32nd pair of a head. `at` gives pair i, the same whenever it is asked.
template <class KV, class At>
__device__ void write_head(int64_t pairs, KV* to, float*, int lane, At at) {
  for (int64_t i = lane; i < pairs; i += 32) {
    const Pair pair = at(i);
    store(to + 2 * i, Pack<KV, 2>{{from_float<KV>(pair.even), from_float<KV>(pair.odd)}});
  }
}

template <class At>
__device__ void write_head(int64_t pairs, int8_t* to, float* scale, int lane, At at) {
  float most = 0;
  for (int64_t i = lane; i < pairs; i += 32) {
    const Pair pair = at(i);
    most = fmaxf(most, fmaxf(fabsf(pair.even), fabsf(pair.odd)));
  }
  const float step = warp_all(most, Larger{}) / 127;
  const auto number = [step](float x) {
    return static_cast<int8_t>(step > 0 ? rintf(x / step) : 0.0f);
  };
  for (int64_t i = lane; i < pairs; i += 32) {
    const Pair pair = at(i);
    store(to + 2 * i, Pack<int8_t, 2>{{number(pair.even), number(pair.odd)}});
  }
  if (lane == 0) *scale = step;
}

template <class T, class KV>
__global__ void __launch_bounds__(WARPS * 32) rope_append(const Append<T, KV> a) {
  const int64_t row = blockIdx.x, pairs = a.head_dim / 2, all = a.heads + 2 * a.kv_heads;
  const int64_t head = blockIdx.y * WARPS + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (head >= all) return;
  const bool is_active = !a.active || a.active[row];
  const int64_t position = a.position[row], reach = a.pinned + a.window;
  const T* from = a.projected + (row * all + head) * a.head_dim;
  const auto at_position = [&](int64_t where) {
    return [=](int64_t i) {
      return is_active ? turned(read_pair(from, i), where, a.half_turns[i]) : Pair{0, 0};
    };
  };
  if (head < a.heads) {
    const int64_t to = (row * a.heads + head) * a.head_dim;
    write_head(pairs, a.query + to, nullptr, lane, at_position(position));
    if (a.far_query) {
      const int64_t far = position < reach ? position : reach - 1;
      write_head(pairs, a.far_query + to, nullptr, lane, at_position(far));
    }
    return;
  }
  if (!is_active) return;
  const int64_t slot =
      position < a.pinned ? position : a.pinned + (position - a.pinned) % a.window;
  const int64_t of_row = (a.held ? a.held[row] : row) * reach + slot;
  if (head < a.heads + a.kv_heads) {
    const int64_t to = of_row * a.kv_heads + head - a.heads;
    write_head(pairs, a.keys + to * a.head_dim, a.key_scales + to, lane, at_position(position));
  } else {
    const int64_t to = of_row * a.kv_heads + head - a.heads - a.kv_heads;
    write_head(pairs, a.values + to * a.head_dim, a.value_scales + to, lane,
               [=](int64_t i) { return read_pair(from, i); });
  }
}

}  // namespace
}  // namespace duologue

extern "C" int duologue_rope_append(const void* projected, const int64_t* position,
                                    const int64_t* held, const bool* active,
                                    const double* half_turns, float* query, float* far_query,
                                    void* keys, void* values, float* key_scales,
                                    float* value_scales, int64_t batch, int64_t heads,
                                    int64_t kv_heads, int64_t head_dim, int64_t window,
                                    int64_t pinned, int dtype, int kv_dtype, void* stream) {
  using namespace duologue;
  if (batch == 0) return 0;  // whose tensors have no memory
  const bool is_scaled = kv_dtype == DUOLOGUE_INT8;
  if (batch < 0 || heads < 1 || kv_heads < 1 || heads % kv_heads || head_dim < 2 || head_dim % 2 ||
      window < 1 || pinned < 0 || (pinned > 0 && !far_query) ||
      (is_scaled && !(key_scales && value_scales)) ||
      (kv_dtype != dtype && !is_scaled && kv_dtype != DUOLOGUE_FLOAT8))
    return INVALID;
  const dim3 grid(static_cast<unsigned>(batch),
                  static_cast<unsigned>(divided_up(heads + 2 * kv_heads, WARPS)));
  return with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto run = [&](auto zero_kv) {
      using KV = decltype(zero_kv);
      const Append<T, KV> args{static_cast<const T*>(projected), position, held, active, half_turns,
                               query, far_query, static_cast<KV*>(keys), static_cast<KV*>(values),
                               key_scales, value_scales, heads, kv_heads, head_dim, window, pinned};
      return LAUNCH((rope_append<T, KV>), grid, dim3(WARPS * 32), stream, args);
    };
    if (kv_dtype == DUOLOGUE_INT8) return run(int8_t{});
    if (kv_dtype == DUOLOGUE_FLOAT8) return run(__nv_fp8_e4m3{});
    return run(T{});
  });
}
