// The codec's operators as torch sees them.
#include "tensors.h"

namespace duologue {

void run_parallel(int64_t count, int64_t grain, const void* body, Task task) {
  torch::stable::parallel_for(0, count, grain,
                              [&](int64_t begin, int64_t end) { task(body, begin, end); });
}

namespace {

Tensor linear(const Tensor& x, const Tensor& packed, const MaybeTensor& bias,
              const MaybeTensor& norm_weight, const MaybeTensor& norm_bias, double eps,
              int64_t outputs) {
  const int64_t rows = x.size(0), inputs = x.size(1);
  Tensor y = torch::stable::new_empty(x, {rows, outputs});
  Linear args{floats(x, "x", {rows, inputs}), rows, weight(packed, "packed", outputs, inputs),
              nullptr, nullptr, floats(y, "y", {rows, outputs})};
  if (bias) args.bias = floats(*bias, "bias", {outputs});
  Norm norm{};
  if (norm_weight) {
    STD_TORCH_CHECK(norm_bias.has_value(), "norm_bias is missing");
    norm = {floats(*norm_weight, "norm_weight", {inputs}),
            floats(*norm_bias, "norm_bias", {inputs}), static_cast<float>(eps)};
    args.norm = &norm;
  }
  kernels().linear(args);
  return y;
}

Tensor conv_next(const Tensor& x, Tensors weights, Tensors pasts, const MaybeTensor& active,
                 int64_t hidden, int64_t kernel, double eps) {
  const int64_t batch = x.size(0), steps = x.size(1), channels = x.size(2);
  STD_TORCH_CHECK(weights.size() == 9 * pasts.size(), "a block has a past and nine weights");
  const Rows run(active, batch);
  std::vector<ConvBlock> blocks;
  for (size_t i = 0; i < pasts.size(); ++i) {
    const Tensor* w = &weights[9 * i];
    const Norm norm{floats(w[2], "norm.weight", {channels}), floats(w[3], "norm.bias", {channels}),
                    static_cast<float>(eps)};
    blocks.push_back({floats(w[0], "depthwise", {kernel, channels}),
                      floats(w[1], "depthwise.bias", {channels}), norm,
                      weight(w[4], "expand", hidden, channels),
                      weight(w[6], "project", channels, hidden), floats(w[5], "expand.bias", {hidden}),
                      floats(w[7], "project.bias", {channels}), floats(w[8], "scale", {channels}),
                      floats(pasts[i], "past", {batch, kernel - 1, channels})});
  }
  Tensor y = zeros(x, {batch, steps, channels});
  kernels().conv_next({run.lanes(), floats(x, "x", {batch, steps, channels}),
                       floats(y, "y", {batch, steps, channels}), steps, channels, hidden, kernel,
                       blocks.data(), static_cast<int64_t>(blocks.size())});
  return y;
}

Window window_of(const Tensor& shape, const Tensor& roots, int64_t hop) {
  const int64_t size = shape.size(0);
  int64_t left = size / 2;
  for (int64_t factor : {2, 3, 5})
    while (left % factor == 0) left /= factor;
  STD_TORCH_CHECK(size % 2 == 0 && left == 1 && 0 < hop && hop <= size, "a window of ", size,
                  " samples must be even, with no factors but 2, 3 and 5, and no less than a hop");
  const float* cosine = floats(roots, "roots", {2, size});
  return {size, hop, cosine, cosine + size, floats(shape, "window", {size})};
}

Tensor log_mel(const Tensor& pcm, const Tensor& filters, const Tensor& shape, const Tensor& roots,
               const Tensor& past, const MaybeTensor& active, int64_t hop, int64_t mels) {
  const int64_t batch = pcm.size(0), hops = pcm.size(1) / hop;
  const Window window = window_of(shape, roots, hop);
  const Rows run(active, batch);
  Tensor y = zeros(pcm, {batch, hops, mels});
  kernels().log_mel({run.lanes(), floats(pcm, "pcm", {batch, hops * hop}), hops, window,
                     weight(filters, "filters", mels, window.size / 2 + 1),
                     floats(past, "past", {batch, window.size - hop, 1}),
                     floats(y, "y", {batch, hops, mels})});
  return y;
}

Tensor voice(const Tensor& pitch_hz, const Tensor& filters, const Tensor& spectrum,
             const Tensor& shape, const Tensor& roots, const Tensor& turns, const Tensor& last_hz,
             const Tensor& past, const Tensor& overlap, const MaybeTensor& active, int64_t hop,
             double rate_hz) {
  const int64_t batch = pitch_hz.size(0), hops = pitch_hz.size(1), bands = filters.size(2) / 2;
  const Window window = window_of(shape, roots, hop);
  const int64_t after = window.size - hop, bins = window.size / 2 + 1;
  STD_TORCH_CHECK(2 <= bands && bands <= bins, bands, " bands: must be in 2..", bins);
  const Rows run(active, batch);
  Tensor pcm = zeros(pitch_hz, {batch, hops * hop});
  kernels().voice(
      {run.lanes(), hops, bands, floats(pitch_hz, "pitch_hz", {batch, hops}),
       floats(filters, "filters", {batch, hops, 2 * bands}),
       floats(spectrum, "spectrum", {batch, hops, 2 * bins}), rate_hz, window,
       static_cast<double*>(checked(turns, "turns", ScalarType::Double, {batch})),
       floats(last_hz, "last_hz", {batch}), floats(past, "past", {batch, after, 1}),
       floats(overlap, "overlap", {batch, after, 1}), floats(pcm, "pcm", {batch, hops * hop})});
  return pcm;
}

STABLE_TORCH_LIBRARY_FRAGMENT(duologue, m) {
  m.def(
      "linear(Tensor x, Tensor packed, Tensor? bias, Tensor? norm_weight, Tensor? norm_bias, "
      "float eps, int outputs) -> Tensor");
  m.def(
      "conv_next(Tensor x, Tensor[] weights, Tensor(a!)[] pasts, Tensor? active, int hidden, "
      "int kernel, float eps) -> Tensor");
  m.def(
      "log_mel(Tensor pcm, Tensor filters, Tensor window, Tensor roots, Tensor(a!) past, "
      "Tensor? active, int hop, int mels) -> Tensor");
  m.def(
      "voice(Tensor pitch_hz, Tensor filters, Tensor spectrum, Tensor window, Tensor roots, "
      "Tensor(a!) turns, Tensor(b!) last_hz, Tensor(c!) past, Tensor(d!) overlap, "
      "Tensor? active, int hop, float rate_hz) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(duologue, CPU, m) {
  m.impl("linear", TORCH_BOX(&linear));
  m.impl("conv_next", TORCH_BOX(&conv_next));
  m.impl("log_mel", TORCH_BOX(&log_mel));
  m.impl("voice", TORCH_BOX(&voice));
}

}  // namespace
}  // namespace duologue
