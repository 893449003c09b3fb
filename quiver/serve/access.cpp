#include "quiver/serve/access.h"

#include <openssl/crypto.h>

#include "quiver/api/error.h"
#include "quiver/base/error.h"

namespace quiver::serve {
namespace {

using api::ApiError;
using api::Reason;

bool is_equal(std::string_view given, std::string_view key) {
  return given.size() == key.size() && CRYPTO_memcmp(given.data(), key.data(), key.size()) == 0;
}

std::string lower(std::string_view text) {
  std::string out;
  for (const char c : text) out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::string_view bearer(const http::RequestHead& head) {
  const auto value = head.header("authorization");
  constexpr std::string_view kScheme = "bearer ";
  if (value.size() < kScheme.size() || lower(value.substr(0, kScheme.size())) != kScheme) return {};
  return value.substr(kScheme.size());
}

}  // namespace

std::string host_name(std::string_view host) {
  if (host.starts_with('[')) return lower(host.substr(0, host.find(']') + 1));
  return lower(host.substr(0, host.find(':')));
}

void check_host(const http::RequestHead& head, const std::set<std::string>& hosts, std::string_view cors_origin) {
  const auto host = head.header("host");
  if (!hosts.empty() && !host.empty() && !hosts.contains(host_name(host))) {
    throw ApiError(Reason::kForbidden,
                   format("the server is not called '{}'; whoever runs it can allow further names", api::clipped(host)));
  }
  const auto origin = head.header("origin");
  if (origin.empty() || origin == cors_origin) return;
  const auto scheme = origin.find("://");
  if (scheme != std::string_view::npos && origin.substr(scheme + 3) == host) return;  // its own page
  throw ApiError(Reason::kForbidden, format("pages of '{}' may not call the server; whoever runs it can allow one", api::clipped(origin)));
}

void check_key(const http::RequestHead& head, Access access, std::string_view api_key, std::string_view admin_key) {
  if (access == Access::kOpen) return;
  const auto given = bearer(head);
  if (!admin_key.empty() && is_equal(given, admin_key)) return;
  if (access == Access::kAdmin) {
    if (admin_key.empty()) throw ApiError(Reason::kForbidden, "adapters cannot be changed: the server was started without an admin key");
  } else if (api_key.empty() || is_equal(given, api_key)) {
    return;
  }
  throw ApiError(Reason::kInvalidApiKey, "the key is missing or wrong: send it as 'Authorization: Bearer KEY'", {},
                 {{"WWW-Authenticate", "Bearer"}});
}

}  // namespace quiver::serve
