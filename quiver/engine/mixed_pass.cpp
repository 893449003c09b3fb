#include "quiver/engine/mixed_pass.h"

#include <torch/utils.h>

#include <algorithm>
#include <string>
#include <utility>

namespace quiver::engine {
namespace {

class MixedUpdate final : public nn::Update, public nn::AdditiveUpdate {
 public:
  MixedUpdate(std::string path, std::shared_ptr<const PassParts> parts) : path_(std::move(path)), parts_(std::move(parts)) {}

  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord&) const override {
    const auto groups = nn::row_groups(rows, x.size(0));
    if (std::ranges::none_of(parts_->parts, [&](const auto& part) { return linear_of(part.context).has_updates(); })) {
      return below.forward(x, onto);
    }
    auto y = below.forward(x, {}).contiguous();
    for_runs(groups, x.size(0), [&](const Context& context, std::int64_t begin, std::int64_t end) {
      if (linear_of(&context).has_updates()) change(context, x, rows, begin, end, y);
    });
    return onto.defined() ? onto + y : y;
  }

  void add_to(const torch::Tensor& x, const nn::Rows& rows, const torch::Tensor& y) const override {
    const auto groups = nn::row_groups(rows, x.size(0));
    for_runs(groups, x.size(0), [&](const Context& context, std::int64_t begin, std::int64_t end) {
      for (const auto& update : linear_of(&context).updates()) {  // load_context has seen that all are additive
        dynamic_cast<const nn::AdditiveUpdate&>(*update).add_to(x.narrow(0, begin, end - begin), part_of(rows, begin, end),
                                                                y.narrow(0, begin, end - begin));
      }
    });
  }

 private:
  const nn::Linear& linear_of(const Context* context) const { return context->model.lm.linears().at(path_); }
  const Context* context_of(const std::vector<std::int32_t>& groups, std::int64_t row) const {
    return parts_->parts.at(groups.empty() ? 0 : static_cast<std::size_t>(groups[static_cast<std::size_t>(row)])).context;
  }

  /// Calls f(context, begin, end) for runs of rows of one context.
  template <typename F>
  void for_runs(const std::vector<std::int32_t>& groups, std::int64_t count, const F& f) const {
    for (std::int64_t begin = 0; begin < count;) {
      const auto* context = context_of(groups, begin);
      auto end = begin + 1;
      while (end < count && context_of(groups, end) == context) ++end;
      f(*context, begin, end);
      begin = end;
    }
  }

  /// Rows [begin, end) of those of a call, with their groups in their context.
  nn::Rows part_of(const nn::Rows& rows, std::int64_t begin, std::int64_t end) const {
    return {.first_row = rows.first_row + begin,
            .index = rows.index.defined() ? rows.index.narrow(0, begin, end - begin) : torch::Tensor(),
            .groups = parts_->groups.data()};
  }

  /// y[begin, end), products of the map below, becomes what the context makes of it.
  void change(const Context& context, const torch::Tensor& x, const nn::Rows& rows, std::int64_t begin, std::int64_t end,
              torch::Tensor& y) const {
    nn::LinearRecord record;
    auto part = y.narrow(0, begin, end - begin);
    const auto below = nn::known_product(part, x.size(1));
    const auto changed = linear_of(&context).over(below).forward(x.narrow(0, begin, end - begin), {}, part_of(rows, begin, end), record);
    if (!changed.is_same(part)) part.copy_(changed);  // an update may write into the product that it is given
  }

  std::string path_;
  std::shared_ptr<const PassParts> parts_;
};

}  // namespace

model::Model mixed_model(const model::Model& base, const std::shared_ptr<const PassParts>& parts) {
  auto linears = base.linears();
  for (auto& [path, linear] : linears) linear = linear.with(std::make_shared<MixedUpdate>(path, parts));
  return base.with_linears(std::move(linears));
}

}  // namespace quiver::engine
