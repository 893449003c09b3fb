#include "quiver/tensor/raw_data.h"

#include <torch/utils.h>

#include <sstream>

#include "quiver/base/error.h"
#include "quiver/tensor/tensor.h"

namespace quiver::tensor::detail {

void refuse_layout(const torch::Tensor& t, torch::Device device, torch::Dtype dtype, const char* what, at::OptionalIntArrayRef sizes) {
  std::ostringstream found, expected;
  found << describe(t);
  if (t.defined()) found << " with strides " << t.strides() << " on " << t.device();
  expected << c10::toString(dtype);
  if (sizes) expected << ' ' << *sizes;
  expected << " on " << device;
  fail(ErrorKind::kInternal, "{}: {}; expected a contiguous {}", what, found.str(), expected.str());
}

}  // namespace quiver::tensor::detail
