// What a causal convolution's product reads: the past and the activated chunk, one behind the
// other. Of a row's blocks the first has the past, which only it reads and writes; the others the
// chunk.
#include "portable.h"

namespace duologue {
namespace {

constexpr int THREADS = 256;
constexpr int64_t MOST_BLOCKS = 64;  // of one row's chunk

template <class T>
struct Input {
  const T* x;
  T* past;
  bool* started;
  const bool* active;
  T* joined;
  int steps, channels, past_steps;
  int activation, pad_mode;
};

template <class T, int N>
__device__ __forceinline__ Pack<T, N> activated(const Input<T>& a, Pack<T, N> pack) {
  if (a.activation == DUOLOGUE_NO_ACTIVATION) return pack;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const float v = to_float(pack.lane[n]);
    pack.lane[n] = from_float<T>(v > 0 ? v : expm1f(v));
  }
  return pack;
}

// What stands at element i of the past of a row whose first chunk is x.
template <class T, int N>
__device__ __forceinline__ Pack<T, N> before_first(const Input<T>& a, const T* x, int i) {
  const int step = i / a.channels, channel = i % a.channels;
  if (a.pad_mode == DUOLOGUE_PAD_REPLICATE) return activated(a, load<N>(x + channel));
  const int mirrored = a.past_steps - step;
  if (a.pad_mode == DUOLOGUE_PAD_CONSTANT || mirrored >= a.steps) return {};
  return activated(a, load<N>(x + mirrored * a.channels + channel));
}

template <class T, int N>
__global__ void __launch_bounds__(THREADS) conv_input(const Input<T> a) {
  const int64_t row = blockIdx.y;
  const int old = a.past_steps * a.channels, fresh = a.steps * a.channels;
  const bool is_active = !a.active || a.active[row];
  const T* x = a.x + row * fresh;
  T* joined = a.joined + row * (old + fresh);
  if (blockIdx.x > 0) {
    const int first = ((blockIdx.x - 1) * THREADS + threadIdx.x) * N;
    for (int i = first; i < fresh; i += (gridDim.x - 1) * THREADS * N)
      store(joined + old + i, is_active ? activated(a, load<N>(x + i)) : Pack<T, N>{});
    return;
  }
  const bool is_first = is_active && a.started && !a.started[row];
  T* past = a.past + row * old;
  for (int i = threadIdx.x * N; i < old; i += THREADS * N) {
    if (!is_active) store(joined + i, Pack<T, N>{});
    else store(joined + i, is_first ? before_first<T, N>(a, x, i) : load<N>(past + i));
  }
  if (!is_active) return;
  __syncthreads();
  for (int i = threadIdx.x * N; i < old; i += THREADS * N) {
    const int from = i + fresh;
    store(past + i, from < old ? load<N>(joined + from) : activated(a, load<N>(x + from - old)));
  }
  if (is_first && threadIdx.x == 0) a.started[row] = true;
}

}  // namespace
}  // namespace duologue

extern "C" int duologue_conv_input(const void* x, void* past, bool* started, const bool* active,
                                   void* joined, int64_t batch, int64_t steps, int64_t channels,
                                   int64_t past_steps, int activation, int pad_mode, int dtype,
                                   void* stream) {
  using namespace duologue;
  if (batch == 0) return 0;  // whose tensors have no memory
  if (batch < 0 || steps < 1 || channels < 1 || past_steps < 0 ||
      activation < DUOLOGUE_NO_ACTIVATION || activation > DUOLOGUE_ELU ||
      pad_mode < DUOLOGUE_PAD_CONSTANT || pad_mode > DUOLOGUE_PAD_REFLECT ||
      (pad_mode != DUOLOGUE_PAD_CONSTANT && !started) || !fits(1, steps + past_steps, channels))
    return INVALID;
  return with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Input<T> args{static_cast<const T*>(x), static_cast<T*>(past), started, active,
                        static_cast<T*>(joined), static_cast<int>(steps),
                        static_cast<int>(channels), static_cast<int>(past_steps), activation,
                        pad_mode};
    const auto grid = [&](int width) {
      const int64_t blocks = divided_up(steps * channels, int64_t{THREADS} * width);
      return dim3(static_cast<unsigned>(1 + (blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS)),
                  static_cast<unsigned>(batch));
    };
    if (is_wide(channels, sizeof(T), x, past, joined))
      return LAUNCH((conv_input<T, WIDEST<T>>), grid(WIDEST<T>), dim3(THREADS), stream, args);
    return LAUNCH((conv_input<T, 1>), grid(1), dim3(THREADS), stream, args);
  });
}
