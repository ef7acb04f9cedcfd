// The fibres of fibers.h, for x86-64.
#include "fibers.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#define SANITIZER(call) call
#define GUARD_BYTES 0  // it has its own
#else
#define SANITIZER(call)
#define GUARD_BYTES 64
#endif

namespace emulator {

Fiber* current = nullptr;
Launch launched;

namespace {

constexpr size_t STACK = 64 << 10, GUARD = GUARD_BYTES;
constexpr size_t MOST_SHARED = 48 << 10;
constexpr unsigned MOST_THREADS = 1024;
constexpr char POISON = char(0xff);  // a NaN in every type of float
constexpr int FAILED = 999, INVALID_CONFIGURATION = 9;  // cudaErrorUnknown, -InvalidConfiguration

std::vector<Fiber> fibers;
std::vector<uint64_t> exchanged;  // [warps, 2, 32]: what is put down for one exchange and the next
void (*thread_body)(const void*);
const void* thread_context;
char error[256];
uint64_t seed, random_state, block_count;
SharedMemory* shared_list;  // of this block

void* main_stack_pointer;
[[maybe_unused]] void* main_sanitizer;
[[maybe_unused]] const void* main_stack;
[[maybe_unused]] size_t main_stack_size;

uint64_t random_below(uint64_t bound) {  // Steele, Lea and Flood (2014)
  uint64_t bits = random_state += 0x9E3779B97F4A7C15;
  bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9;
  bits = (bits ^ bits >> 27) * 0x94D049BB133111EB;
  return (bits ^ bits >> 31) % bound;
}

// Seed 0: as they come, 1: the other way round, others: at random.
void put_in_order(std::vector<unsigned>& order) {
  if (seed == 1)
    for (size_t i = 0; i < order.size(); ++i) order[i] = unsigned(order.size() - 1 - i);
  if (seed > 1)
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_below(i)]);
}

// Keeps what a call must keep on this stack and goes on with what is kept on the other.
__attribute__((naked, noinline)) void switch_stacks(void** /*from*/, void* /*to*/) {
  asm volatile(
      "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
}

void leave() {
  Fiber& fiber = *current;
  SANITIZER(__sanitizer_start_switch_fiber(fiber.at == At::END ? nullptr : &fiber.sanitizer,
                                           main_stack, main_stack_size));
  switch_stacks(&fiber.stack_pointer, main_stack_pointer);
  SANITIZER(__sanitizer_finish_switch_fiber(fiber.sanitizer, &main_stack, &main_stack_size));
}

void enter(Fiber& fiber) {
  current = &fiber;
  SANITIZER(__sanitizer_start_switch_fiber(&main_sanitizer, fiber.stack, STACK));
  switch_stacks(&main_stack_pointer, fiber.stack_pointer);
  SANITIZER(__sanitizer_finish_switch_fiber(main_sanitizer, nullptr, nullptr));
  current = nullptr;
}

void begin_thread() {
  SANITIZER(__sanitizer_finish_switch_fiber(nullptr, &main_stack, &main_stack_size));
  thread_body(thread_context);
  current->at = At::END;
  leave();
}

void reset(Fiber& fiber, unsigned thread) {
  const dim3& size = launched.block;
  fiber.index = {thread % size.x, thread / size.x % size.y, thread / (size.x * size.y)};
  fiber.lane = thread % WARP;
  fiber.warp = thread / WARP;
  fiber.at = At::RUNNING;
  fiber.exchanges = 0;
  fiber.sanitizer = nullptr;
  if (!fiber.stack) fiber.stack = static_cast<char*>(std::malloc(STACK));
  std::memset(fiber.stack, POISON, GUARD);
  void** top = reinterpret_cast<void**>(fiber.stack + STACK - STACK % 16);
  *--top = nullptr;  // where begin_thread would return to
  *--top = reinterpret_cast<void*>(&begin_thread);
  fiber.stack_pointer = top - 6;  // the registers that switch_stacks takes from it
}

bool is_poison(const char* bytes, size_t count) {
  for (size_t i = 0; i < count; ++i)
    if (bytes[i] != POISON) return false;
  return true;
}

// Opens the barrier at which a lane waits, none of its warp being able to go on.
void open_warp_barrier(Fiber* warp, size_t lanes, const Fiber& first) {
  const unsigned mask = first.mask;
  for (unsigned lane = 0; lane < WARP; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (lane >= lanes || warp[lane].at == At::END)
      return fail("line %d: lane %u is in the mask and has returned", first.line, lane);
    const Fiber& other = warp[lane];
    if (other.at != At::WARP_BARRIER || other.mask != mask || other.line != first.line)
      return fail("line %d: lane %u waits at line %d", first.line, lane, other.line);
  }
  for (unsigned lane = 0; lane < lanes; ++lane)
    if (mask >> lane & 1) warp[lane].at = At::RUNNING;
}

// Runs a warp until all of it waits for the block, or has returned.
void run_warp(Fiber* warp, size_t lanes) {
  std::vector<unsigned> order(lanes);
  for (unsigned i = 0; i < lanes; ++i) order[i] = i;
  for (bool any = true; any;) {
    any = false;
    put_in_order(order);
    for (unsigned i : order)
      if (warp[i].at == At::RUNNING) {
        enter(warp[i]);
        if (error[0]) return;
      }
    for (size_t i = 0; i < lanes && !error[0]; ++i)
      if (warp[i].at == At::WARP_BARRIER) {
        open_warp_barrier(warp, lanes, warp[i]);
        any = true;
      }
    if (error[0]) return;
  }
}

// Opens the block's barrier; whether any thread is left.
bool open_block_barrier() {
  const Fiber* first = nullptr;
  size_t ended = 0;
  for (Fiber& fiber : fibers) {
    if (fiber.at == At::END) ++ended;
    else if (!first) first = &fiber;
    else if (fiber.line != first->line)
      fail("__syncthreads at line %d and at line %d", first->line, fiber.line);
  }
  if (!first) return false;
  if (ended) fail("line %d: %zu threads of the block have returned", first->line, ended);
  for (Fiber& fiber : fibers) fiber.at = At::RUNNING;
  return true;
}

void check_guards() {
  for (const SharedMemory* each = shared_list; each; each = each->next)
    if (!is_poison(each->memory, GUARD) || !is_poison(each->memory + GUARD + each->bytes, GUARD))
      fail("written beside shared memory of %zu bytes", each->bytes);
  for (const Fiber& fiber : fibers)
    if (!is_poison(fiber.stack, GUARD)) fail("a thread's stack is too small");
}

// One warp after the other goes as far as it can: what another should have waited for is missed.
void run_block() {
  ++block_count;
  shared_list = nullptr;
  for (unsigned i = 0; i < fibers.size(); ++i) reset(fibers[i], i);
  std::memset(exchanged.data(), POISON, exchanged.size() * sizeof exchanged[0]);
  std::vector<unsigned> order((fibers.size() + WARP - 1) / WARP);
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  do {
    put_in_order(order);
    for (unsigned i : order) {
      run_warp(&fibers[i * WARP], std::min<size_t>(WARP, fibers.size() - i * WARP));
      if (error[0]) return;
    }
  } while (open_block_barrier() && !error[0]);
  check_guards();
}

}  // namespace

void fail(const char* format, ...) {
  if (!error[0]) {
    va_list values;
    va_start(values, format);
    std::vsnprintf(error, sizeof error, format, values);
    va_end(values);
  }
  if (current) leave();
}

void wait_for_block(int line) {
  current->at = At::BLOCK_BARRIER;
  current->line = line;
  leave();
}

const uint64_t* exchange(unsigned mask, uint64_t mine, int line) {
  Fiber& fiber = *current;
  if (!(mask >> fiber.lane & 1)) fail("line %d: a lane that is not in its own mask", line);
  uint64_t* all = &exchanged[(fiber.warp * 2 + fiber.exchanges++ % 2) * WARP];
  all[fiber.lane] = mine;
  fiber.at = At::WARP_BARRIER;
  fiber.line = line;
  fiber.mask = mask;
  leave();
  return all;
}

void* shared_memory(SharedMemory& memory, size_t bytes) {
  if (memory.block != block_count) {
    memory.block = block_count;
    memory.bytes = bytes;
    if (!memory.memory) memory.memory = static_cast<char*>(std::malloc(bytes + 2 * GUARD));
    std::memset(memory.memory, POISON, bytes + 2 * GUARD);
    memory.next = shared_list;
    shared_list = &memory;
    size_t together = 0;
    for (const SharedMemory* each = shared_list; each; each = each->next) together += each->bytes;
    if (together > MOST_SHARED) fail("%zu bytes of shared memory", together);
  }
  return memory.memory + GUARD;
}

int launch(dim3 grid, dim3 block, void (*body)(const void*), const void* context) {
  error[0] = 0;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > MOST_THREADS || blocks == 0 || grid.x > INT32_MAX ||
      grid.y > UINT16_MAX || grid.z > UINT16_MAX) {
    fail("a grid of %u x %u x %u blocks of %u threads", grid.x, grid.y, grid.z, unsigned(threads));
    return INVALID_CONFIGURATION;
  }
  launched = {grid, block, {}};
  thread_body = body;
  thread_context = context;
  random_state = seed;
  for (size_t i = threads; i < fibers.size(); ++i) std::free(fibers[i].stack);
  fibers.resize(threads);
  exchanged.resize((threads + WARP - 1) / WARP * 2 * WARP);
  std::vector<unsigned> order(blocks);
  for (unsigned i = 0; i < blocks; ++i) order[i] = i;
  put_in_order(order);
  for (unsigned i : order) {
    launched.block_index = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
    run_block();
    if (error[0]) return FAILED;
  }
  return 0;
}

}  // namespace emulator

extern "C" void emulator_seed(uint64_t seed) { emulator::seed = seed; }

// What went wrong in the last launch; empty where nothing did.
extern "C" const char* emulator_error() { return emulator::error; }
