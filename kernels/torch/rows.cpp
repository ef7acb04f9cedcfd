// Rows of states, random numbers and vectors of codes, as torch sees them.
#include <tuple>

#include "tensors.h"

namespace duologue {
namespace {

int64_t bytes_of_row(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.is_contiguous() && tensor.is_cpu() && tensor.dim() > 0,
                  "rows are those of contiguous CPU tensors");
  int64_t bytes = static_cast<int64_t>(tensor.element_size());
  for (int64_t axis = 1; axis < tensor.dim(); ++axis) bytes *= tensor.size(axis);
  return bytes;
}

const int64_t* rows_within(const Tensor& rows, const Tensor& tensor) {
  const int64_t count = rows.size(0);
  return within(integers(rows, "rows", {count}), count, 0, tensor.size(0) - 1, "row");
}

Tensors gathered(Tensors tensors, const Tensor& rows) {
  Tensors parts;
  for (const Tensor& tensor : tensors) {
    std::vector<int64_t> sizes(tensor.sizes().begin(), tensor.sizes().end());
    sizes[0] = rows.size(0);
    parts.push_back(torch::stable::new_empty(tensor, sizes));
    gather_rows(static_cast<const char*>(tensor.data_ptr()), bytes_of_row(tensor),
                rows_within(rows, tensor), sizes[0], static_cast<char*>(parts.back().data_ptr()));
  }
  return parts;
}

void scattered(Tensors tensors, const Tensor& rows, Tensors parts) {
  STD_TORCH_CHECK(tensors.size() == parts.size(), "there must be a part for each tensor");
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t bytes = bytes_of_row(tensors[i]);
    STD_TORCH_CHECK(bytes_of_row(parts[i]) == bytes && parts[i].size(0) == rows.size(0) &&
                        parts[i].scalar_type() == tensors[i].scalar_type(),
                    "a part must have a row for each of `rows`, like those of its tensor");
    scatter_rows(static_cast<const char*>(parts[i].data_ptr()), bytes,
                 rows_within(rows, tensors[i]), rows.size(0),
                 static_cast<char*>(tensors[i].data_ptr()));
  }
}

Tensor uniforms(const Tensor& seed, const Tensor& counter, const Tensor& streams) {
  const int64_t rows = seed.size(0), count = streams.size(0);
  const int64_t *seeds = integers(seed, "seed", {rows}), *of = integers(streams, "streams", {count});
  const int64_t* counters = integers(counter, "counter", {rows});
  Tensor numbers = torch::stable::new_empty(seed, {rows, count}, ScalarType::Double);
  double* to = static_cast<double*>(numbers.data_ptr());
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < count; ++i)
      to[row * count + i] = uniform(seeds[row], counters[row], of[i]);
  return numbers;
}

std::tuple<Tensor, Tensor> code_vectors(const Tensor& codes, const Tensor& semantic,
                                        const Tensor& acoustic) {
  const int64_t rows = codes.size(0), count = codes.size(1), size = semantic.size(0);
  const int64_t first_dim = semantic.size(1), dim = acoustic.size(2);
  const int64_t* values = integers(codes, "codes", {rows, count});
  within(values, rows * count, 0, size - 1, "code");
  const float* first = floats(semantic, "semantic_codebook", {size, first_dim});
  const float* books = floats(acoustic, "acoustic_codebooks", {count - 1, size, dim});
  Tensor one = torch::stable::new_empty(semantic, {rows, first_dim});
  Tensor rest = torch::stable::new_empty(semantic, {rows, dim});
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t* of = values + row * count;
    sum_codes(of, 1, first, size, first_dim, static_cast<float*>(one.data_ptr()) + row * first_dim);
    sum_codes(of + 1, count - 1, books, size, dim, static_cast<float*>(rest.data_ptr()) + row * dim);
  }
  return {one, rest};
}

STABLE_TORCH_LIBRARY_FRAGMENT(duologue, m) {
  m.def("gather_rows(Tensor[] tensors, Tensor rows) -> Tensor[]");
  m.def("scatter_rows(Tensor(a!)[] tensors, Tensor rows, Tensor[] parts) -> ()");
  m.def("uniforms(Tensor seed, Tensor counter, Tensor streams) -> Tensor");
  m.def("code_vectors(Tensor codes, Tensor semantic, Tensor acoustic) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(duologue, CPU, m) {
  m.impl("gather_rows", TORCH_BOX(&gathered));
  m.impl("scatter_rows", TORCH_BOX(&scattered));
  m.impl("uniforms", TORCH_BOX(&uniforms));
  m.impl("code_vectors", TORCH_BOX(&code_vectors));
}

}  // namespace
}  // namespace duologue
