// The operators that have CUDA kernels as torch sees them. model/cuda_ops.py says what each does, and
// does it on a CPU.
#include <algorithm>
#include <string>
#include <tuple>

#include <torch/csrc/stable/accelerator.h>

#include "../cuda/kernels.h"
#include "tensors.h"

// Tests bind the kernels of the emulator as well, as operators of another name, for a CPU.
#ifndef DUOLOGUE_NAMESPACE
#define DUOLOGUE_NAMESPACE duologue
#define DUOLOGUE_DEVICE CUDA
#endif

// Not in a torch without CUDA, into which this library must load as well.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace duologue {
namespace {

STABLE_TORCH_LIBRARY_FRAGMENT(DUOLOGUE_NAMESPACE, m) {
  m.def("residual_rms_norm(Tensor(a!) x, Tensor? update, Tensor weight, float eps) -> Tensor");
  m.def(
      "rope_append(Tensor projected, Tensor(a!) keys, Tensor(b!) values, Tensor(c!)? key_scales, "
      "Tensor(d!)? value_scales, Tensor position, Tensor? held, Tensor? active, "
      "Tensor half_turns, int heads, int window, int pinned) -> (Tensor, Tensor)");
  m.def(
      "ring_attention(Tensor query, Tensor far_query, Tensor keys, Tensor values, "
      "Tensor? key_scales, Tensor? value_scales, Tensor position, Tensor? held, Tensor? active, "
      "int window, int pinned, ScalarType dtype) -> Tensor");
  m.def(
      "sample_seeded(Tensor logits, Tensor seed, Tensor draw, int stream, Tensor? active, "
      "float temperature, int top_k, float top_p) -> Tensor");
  m.def(
      "conv_input(Tensor x, Tensor(a!) past, Tensor(b!)? started, Tensor? active, bool elu, "
      "str pad_mode) -> Tensor");
  m.def(
      "conv_transpose_output(Tensor windows, Tensor(a!) overlap, Tensor? bias, Tensor? active, "
      "int hop) -> Tensor");
  m.def(
      "rvq_encode(Tensor x, Tensor? semantic, Tensor acoustic, Tensor square_norms) -> Tensor");
  m.def("embedding_sum(Tensor tokens, Tensor[] tables) -> Tensor");
}

#ifdef DUOLOGUE_CUDA

constexpr int64_t BLOCKS = 264;  // fill an H100: two for each of its 132 multiprocessors

int number_of(ScalarType type, const char* name) {
  switch (type) {
    case ScalarType::Float: return DUOLOGUE_FLOAT32;
    case ScalarType::Half: return DUOLOGUE_FLOAT16;
    case ScalarType::BFloat16: return DUOLOGUE_BFLOAT16;
    case ScalarType::Char: return DUOLOGUE_INT8;
    case ScalarType::Float8_e4m3fn: return DUOLOGUE_FLOAT8;
    default: STD_TORCH_CHECK(false, name, " is of a type that the kernels don't take");
  }
  return -1;
}

// One call of a kernel: on the device and the stream of its first tensor.
class Call {
 public:
  explicit Call(const Tensor& first)
      : is_cuda_(first.is_cuda()), device_(first.get_device_index()) {
    if (is_cuda_) guard_.emplace(device_);
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, "this torch has no CUDA");
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream_));
  }

  // Where a tensor lies; its type, layout, device and sizes are checked.
  template <class T = void>
  T* at(const Tensor& tensor, const char* name, ScalarType type,
        std::initializer_list<int64_t> sizes) const {
    STD_TORCH_CHECK(tensor.is_cuda() == is_cuda_ && tensor.get_device_index() == device_, name,
                    " must be on the device of the other tensors");
    return static_cast<T*>(laid_out(tensor, name, type, sizes));
  }

  template <class T = void>
  T* at(const MaybeTensor& tensor, const char* name, ScalarType type,
        std::initializer_list<int64_t> sizes) const {
    return tensor ? at<T>(*tensor, name, type, sizes) : nullptr;
  }

  void* stream() const { return stream_; }

 private:
  bool is_cuda_;
  int32_t device_;
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  void* stream_ = nullptr;
};

void check(int code, const char* name) {
  STD_TORCH_CHECK(code != 1, name, ": sizes that its kernel does not take, see kernels.h");
  STD_TORCH_CHECK(code == 0, name, ": CUDA error ", code);
}

Tensor residual_rms_norm_cuda(const Tensor& x, const MaybeTensor& update, const Tensor& weight,
                              double eps) {
  const Call call(x);
  const int64_t rows = x.size(0), dim = x.size(1);
  const ScalarType type = x.scalar_type();
  Tensor normed = torch::stable::new_empty(x, {rows, dim});
  void* sum = call.at(x, "x", type, {rows, dim});
  check(duologue_residual_rms_norm(sum, call.at(update, "update", type, {rows, dim}),
                                   call.at(weight, "weight", type, {dim}), sum,
                                   call.at(normed, "normed", type, {rows, dim}), rows, dim,
                                   static_cast<float>(eps), number_of(type, "x"), call.stream()),
        "residual_rms_norm");
  return normed;
}

// Keys and values in a ring, and whose they are.
struct Ring {
  Ring(const Call& call, const Tensor& key, const Tensor& value, const MaybeTensor& key_scale,
       const MaybeTensor& value_scale, const Tensor& at, const MaybeTensor& of,
       const MaybeTensor& who, int64_t rows, int64_t slots, int64_t dim)
      : batch(rows), kv_heads(key.size(2)), type(number_of(key.scalar_type(), "keys")) {
    const ScalarType as = key.scalar_type();
    const int64_t all = key.size(0);
    keys = call.at(key, "keys", as, {all, slots, kv_heads, dim});
    values = call.at(value, "values", as, {all, slots, kv_heads, dim});
    key_scales = call.at<float>(key_scale, "key_scales", ScalarType::Float, {all, slots, kv_heads});
    value_scales =
        call.at<float>(value_scale, "value_scales", ScalarType::Float, {all, slots, kv_heads});
    position = call.at<int64_t>(at, "position", ScalarType::Long, {batch});
    held = call.at<int64_t>(of, "held", ScalarType::Long, {batch});
    active = call.at<bool>(who, "active", ScalarType::Bool, {batch});
    STD_TORCH_CHECK(held || batch <= all, batch, " rows, but keys of ", all);
    STD_TORCH_CHECK((type == DUOLOGUE_INT8) == (key_scales && value_scales),
                    "keys and values of int8 have scales, others have none");
  }

  int64_t batch, kv_heads;
  int type;
  void *keys, *values;
  float *key_scales, *value_scales;
  const int64_t *position, *held;
  const bool* active;
};

std::tuple<Tensor, Tensor> rope_append_cuda(
    const Tensor& projected, const Tensor& keys, const Tensor& values,
    const MaybeTensor& key_scales, const MaybeTensor& value_scales, const Tensor& position,
    const MaybeTensor& held, const MaybeTensor& active, const Tensor& half_turns, int64_t heads,
    int64_t window, int64_t pinned) {
  const Call call(projected);
  const int64_t batch = projected.size(0), dim = projected.size(2);
  const Ring ring(call, keys, values, key_scales, value_scales, position, held, active, batch,
                  pinned + window, dim);
  const ScalarType type = projected.scalar_type();
  Tensor near = torch::stable::new_empty(projected, {batch, heads, dim}, ScalarType::Float);
  Tensor far = pinned ? torch::stable::empty_like(near)
                      : torch::stable::new_empty(near, {0}, ScalarType::Float);
  check(duologue_rope_append(
            call.at(projected, "projected", type, {batch, heads + 2 * ring.kv_heads, dim}),
            ring.position, ring.held, ring.active,
            call.at<double>(half_turns, "half_turns", ScalarType::Double, {dim / 2}),
            static_cast<float*>(near.data_ptr()),
            pinned ? static_cast<float*>(far.data_ptr()) : nullptr, ring.keys, ring.values,
            ring.key_scales, ring.value_scales, batch, heads, ring.kv_heads, dim, window, pinned,
            number_of(type, "projected"), ring.type, call.stream()),
        "rope_append");
  return {near, far};
}

Tensor ring_attention_cuda(const Tensor& query, const Tensor& far_query, const Tensor& keys,
                           const Tensor& values, const MaybeTensor& key_scales,
                           const MaybeTensor& value_scales, const Tensor& position,
                           const MaybeTensor& held, const MaybeTensor& active, int64_t window,
                           int64_t pinned, ScalarType dtype) {
  const Call call(query);
  const int64_t batch = query.size(0), heads = query.size(1), dim = query.size(2);
  const Ring ring(call, keys, values, key_scales, value_scales, position, held, active, batch,
                  pinned + window, dim);
  Tensor y = torch::stable::new_empty(query, {batch, heads * dim}, dtype);
  // As many blocks a row as fill the GPU; the result is the same for any number.
  const int64_t parts =
      (pinned + window + DUOLOGUE_ATTENTION_PART - 1) / DUOLOGUE_ATTENTION_PART;
  const int64_t splits = std::clamp<int64_t>(
      BLOCKS / std::max<int64_t>(batch * ring.kv_heads, 1), 1, parts);
  Tensor workspace = torch::stable::new_empty(
      query,
      {splits > 1 ? duologue_ring_attention_workspace(batch, heads, dim, window, pinned) : 0});
  const void* far = pinned ? call.at(far_query, "far_query", ScalarType::Float, {batch, heads, dim})
                           : nullptr;
  check(duologue_ring_attention(
            call.at<float>(query, "query", ScalarType::Float, {batch, heads, dim}),
            static_cast<const float*>(far), ring.keys, ring.values, ring.key_scales,
            ring.value_scales, ring.position, ring.held, ring.active, y.data_ptr(),
            splits > 1 ? static_cast<float*>(workspace.data_ptr()) : nullptr, batch, heads,
            ring.kv_heads, dim, window, pinned, splits, number_of(dtype, "dtype"), ring.type,
            call.stream()),
        "ring_attention");
  return y;
}

// int64 [B]; the random numbers are `uniform`, or drawn under `seed`.
Tensor sampled(const Tensor& logits, const MaybeTensor& uniform, const MaybeTensor& seed,
               const MaybeTensor& draw, int64_t stream, const MaybeTensor& active,
               double temperature, int64_t top_k, double top_p) {
  const Call call(logits);
  const int64_t batch = logits.size(0), vocabulary = logits.size(1);
  const ScalarType type = logits.scalar_type();
  Tensor tokens = torch::stable::new_empty(logits, {batch}, ScalarType::Long);
  Tensor weights = torch::stable::new_empty(
      logits, {temperature > 0 ? batch * vocabulary : 0}, ScalarType::Long);
  check(duologue_sample(
            call.at(logits, "logits", type, {batch, vocabulary}),
            call.at<double>(uniform, "uniform", ScalarType::Double, {batch}),
            call.at<int64_t>(seed, "seed", ScalarType::Long, {batch}),
            call.at<int64_t>(draw, "draw", ScalarType::Long, {batch}), stream,
            call.at<bool>(active, "active", ScalarType::Bool, {batch}),
            static_cast<int64_t*>(tokens.data_ptr()),
            temperature > 0 ? static_cast<int64_t*>(weights.data_ptr()) : nullptr, batch,
            vocabulary, static_cast<float>(temperature), top_k, top_p, number_of(type, "logits"),
            call.stream()),
        "sample");
  return tokens;
}

Tensor sample_cuda(const Tensor& logits, const Tensor& uniform, double temperature, int64_t top_k,
                   double top_p) {
  return sampled(logits, uniform, {}, {}, 0, {}, temperature, top_k, top_p);
}

Tensor sample_seeded_cuda(const Tensor& logits, const Tensor& seed, const Tensor& draw,
                          int64_t stream, const MaybeTensor& active, double temperature,
                          int64_t top_k, double top_p) {
  return sampled(logits, {}, seed, draw, stream, active, temperature, top_k, top_p);
}

Tensor conv_input_cuda(const Tensor& x, const Tensor& past, const MaybeTensor& started,
                       const MaybeTensor& active, bool elu, std::string pad_mode) {
  const Call call(x);
  const int64_t batch = x.size(0), steps = x.size(1), channels = x.size(2);
  const int64_t past_steps = past.size(1);
  const ScalarType type = x.scalar_type();
  const int mode = pad_mode == "constant"    ? DUOLOGUE_PAD_CONSTANT
                   : pad_mode == "replicate" ? DUOLOGUE_PAD_REPLICATE
                   : pad_mode == "reflect"   ? DUOLOGUE_PAD_REFLECT
                                             : -1;
  STD_TORCH_CHECK(mode >= 0, "pad_mode '", pad_mode, "': must be constant, replicate or reflect");
  Tensor joined = torch::stable::new_empty(x, {batch, past_steps + steps, channels});
  check(duologue_conv_input(call.at(x, "x", type, {batch, steps, channels}),
                            call.at(past, "past", type, {batch, past_steps, channels}),
                            call.at<bool>(started, "started", ScalarType::Bool, {batch}),
                            call.at<bool>(active, "active", ScalarType::Bool, {batch}),
                            joined.data_ptr(), batch, steps, channels, past_steps,
                            elu ? DUOLOGUE_ELU : DUOLOGUE_NO_ACTIVATION, mode,
                            number_of(type, "x"), call.stream()),
        "conv_input");
  return joined;
}

Tensor conv_transpose_output_cuda(const Tensor& windows, const Tensor& overlap,
                                  const MaybeTensor& bias, const MaybeTensor& active,
                                  int64_t hop) {
  const Call call(windows);
  const int64_t batch = windows.size(0), steps = windows.size(1), window = windows.size(2);
  const int64_t channels = windows.size(3);
  const ScalarType type = windows.scalar_type();
  Tensor y = torch::stable::new_empty(windows, {batch, steps * hop, channels});
  check(duologue_conv_transpose_output(
            call.at(windows, "windows", type, {batch, steps, window, channels}),
            call.at(overlap, "overlap", type, {batch, window - hop, channels}),
            call.at(bias, "bias", type, {channels}),
            call.at<bool>(active, "active", ScalarType::Bool, {batch}), y.data_ptr(), batch, steps,
            hop, window, channels, number_of(type, "windows"), call.stream()),
        "conv_transpose_output");
  return y;
}

Tensor rvq_encode_cuda(const Tensor& x, const MaybeTensor& semantic, const Tensor& acoustic,
                       const Tensor& square_norms) {
  const Call call(x);
  const int64_t batch = x.size(0), stages = acoustic.size(0), size = acoustic.size(1);
  const int64_t semantic_dim = semantic ? semantic->size(1) : 0, acoustic_dim = acoustic.size(2);
  const int64_t codebooks = stages + (semantic ? 1 : 0);
  const ScalarType type = x.scalar_type(), full = ScalarType::Float;
  Tensor codes = torch::stable::new_empty(x, {batch, codebooks}, ScalarType::Long);
  check(duologue_rvq_encode(
            call.at(x, "x", type, {batch, semantic_dim + acoustic_dim}),
            call.at<float>(semantic, "semantic", full, {size, semantic_dim}),
            call.at<float>(acoustic, "acoustic", full, {stages, size, acoustic_dim}),
            call.at<float>(square_norms, "square_norms", full, {codebooks, size}),
            static_cast<int64_t*>(codes.data_ptr()), batch, semantic_dim, acoustic_dim, size,
            codebooks, number_of(type, "x"), call.stream()),
        "rvq_encode");
  return codes;
}

Tensor embedding_sum_cuda(const Tensor& tokens, Tensors tables) {
  const Call call(tokens);
  const int64_t batch = tokens.size(0), count = static_cast<int64_t>(tables.size());
  STD_TORCH_CHECK(count > 0, "tables is empty");
  const int64_t dim = tables[0].size(1);
  const ScalarType type = tables[0].scalar_type();
  std::vector<const void*> starts;
  for (const Tensor& table : tables) starts.push_back(call.at(table, "table", type, {ANY, dim}));
  Tensor y = torch::stable::new_empty(tables[0], {batch, dim});
  check(duologue_embedding_sum(
            call.at<int64_t>(tokens, "tokens", ScalarType::Long, {batch, count}), starts.data(),
            y.data_ptr(), batch, count, dim, number_of(type, "table"), call.stream()),
        "embedding_sum");
  return y;
}

STABLE_TORCH_LIBRARY_IMPL(DUOLOGUE_NAMESPACE, DUOLOGUE_DEVICE, m) {
  m.impl("residual_rms_norm", TORCH_BOX(&residual_rms_norm_cuda));
  m.impl("rope_append", TORCH_BOX(&rope_append_cuda));
  m.impl("ring_attention", TORCH_BOX(&ring_attention_cuda));
  m.impl("sample", TORCH_BOX(&sample_cuda));
  m.impl("sample_seeded", TORCH_BOX(&sample_seeded_cuda));
  m.impl("conv_input", TORCH_BOX(&conv_input_cuda));
  m.impl("conv_transpose_output", TORCH_BOX(&conv_transpose_output_cuda));
  m.impl("rvq_encode", TORCH_BOX(&rvq_encode_cuda));
  m.impl("embedding_sum", TORCH_BOX(&embedding_sum_cuda));
}

#endif  // DUOLOGUE_CUDA

}  // namespace
}  // namespace duologue
