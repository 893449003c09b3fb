#include "quiver/engine/mixed_pass.h"

#include <torch/utils.h>

#include <algorithm>
#include <string>
#include <utility>

namespace quiver::engine {
namespace {

class MixedUpdate final : public nn::Update {
 public:
  MixedUpdate(std::string path, std::shared_ptr<const PassParts> parts) : path_(std::move(path)), parts_(std::move(parts)) {}

  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord&) const override {
    const auto groups = nn::row_groups(rows, x.size(0));
    if (std::ranges::none_of(parts_->parts, [&](const auto& part) { return linear_of(part.context).has_updates(); })) {
      return below.forward(x, onto);
    }
    auto y = below.forward(x, {}).contiguous();
    const auto count = x.size(0);
    for (std::int64_t begin = 0; begin < count;) {
      const auto* context = context_of(groups, begin);
      auto end = begin + 1;
      while (end < count && context_of(groups, end) == context) ++end;
      add_updates(*context, x, rows, begin, end, y);
      begin = end;
    }
    return onto.defined() ? onto + y : y;
  }

 private:
  const nn::Linear& linear_of(const Context* context) const { return context->model.lm.linears().at(path_); }
  const PassParts::Part& part_of(const std::vector<std::int32_t>& groups, std::int64_t row) const {
    return parts_->parts.at(groups.empty() ? 0 : static_cast<std::size_t>(groups[static_cast<std::size_t>(row)]));
  }
  const Context* context_of(const std::vector<std::int32_t>& groups, std::int64_t row) const { return part_of(groups, row).context; }

  /// y[begin, end) becomes what the context makes of it.
  void add_updates(const Context& context, const torch::Tensor& x, const nn::Rows& rows, std::int64_t begin, std::int64_t end,
                   torch::Tensor& y) const {
    const auto& linear = linear_of(&context);
    if (!linear.has_updates()) return;
    const nn::Rows some{.first_row = rows.first_row + begin,
                        .index = rows.index.defined() ? rows.index.narrow(0, begin, end - begin) : torch::Tensor(),
                        .groups = parts_->groups.data()};
    nn::LinearRecord record;
    auto part = y.narrow(0, begin, end - begin);
    // An update may write into the product that it is given.
    const auto changed = linear.over(nn::known_product(part, x.size(1))).forward(x.narrow(0, begin, end - begin), {}, some, record);
    if (!changed.is_same(part)) part.copy_(changed);
  }

  std::string path_;
  std::shared_ptr<const PassParts> parts_;
};

}  // namespace

model::Model mixed_model(const model::Model& base, std::shared_ptr<const PassParts> parts) {
  auto linears = base.linears();
  for (auto& [path, linear] : linears) linear = linear.with(std::make_shared<MixedUpdate>(path, parts));
  return base.with_linears(std::move(linears));
}

}  // namespace quiver::engine
