#include "quiver/api/responses.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "quiver/api/json_text.h"

namespace quiver::api {
namespace {

/// A token of a list with the number to write.
using Scored = std::pair<std::int32_t, double>;

/// The likeliest tokens and the chosen one, which comes last if it is not among them. Its number is the same double everywhere.
std::vector<Scored> with_chosen(const schedule::TokenScore& score) {
  auto scored = score.top;
  const auto place = std::ranges::find(scored, score.token, &Scored::first);
  if (place == scored.end()) {
    scored.emplace_back(score.token, score.log_prob);
  } else {
    place->second = score.log_prob;
  }
  return scored;
}

/// {"text": number, ...}: of tokens with one text, the larger number.
void append_top(std::string& out, const schedule::TokenScore& score, const text::Tokenizer& tokenizer) {
  std::vector<std::pair<std::string, double>> by_text;
  for (const auto& [id, log_prob] : with_chosen(score)) {
    auto spelled = token_text(tokenizer, id);
    const auto same = std::ranges::find(by_text, spelled, &std::pair<std::string, double>::first);
    if (same == by_text.end()) {
      by_text.emplace_back(std::move(spelled), log_prob);
    } else {
      same->second = std::max(same->second, log_prob);
    }
  }
  out += '{';
  for (const auto& [spelled, log_prob] : by_text) {
    if (out.back() != '{') out += ',';
    append_json(out, spelled);
    out += ':';
    append_log_prob(out, log_prob);
  }
  out += '}';
}

/// Appends a list, an item for each token.
template <typename AppendItem>
void append_list(std::string& out, const std::vector<AnswerToken>& tokens, const AppendItem& append_item) {
  out += '[';
  for (const auto& token : tokens) {
    if (&token != &tokens.front()) out += ',';
    append_item(token);
  }
  out += ']';
}

void append_completion_log_probs(std::string& out, const std::vector<AnswerToken>& tokens, const text::Tokenizer& tokenizer) {
  out += R"({"tokens":)";
  append_list(out, tokens, [&](const AnswerToken& token) { append_json(out, token_text(tokenizer, token.id)); });
  out += R"(,"token_logprobs":)";
  append_list(out, tokens, [&](const AnswerToken& token) {
    if (token.score) {
      append_log_prob(out, token.score->log_prob);
    } else {
      out += "null";
    }
  });
  out += R"(,"top_logprobs":)";
  append_list(out, tokens, [&](const AnswerToken& token) {
    if (token.score) {
      append_top(out, *token.score, tokenizer);
    } else {
      out += "null";
    }
  });
  out += R"(,"text_offset":)";
  append_list(out, tokens, [&](const AnswerToken& token) { append_json(out, token.text_offset); });
  out += '}';
}

/// "token":...,"logprob":...,"bytes":[...]
void append_chat_token(std::string& out, std::int32_t id, double log_prob, const text::Tokenizer& tokenizer) {
  out += R"({"token":)";
  append_json(out, token_text(tokenizer, id));
  out += R"(,"logprob":)";
  append_log_prob(out, log_prob);
  out += R"(,"bytes":[)";
  const auto bytes = tokenizer.token_bytes(id);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) out += ',';
    append_json(out, std::int64_t{static_cast<unsigned char>(bytes[i])});
  }
  out += ']';
}

void append_chat_log_probs(std::string& out, const std::vector<AnswerToken>& tokens, bool lists_others, const text::Tokenizer& tokenizer) {
  out += R"({"content":)";
  append_list(out, tokens, [&](const AnswerToken& token) {
    const double log_prob = token.score ? token.score->log_prob : -std::numeric_limits<double>::infinity();
    append_chat_token(out, token.id, log_prob, tokenizer);
    out += R"(,"top_logprobs":[)";
    if (lists_others && token.score) {
      for (const auto& [id, other] : with_chosen(*token.score)) {
        if (out.back() != '[') out += ',';
        append_chat_token(out, id, other, tokenizer);
        out += '}';
      }
    }
    out += "]}";
  });
  out += R"(,"refusal":null})";
}

void append_log_probs(std::string& out, const AnswerHead& head, const std::vector<AnswerToken>& tokens, const text::Tokenizer& tokenizer) {
  out += R"(,"logprobs":)";
  if (head.top_log_probs < 0) {
    out += "null";
  } else if (head.endpoint == Endpoint::kCompletions) {
    append_completion_log_probs(out, tokens, tokenizer);
  } else {
    append_chat_log_probs(out, tokens, head.top_log_probs > 0, tokenizer);
  }
}

void append_finish(std::string& out, const std::optional<FinishReason>& finish) {
  out += R"(,"finish_reason":)";
  if (finish) {
    append_json(out, finish_name(*finish));
  } else {
    out += "null";
  }
}

void append_usage(std::string& out, const Usage& usage) {
  out += R"({"prompt_tokens":)";
  append_json(out, usage.num_prompt_tokens);
  out += R"(,"completion_tokens":)";
  append_json(out, usage.num_answer_tokens);
  out += R"(,"total_tokens":)";
  append_json(out, usage.num_prompt_tokens + usage.num_answer_tokens);
  out += R"(,"prompt_tokens_details":{"cached_tokens":)";
  append_json(out, usage.num_cached_tokens);
  out += "}}";
}

void append_head(std::string& out, const AnswerHead& head, const char* object) {
  out += R"({"id":)";
  append_json(out, head.id);
  out += R"(,"object":)";
  append_json(out, object);
  out += R"(,"created":)";
  append_json(out, head.created);
  out += R"(,"model":)";
  append_json(out, head.model);
  out += R"(,"choices":[)";
}

const char* chunk_object(const AnswerHead& head) { return head.endpoint == Endpoint::kChat ? "chat.completion.chunk" : "text_completion"; }

void append_seed(std::string& out, const AnswerHead& head) {
  out += R"(,"quiver":{"seed":)";
  append_json(out, head.seed);
  out += '}';
}

/// Members of a choice that are ours and vLLM's.
void append_extras(std::string& out, const AnswerHead& head, const Choice& choice, const std::vector<AnswerToken>& tokens) {
  if (head.returns_token_ids) {
    std::vector<std::int32_t> ids;
    for (const auto& token : tokens) {
      if (!token.is_prompt) ids.push_back(token.id);
    }
    out += R"(,"token_ids":)";
    append_json(out, ids);
    if (!choice.prompt_ids.empty()) {
      out += R"(,"prompt_token_ids":)";
      append_json(out, choice.prompt_ids);
    }
  }
  if (!choice.quiver_members.empty()) out += R"(,"quiver":{)" + choice.quiver_members + '}';
}

/// A chunk of one choice: `write_choice` writes the choice's members after "index".
template <typename WriteChoice>
std::string chunk(const AnswerHead& head, std::int64_t index, bool gives_seed, const WriteChoice& write_choice) {
  std::string out = "data: ";
  append_head(out, head, chunk_object(head));
  out += R"({"index":)";
  append_json(out, index);
  write_choice(out);
  out += "}]";
  if (head.includes_usage) out += R"(,"usage":null)";
  if (gives_seed) append_seed(out, head);
  return out + "}\n\n";
}

const std::vector<AnswerToken> kNoTokens;

}  // namespace

std::string answer_body(const AnswerHead& head, std::span<const Choice> choices, const Usage& usage, const text::Tokenizer& tokenizer) {
  const bool is_chat = head.endpoint == Endpoint::kChat;
  std::string out;
  append_head(out, head, is_chat ? "chat.completion" : "text_completion");
  for (const auto& choice : choices) {
    if (&choice != &choices.front()) out += ',';
    out += R"({"index":)";
    append_json(out, choice.index);
    out += is_chat ? R"(,"message":{"role":"assistant","content":)" : R"(,"text":)";
    append_json(out, choice.delta.text);
    if (is_chat) out += R"(,"refusal":null})";
    append_log_probs(out, head, choice.delta.tokens, tokenizer);
    append_finish(out, choice.delta.finish);
    append_extras(out, head, choice, choice.delta.tokens);
    out += '}';
  }
  out += R"(],"usage":)";
  append_usage(out, usage);
  append_seed(out, head);
  return out + '}';
}

std::string first_event(const AnswerHead& head, std::int64_t index, std::span<const std::int32_t> prompt_ids) {
  if (head.endpoint != Endpoint::kChat) return {};
  return chunk(head, index, /*gives_seed=*/true, [&](std::string& out) {
    out += R"(,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null)";
    if (head.returns_token_ids && !prompt_ids.empty()) {
      out += R"(,"prompt_token_ids":)";
      append_json(out, prompt_ids);
    }
  });
}

std::string delta_event(const AnswerHead& head, const Choice& choice, const text::Tokenizer& tokenizer) {
  const std::string& text = choice.delta.text;
  const auto& tokens = choice.delta.tokens;
  const auto finish = choice.delta.finish;
  // Tokens alone are told only to those who asked for them.
  const bool tells_tokens = !tokens.empty() && (head.top_log_probs >= 0 || head.returns_token_ids);
  if (text.empty() && !tells_tokens && !finish && choice.quiver_members.empty()) return {};
  const bool is_chat = head.endpoint == Endpoint::kChat;
  const auto log_probs = [&](std::string& out, const std::vector<AnswerToken>& of) {
    if (of.empty()) {
      out += R"(,"logprobs":null)";
    } else {
      append_log_probs(out, head, of, tokenizer);
    }
  };
  const bool has_own_end = is_chat && finish && !text.empty();
  std::string events;
  if (!is_chat || !text.empty() || !finish) {
    events += chunk(head, choice.index, !is_chat && finish.has_value(), [&](std::string& out) {
      out += is_chat ? R"(,"delta":{"content":)" : R"(,"text":)";
      append_json(out, text);
      if (is_chat) out += '}';
      log_probs(out, tokens);
      append_finish(out, has_own_end ? std::nullopt : finish);
      append_extras(out, head, choice, tokens);
    });
  }
  if (is_chat && finish) {
    events += chunk(head, choice.index, /*gives_seed=*/false, [&](std::string& out) {
      out += R"(,"delta":{})";
      log_probs(out, has_own_end ? kNoTokens : tokens);
      append_finish(out, finish);
      if (!has_own_end) append_extras(out, head, choice, tokens);
    });
  }
  return events;
}

std::string usage_event(const AnswerHead& head, const Usage& usage) {
  if (!head.includes_usage) return {};
  std::string out = "data: ";
  append_head(out, head, chunk_object(head));
  out += R"(],"usage":)";
  append_usage(out, usage);
  return out + "}\n\n";
}

std::string error_event(const ApiError& error) { return "data: " + error_body(error) + "\n\n"; }

Headers stream_headers() { return {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}; }

namespace {

nlohmann::ordered_json model_json(const ModelObject& model) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(text);
  };
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "quiver"},
          {"root", model.id},
          {"parent", or_null(model.parent)},
          {"max_model_len", model.max_model_len},
          {"quiver",
           {{"kind", model.kind},
            {"method", or_null(model.method)},
            {"adapters", model.adapters},
            {"combine", or_null(model.combine)},
            {"decides", or_null(model.decides)},
            {"sha256", or_null(model.sha256)},
            {"is_ready", model.is_ready}}}};
}

std::string dumped(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

std::string model_body(const ModelObject& model) { return dumped(model_json(model)); }

std::string models_body(std::span<const ModelObject> models) {
  auto data = nlohmann::ordered_json::array();
  for (const auto& model : models) data.push_back(model_json(model));
  return dumped({{"object", "list"}, {"data", std::move(data)}});
}

}  // namespace quiver::api
