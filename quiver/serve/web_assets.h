// The files of the page, which are those of quiver/serve/web.
#pragma once

#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace quiver::serve {

/// A file as the build embeds it (cmake/embed_web.cmake).
struct WebFile {
  std::string_view name;  ///< "app.js"
  std::string_view content_type;
  std::string_view etag;  ///< in quotes: the SHA-256 of the content
  std::string_view content;
  std::string_view gzip;  ///< the content compressed
};
extern const std::span<const WebFile> kWebFiles;

/// The file of a path: the page itself is "/", others are at their own names. Null if there is none.
const WebFile* find_web_file(std::string_view path);
/// Headers of all files: nothing of another origin is loaded, and no page of another origin may show this one.
const std::vector<std::pair<std::string_view, std::string_view>>& page_headers();

}  // namespace quiver::serve
