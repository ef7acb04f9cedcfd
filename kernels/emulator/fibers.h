// Runs a kernel on a CPU: a fibre for each thread of a block, the blocks one after another.
//
// A fibre runs until it comes to a barrier, which opens once all that must come have come; who
// waits where is checked. A warp goes as far as it can before another does. In which order warps,
// their lanes and blocks run is decided by a seed, so what depends on an order comes out
// differently under another. Nothing else of a GPU's memory is modelled: what is written is seen at
// once, and only at a barrier does another thread run.
#pragma once

#include <cstddef>
#include <cstdint>

#include "types.h"

namespace emulator {

constexpr unsigned WARP = 32;

enum class At { RUNNING, BLOCK_BARRIER, WARP_BARRIER, END };

struct Fiber {
  dim3 index;                 // threadIdx
  unsigned lane = 0, warp = 0;
  At at = At::END;
  int line = 0;               // of the barrier that it waits at
  unsigned mask = 0;          // of the lanes that must come to it
  unsigned exchanges = 0;
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  void* sanitizer = nullptr;
};

struct Launch {
  dim3 grid, block, block_index;
};

extern Fiber* current;
extern Launch launched;

// Runs body as each thread of each block; a cudaError code. `emulator_error()` says what is wrong.
int launch(dim3 grid, dim3 block, void (*body)(const void*), const void* context);

// Says what is wrong and ends the launch; comes back only where nothing has been launched.
void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

void wait_for_block(int line);

// Puts 8 bytes down for the other lanes and waits for those in `mask` -> what each has put down.
const uint64_t* exchange(unsigned mask, uint64_t mine, int line);

// Memory that a block shares, filled with NaN when it comes to it first, with guards around it.
struct SharedMemory {
  char* memory = nullptr;
  uint64_t block = 0;
  size_t bytes = 0;
  SharedMemory* next = nullptr;
};
void* shared_memory(SharedMemory& memory, size_t bytes);

template <class Array>
struct Shared {
  SharedMemory memory;
  Array& here() { return *static_cast<Array*>(shared_memory(memory, sizeof(Array))); }
};

}  // namespace emulator
