// A layer by itself, and the table of all functions for these instructions.
#include "isa.h"
#include "linear.h"
#include "scratch.h"

namespace duologue::ISA {

void linear_rows(const Linear& args) {
  Scratch scratch;
  const int64_t inputs = args.weight.inputs, outputs = args.weight.outputs;
  const float* x = args.x;
  if (args.norm) {
    float* normed = scratch.floats(args.rows * inputs);
    for (int64_t r = 0; r < args.rows; ++r)
      layer_norm(x + r * inputs, *args.norm, inputs, normed + r * inputs);
    x = normed;
  }
  linear(args.weight, x, args.rows, [&](int64_t row, int64_t column, Vector v) {
    const int64_t left = outputs - column;
    if (args.bias) v += load_some(args.bias + column, left);
    store_some(args.y + row * outputs + column, v, left);
  });
}

#define STRING(name) #name
#define NAME(name) STRING(name)

const Kernels table = {NAME(ISA), linear_rows,
                       transformer_step, conv_next, log_mel, voice,
                       pointer_step, log_probabilities, frame_input, depth_generate,
                       sample, reader_step, speech_input};

}  // namespace duologue::ISA
