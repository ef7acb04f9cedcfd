// Memory for what lies between two steps of an operator; kept for the next call by the same thread.
#pragma once

#include <cstdint>

namespace duologue {

// What is taken through one is given back at its end. What is taken holds anything.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  float* floats(int64_t count) { return static_cast<float*>(take(count * sizeof(float))); }
  int64_t* integers(int64_t count) { return static_cast<int64_t*>(take(count * sizeof(int64_t))); }

 private:
  void* take(int64_t bytes);
  int64_t block_, used_;
};

}  // namespace duologue
