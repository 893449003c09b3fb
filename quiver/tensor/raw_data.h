// A tensor's memory as the element type of a kernel.
#pragma once

#include <torch/types.h>

namespace quiver::tensor {

/// The elements as T, which must have the size and meaning of the tensor's dtype (a kernel's own bfloat16): not checked.
template <typename T>
const T* raw_data(const torch::Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <typename T>
T* mutable_raw_data(const torch::Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

}  // namespace quiver::tensor
