#include "quiver/http/message.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"

namespace quiver::http {

namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool is_control(char c) { return static_cast<unsigned char>(c) < 32 || c == 127; }

bool is_token(std::string_view text) {
  constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return (lower(c) >= 'a' && lower(c) <= 'z') || (c >= '0' && c <= '9') || kOthers.find(c) != std::string_view::npos;
  });
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return lower(c) >= 'a' && lower(c) <= 'f' ? lower(c) - 'a' + 10 : -1;
}

/// Text with its %XX replaced by bytes, or nothing where a % stands before other than two digits.
std::optional<std::string> percent_decoded(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size() || hex_digit(text[i + 1]) < 0 || hex_digit(text[i + 2]) < 0) return std::nullopt;
    out += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
    i += 2;
  }
  return out;
}

std::optional<std::string> query_part(std::string_view text) {
  std::string spaced(text);
  std::ranges::replace(spaced, '+', ' ');
  auto out = percent_decoded(spaced);
  if (!out || !is_valid_utf8(*out) || out->find('\0') != std::string::npos) return std::nullopt;
  return out;
}

std::string_view reason(int status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "";
  }
}

/// Now, as "Sun, 06 Nov 1994 08:49:37 GMT".
std::string date() {
  constexpr std::array kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  return format("{}, {:02d} {} {} {:02d}:{:02d}:{:02d} GMT", kDays[static_cast<std::size_t>(utc.tm_wday)], utc.tm_mday,
                kMonths[static_cast<std::size_t>(utc.tm_mon)], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

void add_header(std::string& out, std::string_view name, std::string_view value) {
  if (!is_token(name)) fail(ErrorKind::kUsage, "'{}' is no name of an HTTP header", replace_invalid_utf8(name));
  if (std::ranges::any_of(value, [](char c) { return is_control(c) && c != '\t'; })) {
    fail(ErrorKind::kUsage, "the value of the HTTP header '{}' holds a control character", name);
  }
  out.append(name).append(": ").append(value).append("\r\n");
}

}  // namespace

std::optional<Fault> read_target(std::string_view target, RequestHead& head) {
  if (target.empty() || target[0] != '/') return Fault{400, "the target of a request must begin with '/'"};
  const std::size_t mark = target.find('?');
  const auto path = percent_decoded(target.substr(0, mark));
  if (!path) return Fault{400, "the path holds a '%' that two hexadecimal digits do not follow"};
  if (std::ranges::any_of(*path, is_control)) return Fault{400, "the path holds a control character"};
  if (!is_valid_utf8(*path)) return Fault{400, "the path is not UTF-8"};
  head.path = *path;
  std::string_view rest = mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    const std::size_t equals = part.find('=');
    const auto name = query_part(part.substr(0, equals));
    const auto value = query_part(equals == std::string_view::npos ? std::string_view() : part.substr(equals + 1));
    if (!name || !value) return Fault{400, "the query is not percent-encoded UTF-8"};
    if (!part.empty()) head.query[*name] = *value;
  }
  return std::nullopt;
}

bool has_no_body(int status) { return status == 204 || status == 304; }

std::string answer_head(const AnswerHead& head, const Headers& headers) {
  if (head.status < 200 || head.status > 599)
    fail(ErrorKind::kUsage, "{} is no status of an HTTP answer; expected 200 to 599", head.status);
  std::string out = format("HTTP/1.1 {} {}\r\n", head.status, reason(head.status));
  add_header(out, "Date", date());
  if (!head.content_type.empty() && head.framing != Framing::kBodiless) add_header(out, "Content-Type", head.content_type);
  if (head.framing == Framing::kLength) add_header(out, "Content-Length", format("{}", head.content_length));
  if (head.framing == Framing::kChunked) add_header(out, "Transfer-Encoding", "chunked");
  if (!head.keeps_alive) add_header(out, "Connection", "close");
  if (head.keeps_alive && head.is_http_1_0) add_header(out, "Connection", "keep-alive");
  for (const auto& [name, value] : headers) {
    for (const std::string_view own : {"Date", "Content-Type", "Content-Length", "Transfer-Encoding", "Connection"}) {
      if (equal_ignoring_case(name, own)) fail(ErrorKind::kUsage, "the HTTP header '{}' is the server's own", own);
    }
    add_header(out, name, value);
  }
  return out += "\r\n";
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) { return lower(x) == lower(y); });
}

std::string lower_case(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), lower);
  return out;
}

std::string_view RequestHead::header(std::string_view name) const {
  const auto found = headers.find(std::string(name));
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

}  // namespace quiver::http
