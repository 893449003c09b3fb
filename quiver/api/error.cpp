#include "quiver/api/error.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "quiver/api/json_text.h"
#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/base/utf8.h"

namespace quiver::api {
namespace {

constexpr const char* kInvalid = "invalid_request_error";
constexpr const char* kRateLimit = "rate_limit_error";
constexpr const char* kServer = "server_error";

/// By Reason.
constexpr ErrorRow kRows[] = {
    {400, kInvalid, nullptr},
    {400, kInvalid, "invalid_json"},
    {400, kInvalid, "unsupported_value"},
    {400, kInvalid, "context_length_exceeded"},
    {400, kInvalid, "no_chat_template"},
    {401, kInvalid, "invalid_api_key"},
    {403, kInvalid, "forbidden"},
    {404, kInvalid, "model_not_found"},
    {404, kInvalid, nullptr},
    {405, kInvalid, nullptr},
    {408, kInvalid, nullptr},
    {409, kInvalid, "adapter_in_use"},
    {409, kInvalid, "adapter_exists"},
    {411, kInvalid, nullptr},
    {413, kInvalid, nullptr},
    {415, kInvalid, nullptr},
    {429, kRateLimit, "queue_full"},
    {429, kRateLimit, "too_many_connections"},
    {431, kInvalid, nullptr},
    {500, kServer, "internal_error"},
    {501, kInvalid, nullptr},
    {503, kServer, "starting"},
    {503, kServer, "shutting_down"},
    {503, kServer, "engine_stalled"},
    {503, kServer, "queue_timeout"},
};
static_assert(std::size(kRows) == static_cast<std::size_t>(Reason::kQueueTimeout) + 1, "a row for each reason");

Reason reason_of_kind(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
    case ErrorKind::kBadFormat:
    case ErrorKind::kMismatch: return Reason::kInvalidRequest;
    case ErrorKind::kNotFound: return Reason::kUnknownPath;
    case ErrorKind::kUnsupported: return Reason::kUnsupportedValue;
    case ErrorKind::kInterrupted: return Reason::kShuttingDown;
    case ErrorKind::kIo:
    case ErrorKind::kInternal: return Reason::kInternal;
  }
  return Reason::kInternal;
}

}  // namespace

const ErrorRow& error_row(Reason reason) { return kRows[static_cast<std::size_t>(reason)]; }

Reason reason_of_status(int status) {
  if (status == 503) return Reason::kTooManyConnections;
  for (std::size_t i = 0; i < std::size(kRows); ++i) {
    // The row without a code says no more than the status.
    if (kRows[i].status == status && (kRows[i].code == nullptr || status == 401 || status == 403)) return static_cast<Reason>(i);
  }
  return Reason::kInternal;
}

std::string error_body(const ApiError& error) {
  std::string out = R"({"error":{"message":)";
  append_json(out, error.what());
  out += R"(,"type":)";
  append_json(out, error.type());
  out += R"(,"param":)";
  if (error.param().empty()) {
    out += "null";
  } else {
    append_json(out, error.param());
  }
  out += R"(,"code":)";
  if (const char* code = error_row(error.reason()).code) {
    append_json(out, code);
  } else {
    out += "null";
  }
  return out + "}}";
}

ApiError api_error_of(const std::exception& error, std::string_view request_id) {
  if (const auto* api = dynamic_cast<const ApiError*>(&error)) return *api;
  const auto* known = dynamic_cast<const Error*>(&error);
  const Reason reason = known == nullptr ? Reason::kInternal : reason_of_kind(known->kind());
  if (reason != Reason::kInternal) return ApiError(reason, error.what());
  return ApiError(reason, format("request {} failed: {}", request_id, error.what()), {}, {{"x-should-retry", "false"}});
}

ApiError model_not_found(std::string_view name, const std::vector<std::string>& served) {
  constexpr std::size_t kMostNames = 20;
  const std::string shown = clipped(name);
  std::string names;
  for (std::size_t i = 0; i < std::min(served.size(), kMostNames); ++i) names += (i > 0 ? ", " : "") + served[i];
  if (served.size() > kMostNames) names += format(" and {} more (GET /v1/models lists all)", served.size() - kMostNames);
  // A name of kilobytes is near to nothing.
  const std::string hint = shown.size() == name.size() ? did_you_mean(name, served) : std::string();
  return ApiError(Reason::kModelNotFound, format("the model '{}' does not exist{}; served are {}", shown, hint, names), "model");
}

ApiError context_exceeded(std::int64_t num_prompt_tokens, std::int64_t max_new_tokens, std::int64_t context_length) {
  // A body may ask for any number of tokens up to the largest 64-bit one; the sum stops there.
  const auto num_tokens = num_prompt_tokens + std::min(max_new_tokens, std::numeric_limits<std::int64_t>::max() - num_prompt_tokens);
  return ApiError(Reason::kContextLength,
                  format("this model's maximum context length is {} tokens, but {} were requested: {} of the prompt and {} of the answer; "
                         "shorten the prompt or lower 'max_tokens'",
                         context_length, num_tokens, num_prompt_tokens, max_new_tokens),
                  "max_tokens");
}

ApiError retry_later(Reason reason, const std::string& message, double seconds) {
  const double bounded = std::isfinite(seconds) ? std::clamp(std::ceil(seconds), 1.0, 60.0) : 60.0;
  return ApiError(reason, message, {}, {{"Retry-After", format("{}", static_cast<std::int64_t>(bounded))}});
}

std::string clipped(std::string_view text) {
  constexpr std::size_t kMost = 100;
  std::string out = replace_invalid_utf8(text.substr(0, 2 * kMost));
  if (text.size() <= kMost) return out;
  out.resize(std::min(out.size(), kMost));
  out.resize(out.size() - static_cast<std::size_t>(incomplete_tail(out)));
  return out + "...";
}

}  // namespace quiver::api
