// Which instructions are used: the widest that this processor has.
#include <atomic>
#include <cstring>

#include "kernels.h"

namespace duologue {

namespace baseline {
extern const Kernels table;
}
#ifdef DUOLOGUE_X86
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
namespace avx512vnni {
extern const Kernels table;
}
#endif

namespace {

bool can(const Kernels* table) {
#ifdef DUOLOGUE_X86
  if (table == &avx512vnni::table)
    return can(&avx512::table) && __builtin_cpu_supports("avx512vnni");
  if (table == &avx512::table)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma");
  if (table == &avx2::table)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
#endif
  return true;
}

constexpr const Kernels* TABLES[] = {
#ifdef DUOLOGUE_X86
    &avx512vnni::table, &avx512::table, &avx2::table,
#endif
    &baseline::table};

const Kernels* best() {
  for (const Kernels* table : TABLES)
    if (can(table)) return table;
  return &baseline::table;
}

std::atomic<const Kernels*> chosen = nullptr;

}  // namespace

const Kernels& kernels() {
  const Kernels* table = chosen.load(std::memory_order_relaxed);
  if (!table) chosen.store(table = best(), std::memory_order_relaxed);
  return *table;
}

}  // namespace duologue

// For tests: takes these instructions from now on, "" the best; false where they can't be had.
extern "C" __attribute__((visibility("default"))) bool duologue_use(const char* name) {
  using namespace duologue;
  for (const Kernels* table : TABLES)
    if (can(table) && (!*name || !std::strcmp(name, table->name))) {
      chosen.store(table, std::memory_order_relaxed);
      return true;
    }
  return false;
}

extern "C" __attribute__((visibility("default"))) const char* duologue_instructions() {
  return duologue::kernels().name;
}
