// A stack of causal ConvNeXt blocks over a few steps of each row.
#include "isa.h"
#include "linear.h"
#include "scratch.h"

namespace duologue::ISA {
namespace {

// x [steps, channels] of one row behind its past -> normed [steps, channels]; remembers the next.
void depthwise(const ConvNext& args, const ConvBlock& block, int64_t row, const float* x,
               float* normed) {
  Scratch scratch;
  const int64_t channels = args.channels, before = args.kernel - 1;
  float* all_steps = scratch.floats((before + args.steps) * channels);
  float* past = block.past + row * before * channels;
  float* y = scratch.floats(channels);
  __builtin_memcpy(all_steps, past, before * channels * sizeof(float));
  __builtin_memcpy(all_steps + before * channels, x, args.steps * channels * sizeof(float));
  __builtin_memcpy(past, all_steps + args.steps * channels, before * channels * sizeof(float));
  for (int64_t t = 0; t < args.steps; ++t) {
    for (int64_t c = 0; c < channels; c += LANES) {
      const int64_t left = channels - c;
      Vector total = load_some(block.depthwise_bias + c, left);
      for (int64_t k = 0; k < args.kernel; ++k)
        total += load_some(all_steps + (t + k) * channels + c, left) *
                 load_some(block.depthwise + k * channels + c, left);
      store_some(y + c, total, left);
    }
    layer_norm(y, block.norm, channels, normed + t * channels);
  }
}

}  // namespace

void conv_next(const ConvNext& args) {
  Scratch scratch;
  const int64_t rows = args.lanes.count * args.steps, channels = args.channels;
  const int64_t size = args.steps * channels, hidden = args.hidden;
  float *x = scratch.floats(rows * channels), *normed = scratch.floats(rows * channels);
  float* expanded = scratch.floats(rows * hidden);
  for (int64_t n = 0; n < args.lanes.count; ++n)
    __builtin_memcpy(x + n * size, args.x + args.lanes.rows[n] * size, size * sizeof(float));
  for (int64_t i = 0; i < args.block_count; ++i) {
    const ConvBlock& block = args.blocks[i];
    parallel(args.lanes.count, 8, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        depthwise(args, block, args.lanes.rows[n], x + n * size, normed + n * size);
    });
    linear(block.expand, normed, rows, [&](int64_t row, int64_t column, Vector v) {
      const int64_t left = hidden - column;
      v = gelu_tanh(v + load_some(block.expand_bias + column, left));
      store_some(expanded + row * hidden + column, v, left);
    });
    linear(block.project, expanded, rows, [&](int64_t row, int64_t column, Vector v) {
      const int64_t left = channels - column;
      float* to = x + row * channels + column;
      v = (v + load_some(block.project_bias + column, left)) * load_some(block.scale + column, left);
      store_some(to, load_some(to, left) + v, left);
    });
  }
  for (int64_t n = 0; n < args.lanes.count; ++n)
    __builtin_memcpy(args.y + args.lanes.rows[n] * size, x + n * size, size * sizeof(float));
}

}  // namespace duologue::ISA
