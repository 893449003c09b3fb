// A conversation with a base model and its adapters.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/base/progress.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/model/generate.h"

namespace quiver::recipes {

/// How much of an answer an adapter gave: its share of the routing weights over all tokens and projections.
struct AdapterShare {
  std::string name;  ///< "base" for what is missing to 1
  double share = 0;
};

/// The answer to a message.
struct ChatAnswer {
  std::string text;
  std::int64_t num_tokens = 0;
  std::int64_t num_forgotten = 0;  ///< messages dropped from the start of the conversation, so that it fits into the context
  bool was_stopped = false;
};

/// Keeps the messages of a conversation and answers the next. Every answer reads the whole conversation anew. Not thread-safe.
class ChatSession {
 public:
  /// Called with each piece of the answer; returning false ends the answer.
  using TextCallback = std::function<bool(std::string_view)>;

  /// `base`, which must outlive the session, has a chat format. Throws kUsage if it has none, and as adapted_model.
  ChatSession(const methods::BaseModel& base, methods::AdapterUse use, schedule::RequestOptions options, Progress& progress);

  /// Answers a message of the user; both become part of the conversation. On an error the conversation is as before. Throws kUsage for a
  /// message that alone exceeds the context less max_new_tokens.
  /// A stop ends the answer where it is.
  ChatAnswer answer(const std::string& message, const TextCallback& on_text, Progress& progress, StopToken stop = {});
  /// Forgets the conversation.
  void reset() { messages_.clear(); }
  /// Uses the library by another method from now on. On an error the method is as before. Throws kUsage without a library, and as
  /// adapted_model.
  void set_method(const methods::MethodUse& method, Progress& progress);

  const std::vector<text::Message>& messages() const { return messages_; }
  const methods::AdapterUse& use() const { return use_; }
  /// Which adapters gave the last answer, the largest share first; empty before the first answer.
  std::vector<AdapterShare> shares() const;

 private:
  const methods::BaseModel& base_;
  methods::AdapterUse use_;
  schedule::RequestOptions options_;
  std::unique_ptr<routing::RoutingRecorder> recorder_ = std::make_unique<routing::RoutingRecorder>();
  methods::AdaptedModel model_;
  std::vector<text::Message> messages_;
};

}  // namespace quiver::recipes
