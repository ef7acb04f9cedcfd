#include "scratch.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace duologue {
namespace {

constexpr int64_t ALIGNMENT = 64, LEAST_BYTES = 1 << 20;

struct Freed {
  void operator()(void* memory) const { std::free(memory); }
};

struct Block {
  std::unique_ptr<char, Freed> memory;
  int64_t size;
};

struct Blocks {
  std::vector<Block> blocks;
  int64_t block = 0, used = 0;  // where the next bytes come from
};

thread_local Blocks all;

}  // namespace

Scratch::Scratch() : block_(all.block), used_(all.used) {}

Scratch::~Scratch() {
  all.block = block_;
  all.used = used_;
}

void* Scratch::take(int64_t bytes) {
  bytes = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;  // and a vector's width behind the last one
  bytes += ALIGNMENT;
  while (all.block < static_cast<int64_t>(all.blocks.size()) &&
         all.used + bytes > all.blocks[all.block].size) {
    ++all.block;
    all.used = 0;
  }
  if (all.block == static_cast<int64_t>(all.blocks.size())) {
    const int64_t size = (std::max(bytes, LEAST_BYTES) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    auto* memory = static_cast<char*>(std::aligned_alloc(ALIGNMENT, size));
    if (!memory) throw std::bad_alloc();
    all.blocks.push_back({std::unique_ptr<char, Freed>(memory), size});
  }
  char* taken = all.blocks[all.block].memory.get() + all.used;
  all.used += bytes;
  return taken;
}

}  // namespace duologue
