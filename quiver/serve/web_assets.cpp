#include "quiver/serve/web_assets.h"

#include <algorithm>

namespace quiver::serve {

const WebFile* find_web_file(std::string_view path) {
  const auto name = path == "/" ? std::string_view("index.html") : path.substr(std::min<std::size_t>(path.size(), 1));
  const auto found = std::ranges::find(kWebFiles, name, &WebFile::name);
  return found == kWebFiles.end() || path == "/index.html" ? nullptr : &*found;
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
