#include "quiver/serve/route_json.h"

#include <gtest/gtest.h>

namespace quiver::serve {
namespace {

using schedule::LayerRoute;

TEST(RouteJson, Base64OfTheStandard) {
  const std::vector<std::pair<std::string, std::string>> vectors = {
      {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : vectors) EXPECT_EQ(base64(bytes), text);
  EXPECT_EQ(base64(std::string("\xff\xfe\x00", 3)), "//4A");
}

TEST(RouteJson, Header) {
  const std::vector<std::string> names = {"a", "b\"c"};
  EXPECT_EQ(route_header(names, 30, 120), R"("route_header":{"adapters":["a","b\"c"],"layers":30,"projections":120,"ids":"u8"})");
  EXPECT_NE(route_header(std::vector<std::string>(256, "a"), 1, 1).find(R"("ids":"u16")"), std::string::npos);
  EXPECT_TRUE(!has_wide_ids(255) && has_wide_ids(256));
}

TEST(RouteJson, BytesOfTokensAndLayers) {
  const std::vector<std::vector<LayerRoute>> routes = {{{2, 1.0F}, {0, 0.5F}}, {{1, 2.0F}}};  // the second lacks a layer
  const std::vector<std::string> texts = {"x", "\n"};
  EXPECT_EQ(route_member(7, routes, texts, 2, false),
            R"("route":{"t0":7,"k":1,"data":")" + base64(std::string("\x02\xff\x00\x80\x01\xff\xff\x00", 8)) + R"(","texts":["x","\n"]})");
  EXPECT_EQ(route_member(0, std::vector<std::vector<LayerRoute>>{{{0x1234, 0.0F}, {-1, 0.0F}}}, std::vector<std::string>{""}, 2, true),
            R"("route":{"t0":0,"k":1,"data":")" + base64(std::string("\x34\x12\x00\xff\xff\x00", 6)) + R"(","texts":[""]})");
}

}  // namespace
}  // namespace quiver::serve
