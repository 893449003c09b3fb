#include "quiver/serve/web_assets.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "quiver/io/file.h"

namespace quiver::serve {
namespace {

TEST(WebAssets, AreTheFilesOfTheFolder) {
  std::set<std::string_view> etags;
  for (const auto& [name, content] : kWebFiles) {
    const auto path = "/" + std::string(name == "index.html" ? "" : name);
    const auto* asset = find_web_asset(path);
    ASSERT_NE(asset, nullptr) << path;
    EXPECT_EQ(asset->path, path);
    EXPECT_EQ(asset->body, io::read_text_file("quiver/serve/web/" + std::string(name))) << name;
    EXPECT_TRUE(asset->etag.size() == 34 && asset->etag.front() == '"' && asset->etag.back() == '"') << asset->etag;
    EXPECT_TRUE(etags.insert(asset->etag).second);
  }
  EXPECT_EQ(find_web_asset("/")->content_type, "text/html; charset=utf-8");
  EXPECT_EQ(find_web_asset("/app.js")->content_type, "text/javascript; charset=utf-8");
  EXPECT_EQ(find_web_asset("/style.css")->content_type, "text/css; charset=utf-8");
  EXPECT_EQ(find_web_asset("/index.html"), nullptr);
  EXPECT_EQ(find_web_asset(""), nullptr);
  EXPECT_EQ(page_headers().front().first, "Content-Security-Policy");
}

}  // namespace
}  // namespace quiver::serve
