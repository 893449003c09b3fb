#include <torch/utils.h>

#include <utility>

#include "quiver/backend/reference/columns.h"

namespace quiver::backend::reference {
namespace {

class PlainLayout final : public MatrixLayout {
 public:
  explicit PlainLayout(Tensor weight) : weight_(std::move(weight)) {}
  Tensor product(const Tensor& x, const Tensor& bias, const Tensor& onto) const override {
    const auto y = bias.defined() ? torch::linear(x, weight_, bias) : torch::linear(x, weight_);
    return onto.defined() ? onto + y : y;
  }
  Tensor dense() const override { return weight_; }
  bool is_plain() const override { return true; }

 private:
  Tensor weight_;
};

std::shared_ptr<const MatrixLayout> lay_out(const Tensor& weight) { return std::make_shared<PlainLayout>(weight); }

}  // namespace

void add_frozen_matrix(Ops& column) { column.lay_out = lay_out; }

}  // namespace quiver::backend::reference
