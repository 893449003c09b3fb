#include "quiver/serve/web_assets.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "quiver/base/hash.h"
#include "quiver/io/file.h"

namespace quiver::serve {
namespace {

TEST(WebAssets, AreTheFilesOfTheFolder) {
  std::set<std::string_view> etags;
  ASSERT_GT(kWebFiles.size(), 10u);
  for (const auto& file : kWebFiles) {
    const auto* found = find_web_file("/" + std::string(file.name == "index.html" ? "" : file.name));
    ASSERT_EQ(found, &file) << file.name;
    EXPECT_EQ(file.content, io::read_text_file("quiver/serve/web/" + std::string(file.name))) << file.name;
    EXPECT_EQ(file.etag, "\"" + sha256_hex(file.content) + "\"");
    EXPECT_TRUE(etags.insert(file.etag).second);
    EXPECT_EQ(file.gzip.substr(0, 2), "\x1f\x8b");
    EXPECT_LT(file.gzip.size(), file.content.size());
  }
  EXPECT_EQ(find_web_file("/")->content_type, "text/html; charset=utf-8");
  EXPECT_EQ(find_web_file("/app.js")->content_type, "text/javascript; charset=utf-8");
  EXPECT_EQ(find_web_file("/style.css")->content_type, "text/css; charset=utf-8");
  EXPECT_EQ(find_web_file("/index.html"), nullptr);
  EXPECT_EQ(find_web_file(""), nullptr);
  EXPECT_EQ(page_headers().front().first, "Content-Security-Policy");
}

}  // namespace
}  // namespace quiver::serve
