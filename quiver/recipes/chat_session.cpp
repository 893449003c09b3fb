#include "quiver/recipes/chat_session.h"

#include <algorithm>
#include <map>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/methods/table.h"

namespace quiver::recipes {
namespace {

const methods::BaseModel& that_chats(const methods::BaseModel& base) {
  if (base.format.chat) return base;  // NOLINT(bugprone-return-const-ref-from-parameter): the session refers to it for all its life
  fail(ErrorKind::kUsage, "the base '{}' has no chat template: it continues text ('quiver generate'), it does not chat",
       base.path.string());
}

}  // namespace

ChatSession::ChatSession(const methods::BaseModel& base, methods::AdapterUse use, schedule::RequestOptions options, Progress& progress)
    : base_(that_chats(base)),
      use_(std::move(use)),
      options_(std::move(options)),
      model_(methods::adapted_model(base_, use_, progress, recorder_.get())) {
  options_.stop_ids = data::stop_ids(base.tokenizer, base.format);
}

void ChatSession::set_method(const methods::MethodUse& method, Progress& progress) {
  if (use_.source.library.empty()) fail(ErrorKind::kUsage, "a method says how to use a library: start with `library`");
  auto changed = use_;
  changed.method = method;
  auto recorder = std::make_unique<routing::RoutingRecorder>();
  model_ = methods::adapted_model(base_, changed, progress, recorder.get());
  recorder_ = std::move(recorder);
  use_ = std::move(changed);
}

ChatAnswer ChatSession::answer(const std::string& message, const TextCallback& on_text, Progress& progress, StopToken stop) {
  ChatAnswer answer;
  auto messages = messages_;
  messages.push_back({"user", message});
  const auto room = base_.lm.spec().max_positions - options_.max_new_tokens;
  auto prompt = data::encode_messages(base_.tokenizer, base_.format, messages, "");
  while (static_cast<std::int64_t>(prompt.size()) > room && messages.size() > 2) {  // the oldest question and its answer
    messages.erase(messages.begin(), messages.begin() + 2);
    answer.num_forgotten += 2;
    prompt = data::encode_messages(base_.tokenizer, base_.format, messages, "");
  }
  if (static_cast<std::int64_t>(prompt.size()) > room) {
    fail(ErrorKind::kUsage, "the message takes {} tokens; the model's context is {}, {} of them for the answer", prompt.size(),
         base_.lm.spec().max_positions, options_.max_new_tokens);
  }
  recorder_->clear();
  const std::vector<methods::Prompt> prompts = {prompt};
  const model::GenerateOptions options{
      .groups = model_.groups_of(prompts, progress), .names = {model_.name, {"the message"}}, .stop = stop};
  text::StreamDecoder decoder(base_.tokenizer, /*skip_special=*/true);
  const auto say = [&](const std::string& piece) {
    answer.text += piece;
    return piece.empty() || on_text(piece);
  };
  const auto ids = model::generate(model_.lm, prompts, options_, options, [&](std::int64_t, std::int32_t token) {
    const bool goes_on = say(decoder.push(token));
    answer.was_stopped = !goes_on || stop.stop_requested();
    return goes_on;
  });
  say(decoder.finish());
  answer.num_tokens = static_cast<std::int64_t>(ids[0].size());
  messages.push_back({"assistant", answer.text});
  messages_ = std::move(messages);
  return answer;
}

std::vector<AdapterShare> ChatSession::shares() const {
  if (messages_.empty()) return {};
  if (use_.source.library.empty()) return {{use_.source.adapter.empty() ? "base" : use_.source.adapter, 1}};
  if (use_.method.row().family == methods::Family::kMerge) return {{methods::text_of(use_.method), 1}};
  auto names = methods::library_members(library::Library::open(use_.source.library), use_.source);
  std::vector<double> weights(names.size(), 0);
  double tokens = 0;
  for (const auto& [tag, by_path] : recorder_->usage()) {
    for (const auto& [path, usage] : by_path) {
      weights.resize(std::max(weights.size(), usage.weight.size()), 0);
      for (std::size_t n = 0; n < usage.weight.size(); ++n) weights[n] += usage.weight[n];
      tokens += static_cast<double>(usage.num_tokens);
    }
  }
  while (names.size() < weights.size()) names.emplace_back("the mean of all");  // the last adapter of arrow-mean
  std::vector<AdapterShare> shares;
  double rest = 1;
  for (std::size_t n = 0; n < names.size(); ++n) {
    shares.push_back({names[n], tokens > 0 ? weights[n] / tokens : 0});
    rest -= shares.back().share;
  }
  if (rest > 1e-4) shares.push_back({"base", rest});
  std::ranges::stable_sort(shares, std::greater(), &AdapterShare::share);
  return shares;
}

}  // namespace quiver::recipes
