#include "quiver/engine/context.h"

#include <torch/utils.h>

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/hash.h"

namespace quiver::engine {
namespace {

/// Files may change between reading them for the key and reading them for the model.
constexpr int kMostTries = 3;

}  // namespace

Context::Context(methods::AdaptedModel m) : model(std::move(m)) {
  for (const auto& [path, linear] : model.lm.linears()) linears.push_back(&linear);
}

ContextPtr base_context(const methods::BaseModel& base) {
  return std::make_shared<Context>(methods::AdaptedModel{base.lm, nullptr, "the base"});
}

ContextPtr load_context(const methods::BaseModel& base, const methods::AdapterUse& use, Progress& progress,
                        routing::RouteObserver* observer) {
  const auto key_of = [&] { return methods::begin_run_key("context-1", base, use).hex(); };
  auto key = key_of();
  for (int i = 0; i < kMostTries; ++i) {
    auto context = std::make_shared<Context>(methods::adapted_model(base, use, progress, nullptr, observer));
    auto after = key_of();
    if (after == key) {
      context->key = std::move(key);
      context->shares_passes = can_share_passes(context->model.lm, base.lm);
      return context;
    }
    key = std::move(after);
  }
  fail(ErrorKind::kMismatch, "the files of {} change while they are read: try again once they are whole", methods::model_name(use));
}

bool can_share_passes(const model::Model& adapted, const model::Model& base) {
  const auto is_additive = [](const nn::UpdatePtr& update) { return dynamic_cast<const nn::AdditiveUpdate*>(update.get()) != nullptr; };
  return adapted.is_alike_but_for_updates(base) && std::ranges::all_of(adapted.linears(), [&](const auto& entry) {
           return std::ranges::all_of(entry.second.updates(), is_additive);
         });
}

std::shared_ptr<const DecidedContext> decide(ContextPtr context, std::span<const std::int32_t> prompt) {
  auto decided = std::make_shared<DecidedContext>();
  decided->key = context->key;
  if (context->model.chooser != nullptr) {
    const torch::InferenceMode inference;
    const std::vector<methods::Prompt> prompts = {{prompt.begin(), prompt.end()}};
    NoProgress quiet;
    decided->group = context->model.groups_of(prompts, quiet).at(0);
    const auto row = context->model.chooser->row_of(decided->group);
    const auto bytes = std::as_bytes(std::span(row));
    decided->key += "/" + sha256_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  decided->context = std::move(context);
  return decided;
}

}  // namespace quiver::engine
