#include "quiver/serve/access.h"

#include "quiver/api/test_support.h"

namespace quiver::serve {
namespace {

using api::refusal_of;
using ::testing::StartsWith;

http::RequestHead head_with(const std::map<std::string, std::string>& headers) {
  http::RequestHead head;
  head.headers = headers;
  return head;
}

TEST(Access, NamesOfHosts) {
  EXPECT_EQ(host_name("LocalHost:8080"), "localhost");
  EXPECT_EQ(host_name("127.0.0.1"), "127.0.0.1");
  EXPECT_EQ(host_name("[::1]:80"), "[::1]");
  EXPECT_EQ(host_name(""), "");
}

TEST(Access, HostsAndOrigins) {
  const std::set<std::string> hosts = {"localhost"};
  const auto refusal = [&](const std::map<std::string, std::string>& headers, const std::string& origin = {}) {
    return refusal_of([&] { check_host(head_with(headers), hosts, origin); });
  };
  EXPECT_EQ(refusal({{"host", "localhost:80"}}), "ok");
  EXPECT_EQ(refusal({}), "ok");
  EXPECT_THAT(refusal({{"host", "localhost.evil.example"}}), StartsWith("403 forbidden -: the server is not called 'localhost.evil"));
  EXPECT_EQ(refusal({{"host", "localhost:80"}, {"origin", "http://localhost:80"}}), "ok");
  EXPECT_THAT(refusal({{"host", "localhost:80"}, {"origin", "http://localhost:81"}}), StartsWith("403 forbidden -: pages of"));
  EXPECT_THAT(refusal({{"host", "localhost"}, {"origin", "null"}}), StartsWith("403 "));
  EXPECT_EQ(refusal({{"host", "localhost"}, {"origin", "https://a.example"}}, "https://a.example"), "ok");
  EXPECT_EQ(refusal_of([] { check_host(head_with({{"host", "any.example"}}), {}, {}); }), "ok");
}

TEST(Access, Keys) {
  const auto refusal = [](const std::string& header, Access access, const std::string& key, const std::string& admin) {
    return refusal_of([&] { check_key(head_with({{"authorization", header}}), access, key, admin); }).substr(0, 3);
  };
  EXPECT_EQ(refusal("", Access::kOpen, "k", "a"), "ok");
  EXPECT_EQ(refusal("", Access::kKey, "", ""), "ok") << "there is no key";
  for (const auto* wrong : {"", "k", "Bearer", "Bearer ", "Bearer k2", "Bearer kk", "Basic k", "Bearer  k"}) {
    EXPECT_EQ(refusal(wrong, Access::kKey, "k", ""), "401") << wrong;
  }
  EXPECT_EQ(refusal("Bearer k", Access::kKey, "k", "a"), "ok");
  EXPECT_EQ(refusal("BEARER a", Access::kKey, "k", "a"), "ok") << "the admin's key opens everything";
  EXPECT_EQ(refusal("Bearer k", Access::kAdmin, "k", "a"), "401");
  EXPECT_EQ(refusal("Bearer a", Access::kAdmin, "k", "a"), "ok");
  EXPECT_EQ(refusal("Bearer ", Access::kAdmin, "k", ""), "403") << "nobody may";
  EXPECT_EQ(refusal("", Access::kAdmin, "", ""), "403");
}

}  // namespace
}  // namespace quiver::serve
