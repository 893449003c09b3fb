// The files of the page, which are those of quiver/serve/web.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

namespace quiver::serve {

struct WebAsset {
  std::string_view path;  ///< "/app.js"; the page itself is "/"
  std::string_view body;
  std::string_view content_type;
  std::string_view etag;  ///< in quotes: of the content
};

/// The file of a path, or null.
const WebAsset* find_web_asset(std::string_view path);
/// Headers of all files: nothing of another origin is loaded, and no page of another origin may show this one.
const std::vector<std::pair<std::string_view, std::string_view>>& page_headers();

/// The files as the build embeds them: name and content, a line break before it (cmake/embed_text.cmake).
extern const std::vector<std::pair<std::string_view, std::string_view>> kWebFiles;

}  // namespace quiver::serve
