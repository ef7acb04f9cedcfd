#include "choice.h"

#include <algorithm>
#include <functional>
#include <vector>

namespace duologue {

int64_t largest_of(const int64_t* values, int64_t count, int64_t rank) {
  std::vector<int64_t> copy(values, values + count);
  std::nth_element(copy.begin(), copy.begin() + rank - 1, copy.end(), std::greater<>());
  return copy[rank - 1];
}

int64_t smallest_needed(const int64_t* values, int64_t count, double share) {
  std::vector<int64_t> copy(values, values + count);
  std::sort(copy.begin(), copy.end(), std::greater<>());
  int64_t total = 0, before = 0;
  for (int64_t value : copy) total += value;
  int64_t needed = 0;
  for (; needed < count; ++needed) {
    if (!(double(before) < share * double(total))) break;
    before += copy[needed];
  }
  return copy[needed > 0 ? needed - 1 : count - 1];
}

}  // namespace duologue
