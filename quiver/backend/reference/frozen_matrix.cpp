#include <torch/utils.h>

#include <utility>

#include "quiver/backend/reference/reference.h"

namespace quiver::backend::reference {
namespace {

class PlainLayout final : public MatrixLayout {
 public:
  explicit PlainLayout(torch::Tensor weight) : weight_(std::move(weight)) {}
  torch::Tensor product(const torch::Tensor& x, const torch::Tensor& bias, const torch::Tensor& onto) const override {
    const auto y = bias.defined() ? torch::linear(x, weight_, bias) : torch::linear(x, weight_);
    return onto.defined() ? onto + y : y;
  }
  torch::Tensor dense() const override { return weight_; }
  bool is_plain() const override { return true; }

 private:
  torch::Tensor weight_;
};

}  // namespace

std::shared_ptr<const MatrixLayout> lay_out(torch::Tensor weight) { return std::make_shared<PlainLayout>(std::move(weight)); }

}  // namespace quiver::backend::reference
