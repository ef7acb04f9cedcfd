// What the operators take: plain pointers, no torch. Where nothing else is said floats are float32,
// integers int64.
//
// Of a batch only the rows in `lanes` are run, `count` of them; the others' states and results are
// left alone. Each set of instructions has a table of the same functions; `kernels()` is the one in
// use.
#pragma once

#include <cstdint>

namespace duologue {

constexpr int64_t PANEL = 64;  // outputs that lie side by side in a packed matrix

// A matrix [outputs, inputs] as panels [ceil(outputs / PANEL), inputs, PANEL], the last filled up
// with zeros; in half precision where that holds all of it, or rounded to 8 bits. One of the
// pointers is not null. A rounded panel is its numbers [ceil(inputs / 4), PANEL, 4] and, of each
// output, two floats: what they are multiples of, and the sum of them.
struct Weight {
  const float* full;
  const uint16_t* half;
  const int8_t* rounded;
  int64_t outputs, inputs;

  int64_t panels() const { return (outputs + PANEL - 1) / PANEL; }
  int64_t panel_rows() const {  // of PANEL elements each
    return rounded ? (inputs + 3) / 4 * 4 + 2 * static_cast<int64_t>(sizeof(float)) : inputs;
  }
};

struct Norm {
  const float *weight, *bias;
  float eps;
};

struct Lanes {
  const int64_t* rows;
  int64_t count;
};

using Task = void (*)(const void* body, int64_t begin, int64_t end);

// Runs task over parts of 0..count on torch's threads; parts are no smaller than `grain`.
void run_parallel(int64_t count, int64_t grain, const void* body, Task task);

template <class Body>
inline void parallel(int64_t count, int64_t grain, const Body& body) {
  if (count <= grain) return body(int64_t{0}, count);
  run_parallel(count, grain, &body, [](const void* self, int64_t begin, int64_t end) {
    (*static_cast<const Body*>(self))(begin, end);
  });
}

// y [rows, outputs] = (x, normalised where there is a norm) W^T + bias, where there is one
struct Linear {
  const float* x;
  int64_t rows;
  Weight weight;
  const float* bias;
  const Norm* norm;
  float* y;
};

struct TransformerLayer {
  const float *attention_norm, *feed_forward_norm;
  Weight input, output, feed_forward_input, feed_forward_output;
  void *keys, *values;  // [R, pinned + window, kv_heads, head_dim]
};

// One step of x [B, dim] -> y [B, dim].
struct TransformerStep {
  Lanes lanes;
  const float* x;
  float* y;
  int64_t dim, heads, kv_heads, hidden, window, pinned;
  float eps;
  double period;
  const int64_t *position, *held;  // of each row: what it has had, and which keys are its own
  const TransformerLayer* layers;
  int64_t layer_count;
  bool is_bfloat16;  // of keys and values: float32 otherwise
  const float* norm;
};

struct ConvBlock {
  const float *depthwise, *depthwise_bias;  // [kernel, channels], [channels]
  Norm norm;
  Weight expand, project;
  const float *expand_bias, *project_bias, *scale;
  float* past;  // [B, kernel - 1, channels]
};

// Blocks over x [B, steps, channels] -> y of the same shape.
struct ConvNext {
  Lanes lanes;
  const float* x;
  float* y;
  int64_t steps, channels, hidden, kernel;
  const ConvBlock* blocks;
  int64_t block_count;
};

// Of windows of `size` samples: cosine and sine of every multiple of a turn / size, and the window.
struct Window {
  int64_t size, hop;
  const float *cosine, *sine, *shape;
};

// Log-mel magnitudes of pcm [B, hops * hop] -> y [B, hops, mels].
struct LogMel {
  Lanes lanes;
  const float* pcm;
  int64_t hops;
  Window window;
  Weight filters;
  float *past, *y;  // past [B, size - hop]
};

// The end of the decoder: pulses of that pitch [B, hops], shaped by filters [B, hops, 2 * bands],
// and the rest of the spectrum [B, hops, 2 * bins] -> pcm [B, hops * hop].
struct Voice {
  Lanes lanes;
  int64_t hops, bands;
  const float *pitch_hz, *filters, *spectrum;
  double rate_hz;
  Window window;
  double* turns;                     // [B]
  float *last_hz, *past, *overlap;   // [B], and [B, size - hop] twice
  float* pcm;
};

// One step of a pointer over hidden x [B, dim]; its keys lie in a ring of `window` positions.
struct PointerStep {
  Lanes lanes;
  const float* x;
  const int64_t* source;  // [B]
  Weight query, key;
  const float *gate, *gate_bias;  // [dim], [1]
  int64_t window;
  const int64_t *position, *held;
  float* keys;           // [R, window, pointer_dim]
  int64_t* sources;      // [R, window]
  float *weights, *gates;  // [B, window] of zeros, [B]
  int64_t* pointed;      // [B, window] of zeros
};

// hidden [rows, dim] -> y [rows, vocabulary], with what a pointer says where there is one.
struct LogProbabilities {
  int64_t rows, window;
  const float* hidden;
  Weight rotation, table;
  const float *weights, *gate;     // [rows, window], [rows]
  const int64_t *sources, *targets;  // [rows, window], [vocabulary]
  float* y;
};

// The sum of what goes in at a position: y [rows, dim]. Tables [vocabulary, dim] are rotated.
struct FrameInput {
  int64_t rows;
  const int64_t *agent_text, *user_text, *action;
  const bool *is_frame, *is_heard, *is_speaking;
  const float* latents;
  const float *agent_table, *user_table, *action_table, *action_position, *unheard;
  const float *mean, *deviation, *latent_bias;
  Weight latent_input;
  float* y;
};

// As SamplingConfig of model/sampling.py.
struct Sampling {
  double temperature, top_p;
  int64_t top_k;
};

struct Sample {
  Sampling sampling;
  int64_t rows, count;
  const float* logits;    // [rows, count]
  const double* uniform;  // [rows]
  int64_t* tokens;        // [rows]
};

struct DepthLayer {
  const float *attention_norm, *feed_forward_norm;
  Weight input, output, feed_forward_input, feed_forward_output;  // each a stack, a step each
};

// Codes [rows, steps] of frames from their context [rows, inputs].
struct Depth {
  int64_t rows, steps, dim, heads, hidden;
  float eps;
  const float* context;
  const int64_t* text;  // [rows], where the first code depends on it
  const float* text_embedding;
  const float* const* embeddings;  // of all codebooks but the last
  Weight input, heads_weight;
  const DepthLayer* layers;
  int64_t layer_count;
  Sampling sampling;
  const double* uniform;  // [rows, steps]
  int64_t* codes;
};

// A frame of the reader (model/reading.py): token [B] -> features [B, columns], is_spoken [B].
struct Reader {
  Lanes lanes;
  const int64_t* token;
  int64_t words, letter_count, phone_count, lead, early, tail;
  const int64_t *token_letters, *token_mark, *token_style;
  const bool* token_begins;
  const float* phone_s;
  const float* letter_table;  // of the spelling: [letters + 1, spelling_dim]
  int64_t spelling_dim, kernel, layer_count;
  const Weight* convolutions;  // [2 * spelling_dim, kernel * spelling_dim]
  const float* const* biases;
  Weight output;
  const float* output_bias;
  int64_t *letters, *phones, *mark, *age, *style;  // the state
  int64_t* features;
  bool* is_spoken;
};

// A table of vectors for the values of some columns, whose sum is wanted.
struct Summed {
  const float* vectors;
  const int64_t* offset;
  int64_t columns;
  bool skip_zero;
};

// Features [B, roles * words + times] and the codes before [B, codes] -> y [B, dim].
struct SpeechInput {
  Lanes lanes;
  const int64_t *features, *previous;
  int64_t roles, dim;
  Summed words, times, codes;
  Weight sound_input, sound_output, word_roles, join_input, join_output;
  const float *sound_input_bias, *sound_output_bias, *join_input_bias, *norm;
  float eps;
  float* y;
};

struct Kernels {
  const char* name;
  void (*linear)(const Linear&);
  void (*transformer_step)(const TransformerStep&);
  void (*conv_next)(const ConvNext&);
  void (*log_mel)(const LogMel&);
  void (*voice)(const Voice&);
  void (*pointer_step)(const PointerStep&);
  void (*log_probabilities)(const LogProbabilities&);
  void (*frame_input)(const FrameInput&);
  void (*depth_generate)(const Depth&);
  void (*sample)(const Sample&);
  void (*reader_step)(const Reader&);
  void (*speech_input)(const SpeechInput&);
};

const Kernels& kernels();

// What is the same for all instructions. Rows of `bytes` each, to or from the places in `rows`:
void gather_rows(const char* from, int64_t bytes, const int64_t* rows, int64_t count, char* to);
void scatter_rows(const char* from, int64_t bytes, const int64_t* rows, int64_t count, char* to);

// The number in [0, 1) of model/sampling.py.
double uniform(int64_t seed, int64_t counter, int64_t stream);

// The sum of a vector for each code, out of books [count, size, dim] -> y [dim]
void sum_codes(const int64_t* codes, int64_t count, const float* books, int64_t size, int64_t dim,
               float* y);

}  // namespace duologue
