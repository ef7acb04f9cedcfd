// The functions that are compiled for each set of instructions.
#pragma once

#include "kernels.h"

namespace duologue::ISA {

void linear_rows(const Linear& args);
void transformer_step(const TransformerStep& step);
void conv_next(const ConvNext& args);
void log_mel(const LogMel& args);
void voice(const Voice& args);
void pointer_step(const PointerStep& step);
void log_probabilities(const LogProbabilities& args);
void frame_input(const FrameInput& args);
void depth_generate(const Depth& args);
void sample(const Sample& args);
void reader_step(const Reader& args);
void speech_input(const SpeechInput& args);

extern const Kernels table;

}  // namespace duologue::ISA
