// Request targets and heads of answers, as text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "quiver/http/server.h"

namespace quiver::http {

/// Why a request is refused.
struct Fault {
  int status = 0;  ///< 0: the client has gone, so that nothing can be answered
  std::string message;
};

/// Sets path and query of `head` from a request's target, such as "/v1/models?limit=2". Returns the fault of a bad target.
std::optional<Fault> read_target(std::string_view target, RequestHead& head);

/// Where an answer ends.
enum class Framing {
  kLength,      ///< after Content-Length bytes
  kChunked,     ///< with the last chunk
  kUntilClose,  ///< with the connection, for clients of HTTP/1.0
  kBodiless,    ///< with the head, whatever it says: statuses 204 and 304
};

struct AnswerHead {
  int status = 200;
  std::string_view content_type;
  Framing framing = Framing::kLength;
  std::uint64_t content_length = 0;
  bool keeps_alive = true;
  bool is_http_1_0 = false;
};

/// The status line and all headers, with the empty line. Throws kUsage for a status outside 200 to 599, a name that is no token, a value
/// with control characters, and headers that are the server's own.
std::string answer_head(const AnswerHead& head, const Headers& headers);

bool has_no_body(int status);

/// Equality of ASCII letters in either case.
bool equal_ignoring_case(std::string_view a, std::string_view b);
std::string lower_case(std::string_view text);

}  // namespace quiver::http
