// One step's attention over a ring. A block takes the query heads that share a key head (up to
// four) over some of a row's parts; a part's slots are spread over its warps, a few lanes a slot.
#include "reduce.h"

namespace duologue {
namespace {

constexpr int WARPS = 4, THREADS = WARPS * 32, PART = DUOLOGUE_ATTENTION_PART, MOST_DIM = 256;
constexpr float LOG2_E = 1.4426950408889634f;

template <class KV>
constexpr int WIDTH = sizeof(KV) == 4 ? 4 : 8;  // channels of a lane

template <class KV>
struct Attention {
  const float *query, *far_query;
  const KV *keys, *values;
  const float *key_scales, *value_scales;
  const int64_t *position, *held;
  const bool* active;
  void* y;
  float* workspace;  // null where there is one split
  int64_t heads, kv_heads, group, head_dim, window, pinned, parts, splits;
  int lane_bits;  // a slot has 2^lane_bits lanes
  int dtype;
};

// What some slots say, the sum of their values by their weights: 2^(score - most), `total`
// together.
template <int N>
struct Said {
  float most = -INFINITY, total = 0, value[N] = {};

  // Beside what others say. Nothing is there to the compiler to contract, so that it is the same to
  // the bit wherever it is done.
  __device__ __forceinline__ void add(float other_most, float other_total, const float* others) {
    const float top = fmaxf(most, other_most);
    const float mine = most == -INFINITY ? 0 : exp2f(most - top);
    const float theirs = other_most == -INFINITY ? 0 : exp2f(other_most - top);
    most = top;
    total = fmaf(total, mine, other_total * theirs);
#pragma unroll
    for (int n = 0; n < N; ++n) value[n] = fmaf(value[n], mine, others[n] * theirs);
  }
};

// A lane's channels, 0 beyond the `count` that there are.
template <bool IS_WIDE, int N, class T>
__device__ __forceinline__ void read(const T* from, int64_t count, float* to) {
  constexpr int STEP = IS_WIDE ? (N < WIDEST<T> ? N : WIDEST<T>) : 1;
#pragma unroll
  for (int n = 0; n < N; n += STEP) {
    const Pack<T, STEP> pack = n < count ? load<STEP>(from + n) : Pack<T, STEP>{};
#pragma unroll
    for (int i = 0; i < STEP; ++i) to[n + i] = to_float(pack.lane[i]);
  }
}

__device__ __forceinline__ void write(void* y, int dtype, int64_t i, float value) {
  if (dtype == DUOLOGUE_FLOAT32) static_cast<float*>(y)[i] = value;
  else if (dtype == DUOLOGUE_FLOAT16) static_cast<__half*>(y)[i] = from_float<__half>(value);
  else static_cast<__nv_bfloat16*>(y)[i] = from_float<__nv_bfloat16>(value);
}

// What a lane has seen of a part: slots first..end, by queries [heads, head_dim] of `query`.
template <class KV, int HEADS, bool IS_WIDE>
__device__ __forceinline__ void see(const Attention<KV>& a, const float* query, int64_t row,
                                    int64_t kv, int64_t first, int64_t end,
                                    Said<WIDTH<KV>>* said) {
  constexpr int N = WIDTH<KV>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, slots = 32 >> a.lane_bits;
  const int own_slot = warp * slots + (lane >> a.lane_bits);
  const int64_t channel = (lane - (lane >> a.lane_bits << a.lane_bits)) * N;
  const int64_t channels = a.head_dim - channel;
  const float scale = LOG2_E * rsqrtf(static_cast<float>(a.head_dim));
  float queries[HEADS][N];
#pragma unroll
  for (int h = 0; h < HEADS; ++h) {
    read<IS_WIDE, N>(query + h * a.head_dim + channel, channels, queries[h]);
#pragma unroll
    for (int n = 0; n < N; ++n) queries[h][n] *= scale;
  }
  for (int64_t base = first; base < end; base += WARPS * slots) {
    const bool is_there = base + own_slot < end;
    const int64_t place = row * (a.pinned + a.window) + (is_there ? base + own_slot : base);
    const int64_t slot = place * a.kv_heads + kv;
    float key[N], value[N];
    read<IS_WIDE, N>(a.keys + slot * a.head_dim + channel, channels, key);
    read<IS_WIDE, N>(a.values + slot * a.head_dim + channel, channels, value);
    const float key_scale = sizeof(KV) == 1 && a.key_scales ? a.key_scales[slot] : 1;
    const float value_scale = sizeof(KV) == 1 && a.value_scales ? a.value_scales[slot] : 1;
#pragma unroll
    for (int n = 0; n < N; ++n) value[n] *= value_scale;
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
      float score = 0;
#pragma unroll
      for (int n = 0; n < N; ++n) score = fmaf(queries[h][n], key[n], score);
#pragma unroll
      for (int bit = 4; bit >= 0; --bit) {
        const float other = __shfl_xor_sync(EVERY_LANE, score, 1 << bit);
        if (bit < a.lane_bits) score += other;
      }
      if (is_there) said[h].add(score * key_scale, 1, value);
    }
  }
}

template <class KV, int HEADS, bool IS_WIDE>
__global__ void __launch_bounds__(THREADS) ring_attention(const Attention<KV> a) {
  constexpr int N = WIDTH<KV>;
  constexpr int SHARE = THREADS / HEADS, MOST = MOST_DIM / SHARE;  // threads and channels of a head
  SHARED(float, most, [WARPS][HEADS]);
  SHARED(float, total, [WARPS][HEADS]);
  SHARED(float, value, [WARPS][HEADS][MOST_DIM]);
  const int64_t row = blockIdx.z;
  const int first_head = blockIdx.x * HEADS;
  const int64_t kv = first_head / static_cast<int>(a.group), held_row = a.held ? a.held[row] : row;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int own_head = threadIdx.x / SHARE, own = threadIdx.x % SHARE;
  const int64_t out = row * a.heads + first_head + own_head;
  if (a.active && !a.active[row]) {
    for (int64_t d = own; d < a.head_dim && !a.workspace; d += SHARE)
      write(a.y, a.dtype, out * a.head_dim + d, 0);
    return;
  }
  const int64_t reach = a.pinned + a.window, position = a.position[row];
  const int64_t held = position < reach ? position + 1 : reach;
  const int64_t query = (row * a.heads + first_head) * a.head_dim;
  Said<MOST> all;
  for (int64_t part = blockIdx.y; part * PART < held; part += a.splits) {
    const int64_t first = part * PART, end = first + PART < held ? first + PART : held;
    const int64_t near = first > a.pinned ? first : a.pinned;
    Said<N> said[HEADS];
    if (first < a.pinned)
      see<KV, HEADS, IS_WIDE>(a, a.far_query + query, held_row, kv, first,
                              end < a.pinned ? end : a.pinned, said);
    if (near < end) see<KV, HEADS, IS_WIDE>(a, a.query + query, held_row, kv, near, end, said);
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
#pragma unroll
      for (int bit = 0; bit < 5; ++bit) {
        float others[N];
        const float other_most = __shfl_xor_sync(EVERY_LANE, said[h].most, 1 << bit);
        const float other_total = __shfl_xor_sync(EVERY_LANE, said[h].total, 1 << bit);
#pragma unroll
        for (int n = 0; n < N; ++n)
          others[n] = __shfl_xor_sync(EVERY_LANE, said[h].value[n], 1 << bit);
        if (bit >= a.lane_bits) said[h].add(other_most, other_total, others);
      }
      if (lane == 0) {
        most[warp][h] = said[h].most;
        total[warp][h] = said[h].total;
      }
#pragma unroll
      for (int n = 0; n < N; ++n)
        if (lane * N + n < a.head_dim)
          value[warp][h][lane * N + n] = said[h].value[n];
    }
    __syncthreads();
    Said<MOST> of_part;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
      float others[MOST];
#pragma unroll
      for (int n = 0; n < MOST; ++n) {
        const int64_t d = own + n * SHARE;
        others[n] = d < a.head_dim ? value[w][own_head][d] : 0;
      }
      of_part.add(most[w][own_head], total[w][own_head], others);
    }
    __syncthreads();  // before they are those of the next part
    if (!a.workspace) {
      all.add(of_part.most, of_part.total, of_part.value);
      continue;
    }
    float* to = a.workspace + (out * a.parts + part) * (a.head_dim + 2);
    if (own == 0) {
      to[0] = of_part.most;
      to[1] = of_part.total;
    }
#pragma unroll
    for (int n = 0; n < MOST; ++n)
      if (own + n * SHARE < a.head_dim) to[2 + own + n * SHARE] = of_part.value[n];
  }
  if (a.workspace) return;
#pragma unroll
  for (int n = 0; n < MOST; ++n) {
    const int64_t d = own + n * SHARE;
    if (d < a.head_dim) write(a.y, a.dtype, out * a.head_dim + d, all.value[n] / all.total);
  }
}

// Joins what the parts of a row say, in their order: a block a head.
__global__ void __launch_bounds__(THREADS)
    join_parts(const float* workspace, const int64_t* position, const bool* active, void* y,
               int64_t head_dim, int64_t reach, int64_t parts, int dtype) {
  const int64_t row = blockIdx.y, out = row * gridDim.x + blockIdx.x;
  const bool is_active = !active || active[row];
  const int64_t held = position[row] < reach ? position[row] + 1 : reach;
  for (int64_t d = threadIdx.x; d < head_dim; d += THREADS) {
    Said<1> all;
    const float* from = workspace + out * parts * (head_dim + 2);
    for (int64_t part = 0; part * PART < held && is_active; ++part, from += head_dim + 2)
      all.add(from[0], from[1], from + 2 + d);
    write(y, dtype, out * head_dim + d, is_active ? all.value[0] / all.total : 0);
  }
}

template <class KV, int HEADS, bool IS_WIDE>
int launch(const Attention<KV>& args, int64_t batch, void* stream) {
  const dim3 grid(static_cast<unsigned>(args.heads / HEADS), static_cast<unsigned>(args.splits),
                  static_cast<unsigned>(batch));
  const int error =
      LAUNCH((ring_attention<KV, HEADS, IS_WIDE>), grid, dim3(THREADS), stream, args);
  if (error || args.splits == 1) return error;
  const dim3 heads(static_cast<unsigned>(args.heads), static_cast<unsigned>(batch));
  return LAUNCH(join_parts, heads, dim3(THREADS), stream, args.workspace, args.position,
                args.active, args.y, args.head_dim, args.pinned + args.window, args.parts,
                args.dtype);
}

}  // namespace
}  // namespace duologue

extern "C" int64_t duologue_ring_attention_workspace(int64_t batch, int64_t heads, int64_t head_dim,
                                                     int64_t window, int64_t pinned) {
  return batch * heads * duologue::divided_up(pinned + window, duologue::PART) * (head_dim + 2);
}

extern "C" int duologue_ring_attention(const float* query, const float* far_query, const void* keys,
                                       const void* values, const float* key_scales,
                                       const float* value_scales, const int64_t* position,
                                       const int64_t* held, const bool* active, void* y,
                                       float* workspace, int64_t batch, int64_t heads,
                                       int64_t kv_heads, int64_t head_dim, int64_t window,
                                       int64_t pinned, int64_t splits, int dtype, int kv_dtype,
                                       void* stream) {
  using namespace duologue;
  if (batch == 0) return 0;  // whose tensors have no memory
  const int64_t parts = divided_up(pinned + window, PART);
  if (batch < 0 || heads < 1 || kv_heads < 1 || heads % kv_heads || head_dim < 2 || head_dim % 2 ||
      window < 1 || pinned < 0 || (pinned > 0 && !far_query) || splits < 1 || splits > parts ||
      (splits > 1) != (workspace != nullptr) ||
      (kv_dtype == DUOLOGUE_INT8 && !(key_scales && value_scales)) ||
      dtype < DUOLOGUE_FLOAT32 || dtype > DUOLOGUE_BFLOAT16)
    return INVALID;
  return with_key_type(kv_dtype, [&](auto zero) {
    using KV = decltype(zero);
    int lane_bits = 0;
    while (int64_t{WIDTH<KV>} << lane_bits < head_dim) ++lane_bits;
    if (lane_bits > 5) return INVALID;
      const bool is_scaled = kv_dtype == DUOLOGUE_INT8;
    const int64_t group = heads / kv_heads;
    const Attention<KV> args{query, far_query, static_cast<const KV*>(keys),
                             static_cast<const KV*>(values), is_scaled ? key_scales : nullptr,
                             is_scaled ? value_scales : nullptr, position, held, active, y,
                             workspace, heads, kv_heads, group, head_dim, window, pinned, parts,
                             splits, lane_bits, dtype};
    const uintptr_t bytes = WIDTH<KV> * sizeof(KV);
    const auto is_aligned = [](const void* pointer, uintptr_t to) {
      return reinterpret_cast<uintptr_t>(pointer) % to == 0;
    };
    if (head_dim % WIDTH<KV> || !is_aligned(keys, bytes) || !is_aligned(values, bytes) ||
        !is_aligned(query, 16) || !is_aligned(far_query, 16))
      return launch<KV, 1, false>(args, batch, stream);
    if (group % 4 == 0) return launch<KV, 4, true>(args, batch, stream);
    if (group % 2 == 0) return launch<KV, 2, true>(args, batch, stream);
    return launch<KV, 1, true>(args, batch, stream);
  });
}
