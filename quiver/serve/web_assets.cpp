#include "quiver/serve/web_assets.h"

#include <algorithm>
#include <deque>
#include <string>

#include "quiver/base/hash.h"

namespace quiver::serve {
namespace {

std::string_view type_of(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  return "text/css; charset=utf-8";
}

/// Made once.
const std::vector<WebAsset>& assets() {
  static std::deque<std::string> texts;  // that the assets refer to
  static const std::vector<WebAsset> all = [] {
    std::vector<WebAsset> made;
    for (const auto& [name, content] : kWebFiles) {
      const auto body = content.substr(1);
      texts.push_back("/" + std::string(name == "index.html" ? "" : name));
      const auto& path = texts.back();
      texts.push_back("\"" + sha256_hex(body).substr(0, 32) + "\"");
      made.push_back({path, body, type_of(name), texts.back()});
    }
    return made;
  }();
  return all;
}

}  // namespace

const WebAsset* find_web_asset(std::string_view path) {
  const auto found = std::ranges::find(assets(), path, &WebAsset::path);
  return found == assets().end() ? nullptr : &*found;
}

const std::vector<std::pair<std::string_view, std::string_view>>& page_headers() {
  static const std::vector<std::pair<std::string_view, std::string_view>> headers = {
      {"Content-Security-Policy",
       "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'none'; frame-ancestors "
       "'none'; base-uri 'none'"},
      {"X-Content-Type-Options", "nosniff"},
      {"Referrer-Policy", "no-referrer"}};
  return headers;
}

}  // namespace quiver::serve
