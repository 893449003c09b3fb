// Errors of the API: their statuses, their codes, and the JSON that tells of them.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quiver::api {

/// Names and values of HTTP headers.
using Headers = std::vector<std::pair<std::string, std::string>>;

/// Why a request gets no answer. Each reason has a status, a type and a code (error_row).
enum class Reason {
  kInvalidRequest,      ///< a field is missing, or has a wrong type or value
  kInvalidJson,         ///< the body is not JSON
  kUnsupportedValue,    ///< OpenAI takes it; this server has nothing that does it
  kContextLength,       ///< prompt and answer exceed the model's context
  kNoChatTemplate,      ///< messages, but the base has no chat template
  kInvalidApiKey,       ///< the key is missing or wrong
  kForbidden,           ///< the Host or Origin is not allowed, or the endpoint is off
  kModelNotFound,       ///< no model of this name
  kUnknownPath,         ///< no endpoint of this path
  kMethodNotAllowed,    ///< the path exists, for other methods
  kBodyTimeout,         ///< the body came too slowly
  kAdapterInUse,        ///< a request still uses the adapter
  kAdapterExists,       ///< another adapter has this name
  kLengthRequired,      ///< the body has no length
  kBodyTooLarge,        ///< the body exceeds a limit
  kNotJson,             ///< the Content-Type is not JSON
  kQueueFull,           ///< too many requests wait
  kTooManyConnections,  ///< too many connections
  kHeadersTooLarge,     ///< the headers exceed a limit
  kInternal,            ///< a bug, or the operating system refused
  kNotImplemented,      ///< HTTP that the server does not speak
  kStarting,            ///< the model is being loaded
  kShuttingDown,        ///< the server ends
  kEngineStalled,       ///< the engine makes no steps
  kQueueTimeout,        ///< the request has waited too long
};

/// What a reason is to a client.
struct ErrorRow {
  int status;
  const char* type;
  const char* code;  ///< nullptr: null
};
const ErrorRow& error_row(Reason reason);
/// The reason that answers a status of the HTTP server: 400, 408, 411, 413, 431, 501, 503 and those of the table. Any other is kInternal.
Reason reason_of_status(int status);

/// A request that cannot be answered. The only exception that this folder throws for what a client sent.
class ApiError : public std::runtime_error {
 public:
  /// `param` names the field of the request, or is empty.
  ApiError(Reason reason, const std::string& message, std::string param = {}, Headers headers = {})
      : std::runtime_error(message), reason_(reason), param_(std::move(param)), headers_(std::move(headers)) {}

  Reason reason() const noexcept { return reason_; }
  int status() const { return error_row(reason_).status; }
  std::string_view type() const { return error_row(reason_).type; }
  const std::string& param() const noexcept { return param_; }
  /// Retry-After and the like.
  const Headers& headers() const noexcept { return headers_; }

 private:
  Reason reason_;
  std::string param_;
  Headers headers_;
};

/// {"error":{"message","type","param","code"}}, as OpenAI has it.
std::string error_body(const ApiError& error);

/// Any exception as an error of the API. Errors of the library keep their message. A bug says `request_id`, and tells the openai clients
/// not to try again.
ApiError api_error_of(const std::exception& error, std::string_view request_id);

/// A 404 that names the nearest served name and at most 20 of all.
ApiError model_not_found(std::string_view name, const std::vector<std::string>& served);
/// A 400 with the phrase that clients look for, "maximum context length is N tokens".
ApiError context_exceeded(std::int64_t num_prompt_tokens, std::int64_t max_new_tokens, std::int64_t context_length);
/// A 429 or 503 with Retry-After, from 1 to 60 seconds.
ApiError retry_later(Reason reason, const std::string& message, double seconds);

/// A text for a message: cut to some 100 bytes, at a border of characters.
std::string clipped(std::string_view text);

}  // namespace quiver::api
