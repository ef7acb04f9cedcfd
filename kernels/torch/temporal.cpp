// The temporal transformer's operators as torch sees them. model/ops.py says what they are for.
#include <tuple>

#include "tensors.h"

namespace duologue {
namespace {

// Which of `held` keys and values are whose; null where they are everybody's own.
const int64_t* held_by(const MaybeTensor& rows, int64_t batch, int64_t held) {
  const int64_t* of = rows ? integers(*rows, "rows", {batch}) : nullptr;
  if (of) within(of, batch, 0, held - 1, "row");
  STD_TORCH_CHECK(of || batch <= held, batch, " rows, but keys of ", held);
  return of;
}

Tensor transformer_step(const Tensor& x, Tensors weights, Tensors keys, Tensors values,
                        Tensors positions, const MaybeTensor& rows, const MaybeTensor& active,
                        int64_t heads, int64_t kv_heads, int64_t hidden, int64_t window,
                        int64_t pinned, double period, double eps) {
  const int64_t batch = x.size(0), dim = x.size(1), head_dim = dim / heads;
  const int64_t count = static_cast<int64_t>(keys.size());
  const int64_t width = (heads + 2 * kv_heads) * head_dim;
  STD_TORCH_CHECK(count > 0 && values.size() == keys.size() && positions.size() == keys.size() &&
                      static_cast<int64_t>(weights.size()) == 6 * count + 1,
                  "a layer has keys, values, a position and six weights");
  const Rows run(active, batch);
  const int64_t held = keys[0].size(0), *of = held_by(rows, batch, held);
  const bool is_bfloat16 = keys[0].scalar_type() == ScalarType::BFloat16;
  const auto ring = [&](const Tensor& tensor, const char* name) {
    return checked(tensor, name, is_bfloat16 ? ScalarType::BFloat16 : ScalarType::Float,
                   {held, pinned + window, kv_heads, head_dim});
  };
  std::vector<TransformerLayer> layers;
  for (int64_t i = 0; i < count; ++i) {
    const Tensor* w = &weights[6 * i];
    layers.push_back({floats(w[0], "attention_norm", {dim}),
                      floats(w[3], "feed_forward_norm", {dim}), weight(w[1], "input", width, dim),
                      weight(w[2], "output", dim, dim),
                      weight(w[4], "feed_forward.input", 2 * hidden, dim),
                      weight(w[5], "feed_forward.output", dim, hidden),
                      ring(keys[i], "keys"), ring(values[i], "values")});
  }
  Tensor y = zeros(x, {batch, dim});
  const int64_t* position = positions_of(positions[0], batch);
  kernels().transformer_step({run.lanes(), floats(x, "x", {batch, dim}),
                              floats(y, "y", {batch, dim}), dim, heads, kv_heads, hidden, window,
                              pinned, static_cast<float>(eps), period, position, of, layers.data(),
                              count, is_bfloat16, floats(weights.back(), "norm", {dim})});
  for (const Tensor& each : positions) {
    int64_t* steps = positions_of(each, batch);
    for (int64_t n = 0; n < run.lanes().count; ++n) ++steps[run.lanes().rows[n]];
  }
  return y;
}

std::tuple<Tensor, Tensor, Tensor> pointer_step(
    const Tensor& x, const Tensor& source, const Tensor& query, const Tensor& key,
    const Tensor& gate, const Tensor& gate_bias, const Tensor& keys, const Tensor& sources,
    const Tensor& position, const MaybeTensor& rows, const MaybeTensor& active) {
  const int64_t batch = x.size(0), dim = x.size(1), held = keys.size(0), window = keys.size(1);
  const int64_t pointer_dim = keys.size(3);
  const Rows run(active, batch);
  Tensor weights = zeros(x, {batch, window}), gates = zeros(x, {batch});
  Tensor pointed = zeros(x, {batch, window}, ScalarType::Long);
  int64_t* steps = positions_of(position, batch);
  kernels().pointer_step(
      {run.lanes(), floats(x, "x", {batch, dim}), integers(source, "source", {batch}),
       weight(query, "query", pointer_dim, dim), weight(key, "key", pointer_dim, dim),
       floats(gate, "gate", {1, dim}), floats(gate_bias, "gate_bias", {1}), window, steps,
       held_by(rows, batch, held), floats(keys, "keys", {held, window, 1, pointer_dim}),
       integers(sources, "sources", {held, window, 1, 1}),
       floats(weights, "weights", {batch, window}), floats(gates, "gates", {batch}),
       integers(pointed, "pointed", {batch, window})});
  for (int64_t n = 0; n < run.lanes().count; ++n) ++steps[run.lanes().rows[n]];
  return {weights, pointed, gates};
}

Tensor log_probabilities(const Tensor& hidden, const Tensor& rotation, const Tensor& table,
                         int64_t vocabulary, const MaybeTensor& weights,
                         const MaybeTensor& sources, const MaybeTensor& gate,
                         const MaybeTensor& targets) {
  const int64_t rows = hidden.size(0), dim = hidden.size(1);
  Tensor y = torch::stable::new_empty(hidden, {rows, vocabulary});
  LogProbabilities args{rows, 0, floats(hidden, "hidden", {rows, dim}),
                        weight(rotation, "rotation", dim, dim),
                        weight(table, "table", vocabulary, dim), nullptr, nullptr, nullptr, nullptr,
                        floats(y, "y", {rows, vocabulary})};
  if (weights) {
    STD_TORCH_CHECK(sources && gate && targets, "what is pointed at is not complete");
    args.window = weights->size(1);
    args.weights = floats(*weights, "weights", {rows, args.window});
    args.sources = integers(*sources, "sources", {rows, args.window});
    args.gate = floats(*gate, "gate", {rows});
    args.targets = integers(*targets, "targets", {vocabulary});
    within(args.sources, rows * args.window, 0, vocabulary, "source");
    within(args.targets, vocabulary, 0, vocabulary - 1, "target");
  }
  kernels().log_probabilities(args);
  return y;
}

Tensor frame_input(const Tensor& is_frame, const Tensor& agent_text, const Tensor& user_text,
                   const Tensor& action, const Tensor& latents, const Tensor& is_heard,
                   const Tensor& is_speaking, Tensors weights) {
  STD_TORCH_CHECK(weights.size() == 9, "frame_input takes nine weights");
  const int64_t rows = action.size(0), vocabulary = weights[0].size(0), dim = weights[0].size(1);
  const int64_t latent_dim = latents.size(1);
  Tensor y = torch::stable::new_empty(latents, {rows, dim});
  kernels().frame_input(
      {rows, tokens(agent_text, "agent_text", rows, vocabulary),
       tokens(user_text, "user_text", rows, vocabulary), tokens(action, "action", rows, vocabulary),
       truths(is_frame, "is_frame", rows), truths(is_heard, "is_heard", rows),
       truths(is_speaking, "is_speaking", rows), floats(latents, "latents", {rows, latent_dim}),
       floats(weights[0], "agent_table", {vocabulary, dim}),
       floats(weights[1], "user_table", {vocabulary, dim}),
       floats(weights[2], "action_table", {vocabulary, dim}),
       floats(weights[3], "action_position", {dim}), floats(weights[4], "unheard", {2, dim}),
       floats(weights[5], "latent_mean", {latent_dim}),
       floats(weights[6], "latent_deviation", {latent_dim}),
       floats(weights[8], "latent_input.bias", {dim}),
       weight(weights[7], "latent_input", dim, latent_dim), floats(y, "y", {rows, dim})});
  return y;
}

STABLE_TORCH_LIBRARY_FRAGMENT(duologue, m) {
  m.def(
      "transformer_step(Tensor x, Tensor[] weights, Tensor(a!)[] keys, Tensor(b!)[] values, "
      "Tensor(c!)[] positions, Tensor? rows, Tensor? active, int heads, int kv_heads, int hidden, "
      "int window, int pinned, float period, float eps) -> Tensor");
  m.def(
      "pointer_step(Tensor x, Tensor source, Tensor query, Tensor key, Tensor gate, "
      "Tensor gate_bias, Tensor(a!) keys, Tensor(b!) sources, Tensor(c!) position, Tensor? rows, "
      "Tensor? active) -> (Tensor, Tensor, Tensor)");
  m.def(
      "log_probabilities(Tensor hidden, Tensor rotation, Tensor table, int vocabulary, "
      "Tensor? weights, Tensor? sources, Tensor? gate, Tensor? targets) -> Tensor");
  m.def(
      "frame_input(Tensor is_frame, Tensor agent_text, Tensor user_text, Tensor action, "
      "Tensor latents, Tensor is_heard, Tensor is_speaking, Tensor[] weights) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(duologue, CPU, m) {
  m.impl("transformer_step", TORCH_BOX(&transformer_step));
  m.impl("pointer_step", TORCH_BOX(&pointer_step));
  m.impl("log_probabilities", TORCH_BOX(&log_probabilities));
  m.impl("frame_input", TORCH_BOX(&frame_input));
}

}  // namespace
}  // namespace duologue
