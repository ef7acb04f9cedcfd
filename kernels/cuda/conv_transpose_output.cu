// Adds up the overlapping windows of a transposed convolution. Of a row's blocks the first has the
// steps that still get something from the state, and the state; the others the steps after those.
#include "portable.h"

namespace duologue {
namespace {

constexpr int THREADS = 256;
constexpr int64_t MOST_BLOCKS = 64;  // of one row's other steps

template <class T>
struct Output {
  const T* windows;
  T* overlap;
  const T* bias;
  const bool* active;
  T* y;
  int steps, hop, window, channels;
};

template <int N>
struct Sum {
  float lane[N] = {};

  template <class T>
  __device__ __forceinline__ void add(const T* from) {
    const Pack<T, N> pack = load<N>(from);
#pragma unroll
    for (int n = 0; n < N; ++n) lane[n] += to_float(pack.lane[n]);
  }

  template <class T>
  __device__ __forceinline__ Pack<T, N> rounded() const {
    Pack<T, N> pack;
#pragma unroll
    for (int n = 0; n < N; ++n) pack.lane[n] = from_float<T>(lane[n]);
    return pack;
  }
};

// What the windows of this chunk [steps, window, channels] say of step t, earlier ones first.
template <int N, class T>
__device__ __forceinline__ Sum<N> sum_at(const Output<T>& a, const T* windows, int t, int channel) {
  const int first = t < a.window ? 0 : (t - a.window) / a.hop + 1;
  const int last = t / a.hop < a.steps ? t / a.hop : a.steps - 1;
  Sum<N> sum;
#pragma unroll 1  // there are one or two
  for (int s = first; s <= last; ++s)
    sum.add(windows + (s * a.window + t - s * a.hop) * a.channels + channel);
  return sum;
}

// A row's windows, state and output.
template <class T>
struct Row {
  const T* windows;
  T *overlap, *y;
  bool is_active;
};

template <int N, class T>
__device__ __forceinline__ Sum<N> sum_with_state(const Output<T>& a, const Row<T>& row, int t,
                                                 int channel) {
  Sum<N> sum = sum_at<N>(a, row.windows, t, channel);
  if (t < a.window - a.hop) sum.add(row.overlap + t * a.channels + channel);
  return sum;
}

template <int N, class T>
__device__ __forceinline__ void write(const Output<T>& a, const Row<T>& row, int t, int channel) {
  Sum<N> sum;
  if (row.is_active) {
    sum = sum_with_state<N>(a, row, t, channel);
    if (a.bias) sum.add(a.bias + channel);
  }
  store(row.y + t * a.channels + channel, sum.template rounded<T>());
}

template <class T, int N>
__global__ void __launch_bounds__(THREADS) conv_transpose_output(const Output<T> a) {
  const int64_t n = blockIdx.y;
  const int out = a.steps * a.hop, waiting = a.window - a.hop;
  const Row<T> row{a.windows + n * a.steps * a.window * a.channels,
                   a.overlap + n * waiting * a.channels, a.y + n * out * a.channels,
                   !a.active || a.active[n]};
  if (blockIdx.x > 0) {
    const int first = ((blockIdx.x - 1) * THREADS + threadIdx.x) * N;
    const int stride = (gridDim.x - 1) * THREADS * N;
    for (int i = waiting * a.channels + first; i < out * a.channels; i += stride)
      write<N>(a, row, i / a.channels, i % a.channels);
    return;
  }
  // A thread has its channels for itself, and goes forward in time: it reads a step of the state
  // before it overwrites it.
  for (int channel = threadIdx.x * N; channel < a.channels; channel += THREADS * N) {
    for (int t = 0; t < waiting && t < out; ++t) write<N>(a, row, t, channel);
    if (!row.is_active) continue;
    for (int t = out; t < out + waiting; ++t)
      store(row.overlap + (t - out) * a.channels + channel,
            sum_with_state<N>(a, row, t, channel).template rounded<T>());
  }
}

}  // namespace
}  // namespace duologue

extern "C" int duologue_conv_transpose_output(const void* windows, void* overlap, const void* bias,
                                              const bool* active, void* y, int64_t batch,
                                              int64_t steps, int64_t hop, int64_t window,
                                              int64_t channels, int dtype, void* stream) {
  using namespace duologue;
  if (batch == 0) return 0;  // whose tensors have no memory
  if (batch < 0 || steps < 1 || hop < 1 || window < hop || channels < 1 ||
      !fits(steps, window, channels))
    return INVALID;
  return with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Output<T> args{static_cast<const T*>(windows), static_cast<T*>(overlap),
                         static_cast<const T*>(bias), active, static_cast<T*>(y),
                         static_cast<int>(steps), static_cast<int>(hop), static_cast<int>(window),
                         static_cast<int>(channels)};
    const auto grid = [&](int width) {
      const int64_t others = (steps * hop - (window - hop)) * channels;
      const int64_t blocks = others > 0 ? divided_up(others, int64_t{THREADS} * width) : 0;
      return dim3(static_cast<unsigned>(1 + (blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS)),
                  static_cast<unsigned>(batch));
    };
    if (is_wide(channels, sizeof(T), windows, overlap, bias, y))
      return LAUNCH((conv_transpose_output<T, WIDEST<T>>), grid(WIDEST<T>), dim3(THREADS), stream,
                    args);
    return LAUNCH((conv_transpose_output<T, 1>), grid(1), dim3(THREADS), stream, args);
  });
}
