#include "quiver/engine/mixed_pass.h"

#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>
#include <torch/utils.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace quiver::engine {
namespace {

class MixedUpdate final : public nn::Update, public nn::AdditiveUpdate {
 public:
  /// `place` is that of the linear map in path order.
  MixedUpdate(std::size_t place, std::shared_ptr<const PassParts> parts) : place_(place), parts_(std::move(parts)) {}

  torch::Tensor forward(const nn::Below& below, const torch::Tensor& x, const torch::Tensor& onto, const nn::Rows& rows,
                        nn::UpdateRecord&) const override {
    const auto groups = nn::row_groups(rows, x.size(0));
    if (std::ranges::none_of(parts_->parts, [&](const auto& part) { return linear_of(part.context).has_updates(); })) {
      return below.forward(x, onto);
    }
    if (x.is_cpu() && x.scalar_type() == torch::kFloat) {
      auto y = below.forward(x, onto).contiguous();
      add_to(x.contiguous(), 0, x.size(0), rows, y);
      return y;
    }
    auto y = below.forward(x, {}).contiguous();
    for (const auto& run : runs_of(groups, x.size(0))) {
      if (linear_of(run.context).has_updates()) change(*run.context, x, rows, run.begin, run.end, y);
    }
    return onto.defined() ? onto + y : y;
  }

  /// Runs are shared out among the threads, but within a parallel region.
  void add_to(const torch::Tensor& x, std::int64_t begin, std::int64_t end, const nn::Rows& rows, const torch::Tensor& y) const override {
    auto runs = runs_of(nn::row_groups(rows, end - begin), end - begin);
    std::erase_if(runs, [&](const Run& run) { return !linear_of(run.context).has_updates(); });
    const auto add = [&](std::int64_t first, std::int64_t last) {
      for (const auto& run : std::span(runs).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first))) {
        const auto part = part_of(rows, run.begin, run.end);
        for (const auto& update : linear_of(run.context).updates()) {  // load_context has seen that all are additive
          dynamic_cast<const nn::AdditiveUpdate&>(*update).add_to(x, begin + run.begin, begin + run.end, part, y);
        }
      }
    };
    if (runs.size() < 2 || at::in_parallel_region()) return add(0, std::ssize(runs));
    const at::ThreadLocalState caller;
    at::parallel_for(0, std::ssize(runs), 1, [&](std::int64_t first, std::int64_t last) {
      const at::ThreadLocalStateGuard guard(caller);
      add(first, last);
    });
  }

 private:
  const nn::Linear& linear_of(const Context* context) const { return *context->linears[place_]; }
  const Context* context_of(const std::vector<std::int32_t>& groups, std::int64_t row) const {
    return parts_->parts.at(groups.empty() ? 0 : static_cast<std::size_t>(groups[static_cast<std::size_t>(row)])).context;
  }

  /// Rows [begin, end) of one context.
  struct Run {
    const Context* context = nullptr;
    std::int64_t begin = 0, end = 0;
  };
  std::vector<Run> runs_of(const std::vector<std::int32_t>& groups, std::int64_t count) const {
    std::vector<Run> runs;
    for (std::int64_t row = 0; row < count; ++row) {
      const auto* context = context_of(groups, row);
      if (runs.empty() || runs.back().context != context) runs.push_back({context, row, row});
      runs.back().end = row + 1;
    }
    return runs;
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

  std::size_t place_;
  std::shared_ptr<const PassParts> parts_;
};

}  // namespace

model::Model mixed_model(const model::Model& base, const std::shared_ptr<const PassParts>& parts) {
  auto linears = base.linears();
  std::size_t place = 0;
  for (auto& [path, linear] : linears) linear = linear.with(std::make_shared<MixedUpdate>(place++, parts));
  return base.with_linears(std::move(linears));
}

}  // namespace quiver::engine
