// Tensors as the pointers that the kernels take; what does not fit is refused by name.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <numeric>
#include <optional>
#include <vector>

#include "kernels.h"

namespace duologue {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
using MaybeTensor = std::optional<Tensor>;

constexpr int64_t ANY = -1;

// Where a tensor lies, on any device: checks type, layout and sizes (ANY: whatever it is).
inline void* laid_out(const Tensor& tensor, const char* name, ScalarType type,
                      std::initializer_list<int64_t> sizes) {
  STD_TORCH_CHECK(tensor.scalar_type() == type && tensor.is_contiguous(), name,
                  " must be a contiguous tensor of the type that the operator takes");
  STD_TORCH_CHECK(tensor.dim() == static_cast<int64_t>(sizes.size()), name, " has ", tensor.dim(),
                  " dimensions, must have ", sizes.size());
  int64_t axis = 0;
  for (int64_t size : sizes) {
    STD_TORCH_CHECK(size == ANY || tensor.size(axis) == size, name, " has size ",
                    tensor.size(axis), " in dimension ", axis, ", must have ", size);
    ++axis;
  }
  return tensor.data_ptr();
}

inline void* checked(const Tensor& tensor, const char* name, ScalarType type,
                     std::initializer_list<int64_t> sizes) {
  STD_TORCH_CHECK(tensor.is_cpu(), name, " must be a CPU tensor");
  return laid_out(tensor, name, type, sizes);
}

inline float* floats(const Tensor& tensor, const char* name,
                     std::initializer_list<int64_t> sizes) {
  return static_cast<float*>(checked(tensor, name, ScalarType::Float, sizes));
}

inline int64_t* integers(const Tensor& tensor, const char* name,
                         std::initializer_list<int64_t> sizes) {
  return static_cast<int64_t*>(checked(tensor, name, ScalarType::Long, sizes));
}

// Checks that all of them lie in low..high, since each is looked up somewhere.
inline const int64_t* within(const int64_t* values, int64_t count, int64_t low, int64_t high,
                             const char* name) {
  for (int64_t i = 0; i < count; ++i)
    STD_TORCH_CHECK(low <= values[i] && values[i] <= high, name, " is ", values[i],
                    ": must lie in ", low, "..", high);
  return values;
}

inline const int64_t* tokens(const Tensor& tensor, const char* name, int64_t rows,
                             int64_t vocabulary) {
  return within(integers(tensor, name, {rows}), rows, 0, vocabulary - 1, name);
}

// How many steps each row has had.
inline int64_t* positions_of(const Tensor& tensor, int64_t rows) {
  int64_t* values = integers(tensor, "position", {rows});
  within(values, rows, 0, INT64_MAX - 1, "position");
  return values;
}

inline const bool* truths(const Tensor& tensor, const char* name, int64_t rows) {
  return static_cast<const bool*>(checked(tensor, name, ScalarType::Bool, {rows}));
}

// A packed matrix, or a stack of them.
inline Weight weight(const Tensor& packed, const char* name, int64_t outputs, int64_t inputs,
                     bool is_stack = false) {
  const ScalarType type = packed.scalar_type();
  const void* data = packed.data_ptr();
  const Weight found{type == ScalarType::Float ? static_cast<const float*>(data) : nullptr,
                     type == ScalarType::Half ? static_cast<const uint16_t*>(data) : nullptr,
                     type == ScalarType::Char ? static_cast<const int8_t*>(data) : nullptr,
                     outputs, inputs};
  STD_TORCH_CHECK(found.full || found.half || found.rounded, name,
                  " must be packed as float32, float16 or int8");
  const int64_t panels = found.panels(), rows = found.panel_rows();
  if (is_stack) checked(packed, name, type, {ANY, panels, rows, PANEL});
  else checked(packed, name, type, {panels, rows, PANEL});
  return found;
}

// The rows that are active, of a batch.
class Rows {
 public:
  Rows(const MaybeTensor& active, int64_t batch) {
    const bool* is_active = nullptr;
    if (active)
      is_active = static_cast<const bool*>(checked(*active, "active", ScalarType::Bool, {batch}));
    rows_.reserve(batch);
    for (int64_t row = 0; row < batch; ++row)
      if (!is_active || is_active[row]) rows_.push_back(row);
  }

  Lanes lanes() const { return {rows_.data(), static_cast<int64_t>(rows_.size())}; }

 private:
  std::vector<int64_t> rows_;
};

// Of the same device as `like`; a row that is not active holds zeros.
inline Tensor zeros(const Tensor& like, std::initializer_list<int64_t> sizes,
                    ScalarType type = ScalarType::Float) {
  return torch::stable::new_zeros(like, sizes, type);
}

}  // namespace duologue
