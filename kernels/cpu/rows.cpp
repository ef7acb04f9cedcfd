// Moving and adding rows, and hashing numbers: nothing that wider instructions would do faster.
#include <cstring>

#include "kernels.h"

namespace duologue {
namespace {

// Of Steele, Lea and Flood (2014), as in model/sampling.py.
constexpr uint64_t STEP = 0x9E3779B97F4A7C15;

uint64_t mixed(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB;
  return bits ^ (bits >> 31);
}

}  // namespace

void gather_rows(const char* from, int64_t bytes, const int64_t* rows, int64_t count, char* to) {
  for (int64_t n = 0; n < count; ++n) std::memcpy(to + n * bytes, from + rows[n] * bytes, bytes);
}

void scatter_rows(const char* from, int64_t bytes, const int64_t* rows, int64_t count, char* to) {
  for (int64_t n = 0; n < count; ++n) std::memcpy(to + rows[n] * bytes, from + n * bytes, bytes);
}

double uniform(int64_t seed, int64_t counter, int64_t stream) {
  const uint64_t key = mixed(mixed(uint64_t(seed) + STEP) + uint64_t(stream));
  return double(mixed(key + (uint64_t(counter) + 1) * STEP) >> 11) * 0x1p-53;
}

void sum_codes(const int64_t* codes, int64_t count, const float* books, int64_t size, int64_t dim,
               float* y) {
  for (int64_t i = 0; i < count; ++i) {
    const float* vector = books + (i * size + codes[i]) * dim;
    for (int64_t d = 0; d < dim; ++d) y[d] = i ? y[d] + vector[d] : vector[d];
  }
}

}  // namespace duologue
