// The speech transformer's operators as torch sees them.
#include <tuple>

#include "tensors.h"

namespace duologue {
namespace {

// Stacked [steps, ...], of which the first `steps` are run.
Weight stacked(const Tensor& packed, const char* name, int64_t outputs, int64_t inputs) {
  return weight(packed, name, outputs, inputs, true);
}

Tensor depth_generate(const Tensor& context, const MaybeTensor& text, Tensors weights,
                      Tensors embeddings, const Tensor& uniform, int64_t heads, int64_t hidden,
                      int64_t codebook, double eps, double temperature, int64_t top_k,
                      double top_p) {
  const int64_t rows = context.size(0), inputs = context.size(1), steps = uniform.size(1);
  const int64_t layer_count = (static_cast<int64_t>(weights.size()) - 2) / 6;
  const int64_t dim = weights[2].size(0);
  STD_TORCH_CHECK(static_cast<int64_t>(weights.size()) == 6 * layer_count + 2 &&
                      weights[0].size(0) >= steps,
                  "a depth transformer has two weights and six of each layer, for every step");
  std::vector<DepthLayer> layers;
  for (int64_t i = 0; i < layer_count; ++i) {
    const Tensor* w = &weights[2 + 6 * i];
    layers.push_back({floats(w[0], "attention_norm", {dim}),
                      floats(w[3], "feed_forward_norm", {dim}),
                      stacked(w[1], "attention_input", 3 * dim, dim),
                      stacked(w[2], "attention_output", dim, dim),
                      stacked(w[4], "feed_forward_input", 2 * hidden, dim),
                      stacked(w[5], "feed_forward_output", dim, hidden)});
  }
  const bool has_text = text.has_value();
  std::vector<const float*> tables;
  for (const Tensor& table : embeddings) tables.push_back(floats(table, "embedding", {ANY, dim}));
  for (int64_t i = has_text; i < static_cast<int64_t>(embeddings.size()); ++i)
    STD_TORCH_CHECK(embeddings[i].size(0) >= codebook, "an embedding must know all ", codebook);
  STD_TORCH_CHECK(static_cast<int64_t>(tables.size()) >= steps - 1 + has_text,
                  "an embedding is missing");
  Tensor codes = zeros(context, {rows, steps}, ScalarType::Long);
  const Sampling sampling{temperature, top_p, top_k};
  kernels().depth_generate(
      {rows, steps, dim, heads, hidden, static_cast<float>(eps),
       floats(context, "context", {rows, inputs}),
       has_text ? tokens(*text, "text", rows, embeddings[0].size(0)) : nullptr,
       has_text ? tables[0] : nullptr, tables.data() + has_text,
       stacked(weights[0], "input", dim, inputs), stacked(weights[1], "heads", codebook, dim),
       layers.data(), layer_count, sampling,
       static_cast<double*>(checked(uniform, "uniform", ScalarType::Double, {rows, steps})),
       integers(codes, "codes", {rows, steps})});
  return codes;
}

Tensor sample(const Tensor& logits, const Tensor& uniform, double temperature, int64_t top_k,
              double top_p) {
  const int64_t rows = logits.size(0), count = logits.size(1);
  Tensor drawn = zeros(logits, {rows}, ScalarType::Long);
  kernels().sample({{temperature, top_p, top_k}, rows, count,
                    floats(logits, "logits", {rows, count}),
                    static_cast<double*>(checked(uniform, "uniform", ScalarType::Double, {rows})),
                    integers(drawn, "tokens", {rows})});
  return drawn;
}

std::tuple<Tensor, Tensor> reader_step(
    const Tensor& token, Tensors tables, const Tensor& token_begins, Tensors spelling,
    const Tensor& letters, const Tensor& phones, const Tensor& mark, const Tensor& age,
    const Tensor& style, const MaybeTensor& active, int64_t lead, int64_t early, int64_t tail,
    int64_t kernel) {
  constexpr int64_t COLUMNS = 11;  // behind those of the four words
  STD_TORCH_CHECK(tables.size() == 3 && spelling.size() >= 4 && spelling.size() % 2 == 0,
                  "the reader takes three tables; its spelling four weights and two of each layer");
  const int64_t batch = token.size(0), words = letters.size(1), vocabulary = tables[0].size(0);
  const int64_t letter_count = letters.size(2), phone_count = phones.size(2);
  const int64_t dim = spelling[1].size(1);
  const int64_t kinds = spelling[0].size(0), outputs = spelling[3].size(0);
  std::vector<Weight> convolutions;
  std::vector<const float*> biases;
  for (size_t i = 4; i < spelling.size(); i += 2) {
    convolutions.push_back(weight(spelling[i], "convolution", 2 * dim, kernel * dim));
    biases.push_back(floats(spelling[i + 1], "convolution.bias", {2 * dim}));
  }
  const int64_t size = batch * words;  // states come from outside, too
  within(integers(letters, "letters", {batch, words, letter_count}), size * letter_count, 0,
         spelling[1].size(0) - 1, "letter");
  within(integers(phones, "phones", {batch, words, phone_count}), size * phone_count, 0, kinds - 1,
         "phone");
  STD_TORCH_CHECK(outputs <= 2 * kinds, "the spelling makes ", outputs / 2, " phones of ", kinds);
  const int64_t columns = 4 * (phone_count + 1) + COLUMNS;
  Tensor features = zeros(token, {batch, columns}, ScalarType::Long);
  Tensor is_spoken = zeros(token, {batch}, ScalarType::Bool);
  const Rows run(active, batch);
  kernels().reader_step(
      {run.lanes(), tokens(token, "token", batch, vocabulary), words, letter_count, phone_count,
       lead, early, tail, integers(tables[0], "token_letters", {vocabulary, letter_count}),
       integers(tables[1], "token_mark", {vocabulary}),
       integers(tables[2], "token_style", {vocabulary}),
       truths(token_begins, "token_begins", vocabulary), floats(spelling[0], "phone_s", {kinds}),
       floats(spelling[1], "embedding", {ANY, dim}), dim, kernel,
       static_cast<int64_t>(convolutions.size()), convolutions.data(), biases.data(),
       weight(spelling[2], "output", outputs, dim), floats(spelling[3], "output.bias", {outputs}),
       integers(letters, "letters", {batch, words, letter_count}),
       integers(phones, "phones", {batch, words, phone_count}),
       integers(mark, "mark", {batch, words}), integers(age, "age", {batch, words}),
       integers(style, "style", {batch}), integers(features, "features", {batch, columns}),
       static_cast<bool*>(is_spoken.data_ptr())});
  return {features, is_spoken};
}

Summed summed(const Tensor& table, const Tensor& offset, int64_t dim, bool skip_zero) {
  const int64_t columns = offset.size(0);
  return {floats(table, "table", {ANY, dim}), integers(offset, "offset", {columns}), columns,
          skip_zero};
}

// Refuses what the table has no vector for.
void check_values(const Summed& summed, const int64_t* values, int64_t rows, int64_t row_size,
                  int64_t vectors) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < summed.columns; ++i) {
      const int64_t value = values[row * row_size + i], at = value + summed.offset[i];
      STD_TORCH_CHECK(value >= 0 && 0 <= at && at < vectors, "column ", i, " is ", value);
    }
}

Tensor speech_input(const Tensor& features, const Tensor& previous, Tensors tables, Tensors offsets,
                    Tensors weights, const MaybeTensor& active, int64_t roles, double eps) {
  STD_TORCH_CHECK(tables.size() == 3 && offsets.size() == 3 && weights.size() == 9,
                  "speech_input takes three tables and nine weights");
  const int64_t batch = features.size(0), dim = tables[0].size(1);
  const Summed words = summed(tables[0], offsets[0], dim, true);
  const Summed times = summed(tables[1], offsets[1], dim, false);
  const Summed codes = summed(tables[2], offsets[2], dim, false);
  const int64_t columns = roles * words.columns + times.columns;
  const int64_t* told = integers(features, "features", {batch, columns});
  const int64_t* before = integers(previous, "previous", {batch, codes.columns});
  for (int64_t role = 0; role < roles; ++role)
    check_values(words, told + role * words.columns, batch, columns, tables[0].size(0));
  check_values(times, told + roles * words.columns, batch, columns, tables[1].size(0));
  check_values(codes, before, batch, codes.columns, tables[2].size(0));
  const Rows run(active, batch);
  Tensor y = zeros(tables[0], {batch, dim});
  kernels().speech_input(
      {run.lanes(), told, before, roles, dim, words, times, codes,
       weight(weights[0], "word_sound.0", dim, dim), weight(weights[2], "word_sound.2", dim, dim),
       weight(weights[4], "word_roles", dim, roles * dim),
       weight(weights[5], "join.0", 2 * dim, 2 * dim), weight(weights[7], "join.2", dim, 2 * dim),
       floats(weights[1], "word_sound.0.bias", {dim}),
       floats(weights[3], "word_sound.2.bias", {dim}), floats(weights[6], "join.0.bias", {2 * dim}),
       floats(weights[8], "norm", {dim}), static_cast<float>(eps), floats(y, "y", {batch, dim})});
  return y;
}

STABLE_TORCH_LIBRARY_FRAGMENT(duologue, m) {
  m.def(
      "depth_generate(Tensor context, Tensor? text, Tensor[] weights, Tensor[] embeddings, "
      "Tensor uniform, int heads, int hidden, int codebook, float eps, float temperature, "
      "int top_k, float top_p) -> Tensor");
  m.def(
      "sample(Tensor logits, Tensor uniform, float temperature, int top_k, float top_p) -> Tensor");
  m.def(
      "reader_step(Tensor token, Tensor[] tables, Tensor token_begins, Tensor[] spelling, "
      "Tensor(a!) letters, Tensor(b!) phones, Tensor(c!) mark, Tensor(d!) age, Tensor(e!) style, "
      "Tensor? active, int lead, int early, int tail, int kernel) -> (Tensor, Tensor)");
  m.def(
      "speech_input(Tensor features, Tensor previous, Tensor[] tables, Tensor[] offsets, "
      "Tensor[] weights, Tensor? active, int roles, float eps) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(duologue, CPU, m) {
  m.impl("depth_generate", TORCH_BOX(&depth_generate));
  m.impl("sample", TORCH_BOX(&sample));
  m.impl("reader_step", TORCH_BOX(&reader_step));
  m.impl("speech_input", TORCH_BOX(&speech_input));
}

}  // namespace
}  // namespace duologue
