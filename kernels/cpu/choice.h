// Of integers: what sorts is compiled once, for any processor.
#pragma once

#include <cstdint>

namespace duologue {

// The rank-th largest of values [count], 1 the largest.
int64_t largest_of(const int64_t* values, int64_t count, int64_t rank);

// The smallest of the fewest, largest ones that together reach `share` of the sum.
int64_t smallest_needed(const int64_t* values, int64_t count, double share);

}  // namespace duologue
