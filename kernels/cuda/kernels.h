// What the CUDA kernels are called by: plain C, no torch, one launcher an operator.
//
// Pointers are device memory of contiguous tensors unless said otherwise, shapes are written as
// `[B, T, C]` (the last index lies side by side), sizes are elements. A launcher only enqueues on
// `stream` (a cudaStream_t): it allocates nothing, waits for nothing and can be captured in a
// graph. It returns a cudaError code: 0, cudaErrorInvalidValue (1) where sizes or types are not
// allowed, or what the launch said. No rows: 0, and nothing is launched.
//
// `dtype` is that of activations and weights (float32, float16, bfloat16); arithmetic is float32.
// `active` bool [B], null for all: an inactive row's state is left alone and its outputs are 0.
// A row's results are the same to the bit whatever other rows do and however many there are.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  DUOLOGUE_FLOAT32 = 0,
  DUOLOGUE_FLOAT16 = 1,
  DUOLOGUE_BFLOAT16 = 2,
  DUOLOGUE_INT8 = 3,    // keys and values only, with a float32 scale for each slot and head
  DUOLOGUE_FLOAT8 = 4,  // keys and values only: e4m3, no scale, saturating at 448
};

enum { DUOLOGUE_NO_ACTIVATION = 0, DUOLOGUE_ELU = 1 };

// What a stream is taken to have had before its first chunk (`first_past` in
// model/seanet_streaming.py): silence, the first step again, the beginning mirrored.
enum { DUOLOGUE_PAD_CONSTANT = 0, DUOLOGUE_PAD_REPLICATE = 1, DUOLOGUE_PAD_REFLECT = 2 };

// Slots of a ring whose attention is computed as one part; see duologue_ring_attention.
enum { DUOLOGUE_ATTENTION_PART = 64 };

// sum = x + update, normed = sum / sqrt(mean(sum^2) + eps) * weight (RMSNorm of
// model/transformer.py).
//
// x, update, sum, normed: dtype [rows, dim]; weight: dtype [dim]. The sum is rounded to dtype
// before it is squared. sum may be x itself. `update` null: only normed is written, sum is ignored.
int duologue_residual_rms_norm(const void* x, const void* update, const void* weight, void* sum,
                               void* normed, int64_t rows, int64_t dim, float eps, int dtype,
                               void* stream);

// Turns queries and keys by their positions and writes keys and values into the ring: what
// SlidingWindowAttention (model/attention.py) does between its first product and attention.
//
// projected: dtype [B, heads + 2 * kv_heads, head_dim]: queries, keys, values. position int64 [B]:
// how many steps a row has had before this one; the caller adds 1 to it once all layers are done.
// held int64 [B]: which of the R rows of keys and values is whose; null: row n of row n.
// half_turns float64 [head_dim / 2]: by what a step turns each pair (2i, 2i + 1), in half turns
// (pi): period^(-i / (head_dim / 2)) / pi.
// query float32 [B, heads, head_dim]: turned by position. far_query, the same shape: turned by
// min(position, pinned + window - 1), for pinned keys; null where pinned is 0.
// keys, values: kv_dtype [R, pinned + window, kv_heads, head_dim], in slot position where that is
// below pinned, else pinned + (position - pinned) % window. kv_dtype is dtype, int8 or float8.
// key_scales, value_scales: float32 [R, pinned + window, kv_heads] with int8 (value = number *
// scale, the largest is 127), else null.
// head_dim is even.
int duologue_rope_append(const void* projected, const int64_t* position, const int64_t* held,
                         const bool* active, const double* half_turns, float* query,
                         float* far_query, void* keys, void* values, float* key_scales,
                         float* value_scales, int64_t batch, int64_t heads, int64_t kv_heads,
                         int64_t head_dim, int64_t window, int64_t pinned, int dtype, int kv_dtype,
                         void* stream);

// Attention of one step over what the ring holds, this step included: y dtype
// [B, heads * head_dim].
//
// query, far_query, keys, values, their scales, position and held as duologue_rope_append left them
// (position has not been counted up yet). A row sees its first min(position + 1, pinned + window)
// slots, no others are read; scores are scaled by head_dim^-0.5. Query heads h share the key head
// h / (heads / kv_heads). far_query is for the first `pinned` slots; null where pinned is 0.
//
// Slots are taken in parts of DUOLOGUE_ATTENTION_PART, whose results are joined in their order.
// splits, in 1..parts where parts = ceil((pinned + window) / DUOLOGUE_ATTENTION_PART): how many
// blocks share a row's parts. The result is the same to the bit for any of them; take as many as
// fill the GPU, 1 where the batch does. With 1, workspace is null. Otherwise it is float32
// [B, heads, parts, head_dim + 2] (duologue_ring_attention_workspace of them), of any content.
//
// head_dim: even, at most 128 with float32 keys and 256 with others. Keys are read 16 bytes at a
// time (8 where they are of 8 bits) where head_dim is a multiple of 4 (float32) or 8.
int duologue_ring_attention(const float* query, const float* far_query, const void* keys,
                            const void* values, const float* key_scales, const float* value_scales,
                            const int64_t* position, const int64_t* held, const bool* active,
                            void* y, float* workspace, int64_t batch, int64_t heads,
                            int64_t kv_heads, int64_t head_dim, int64_t window, int64_t pinned,
                            int64_t splits, int dtype, int kv_dtype, void* stream);

// How many float32 its workspace has.
int64_t duologue_ring_attention_workspace(int64_t batch, int64_t heads, int64_t head_dim,
                                          int64_t window, int64_t pinned);

// Draws a token of each row as `sample` of model/sampling.py: tokens int64 [B].
//
// logits: dtype [B, vocabulary], one of each row finite, none NaN. temperature 0: the likeliest,
// the lowest of equals. Otherwise out of the top_k likeliest (0: all), of those out of the fewest
// that together reach top_p (1: all) of the probability, which is counted in whole 2^-40ths.
// uniform float64 [B] in [0, 1), as `uniforms` of model/sampling.py gives them; or null, and then
// each row's number is Philox4x32-10 (Salmon et al. 2011) under key seed[b], at the counter
// (draw[b], random_stream): seed and draw int64 [B] are the session's and how often it has drawn.
// weights int64 [B, vocabulary]: scratch; null where temperature is 0.
int duologue_sample(const void* logits, const double* uniform, const int64_t* seed,
                    const int64_t* draw, int64_t random_stream, const bool* active, int64_t* tokens,
                    int64_t* weights, int64_t batch, int64_t vocabulary, float temperature,
                    int64_t top_k, double top_p, int dtype, void* stream);

// What goes into a causal convolution's product, and what it remembers (StreamedConv of
// model/seanet_streaming.py, with_past of model/streaming.py).
//
// joined: dtype [B, past_steps + steps, channels] = past, then activation(x); past: dtype
// [B, past_steps, channels] becomes its last past_steps. x: dtype [B, steps, channels], not
// overlapping joined. started bool [B]: whether a row has had its first chunk, set here; null with
// DUOLOGUE_PAD_CONSTANT, else required: a row that has not is first given a past by pad_mode.
int duologue_conv_input(const void* x, void* past, bool* started, const bool* active, void* joined,
                        int64_t batch, int64_t steps, int64_t channels, int64_t past_steps,
                        int activation, int pad_mode, int dtype, void* stream);

// What comes out of a transposed convolution's product (overlap_add of model/streaming.py).
//
// windows: dtype [B, steps, window, channels], what each step alone adds, `hop` steps apart; y:
// dtype [B, steps * hop, channels] is their sum with `overlap` and bias (dtype [channels], or
// null). overlap: dtype [B, window - hop, channels] becomes what still waits for later steps.
// window is at least hop.
int duologue_conv_transpose_output(const void* windows, void* overlap, const void* bias,
                                   const bool* active, void* y, int64_t batch, int64_t steps,
                                   int64_t hop, int64_t window, int64_t channels, int dtype,
                                   void* stream);

// Codes of latents under a split residual quantiser (SplitQuantizer of model/quantizer.py): codes
// int64 [B, codebooks].
//
// x: dtype [B, semantic_dim + acoustic_dim]. semantic float32 [codebook_size, semantic_dim] gives
// the first code; acoustic float32 [codebooks - 1, codebook_size, acoustic_dim] the others, each
// from what those before it left over. semantic_dim 0: there is no semantic codebook, semantic is
// null and acoustic is [codebooks, ...]. square_norms float32 [codebooks, codebook_size]: of each
// vector, the sum of its squares. Of vectors as near as one another the lowest is taken.
int duologue_rvq_encode(const void* x, const float* semantic, const float* acoustic,
                        const float* square_norms, int64_t* codes, int64_t batch,
                        int64_t semantic_dim, int64_t acoustic_dim, int64_t codebook_size,
                        int64_t codebooks, int dtype, void* stream);

// Sum of one vector of each table (code and text embeddings of model/duplex.py): y dtype [B, dim].
//
// tokens int64 [B, count], negative for nothing; tables: an array in host memory of `count` device
// pointers, each dtype [rows of its own, dim]; count is 1..64. Sums are float32, rounded once.
int duologue_embedding_sum(const int64_t* tokens, const void* const* tables, void* y, int64_t batch,
                           int64_t count, int64_t dim, int dtype, void* stream);

#ifdef __cplusplus
}
#endif
