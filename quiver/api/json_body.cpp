#include "quiver/api/json_body.h"

#include <algorithm>
#include <string>

#include "quiver/api/error.h"
#include "quiver/api/fields.h"
#include "quiver/base/error.h"

namespace quiver::api {
namespace {

std::string lowered(std::string_view text) {
  std::string out;
  for (const char c : text) out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::string_view trimmed(std::string_view text) {
  const auto begin = std::min(text.find_first_not_of(" \t"), text.size());
  const auto end = text.find_last_not_of(" \t");
  return end == std::string_view::npos ? std::string_view() : text.substr(begin, end + 1 - begin);
}

}  // namespace

nlohmann::json parse_body(std::string_view body) {
  nlohmann::json document;
  try {
    document = io::parse_json(body, "the request's body", kBodyLimits);
  } catch (const Error& error) {
    throw ApiError(Reason::kInvalidJson, error.what());
  }
  if (!document.is_object()) {
    throw ApiError(Reason::kInvalidJson, format("the request's body is {}; expected a JSON object", described(document)));
  }
  return document;
}

void check_content_type(std::string_view content_type) {
  const std::string text = lowered(content_type);
  const auto semicolon = std::min(text.find(';'), text.size());
  const auto media = trimmed(std::string_view(text).substr(0, semicolon));
  const bool is_json = media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"));
  const auto charset = text.find("charset=", semicolon);
  auto encoding = charset == std::string::npos ? std::string_view("utf-8") : std::string_view(text).substr(charset + 8);
  encoding = trimmed(encoding.substr(0, encoding.find(';')));
  if (is_json && (encoding == "utf-8" || encoding == "\"utf-8\"" || encoding == "utf8")) return;
  throw ApiError(
      Reason::kNotJson,
      format("the body's Content-Type is {}; expected application/json in UTF-8 (with curl: -H 'Content-Type: application/json')",
             content_type.empty() ? "missing" : format("'{}'", clipped(content_type))));
}

}  // namespace quiver::api
