#include "quiver/http/message.h"

#include "quiver/testing/message_of.h"

namespace quiver::http {
namespace {

std::string fault_of(std::string_view target) {
  RequestHead head;
  const auto fault = read_target(target, head);
  return fault ? std::to_string(fault->status) + " " + fault->message : "";
}

TEST(Target, IsDecodedIntoPathAndQuery) {
  RequestHead head;
  EXPECT_FALSE(read_target("/a%2Fb+c/%E2%82%AC?%61=%62&&c=d=e&f", head));
  EXPECT_EQ(head.path, "/a/b+c/\u20ac");
  EXPECT_EQ(head.query, (std::map<std::string, std::string>{{"a", "b"}, {"c", "d=e"}, {"f", ""}}));
  EXPECT_FALSE(read_target("/?", head));
  EXPECT_EQ(head.path, "/");
}

TEST(Target, IsRefusedUnlessItIsPercentEncodedUtf8) {
  EXPECT_EQ(fault_of("/"), "");
  EXPECT_EQ(fault_of("*"), "400 the target of a request must begin with '/'");
  EXPECT_EQ(fault_of("http://test/"), "400 the target of a request must begin with '/'");
  EXPECT_EQ(fault_of(""), "400 the target of a request must begin with '/'");
  EXPECT_EQ(fault_of("/%"), "400 the path holds a '%' that two hexadecimal digits do not follow");
  EXPECT_EQ(fault_of("/%4"), "400 the path holds a '%' that two hexadecimal digits do not follow");
  EXPECT_EQ(fault_of("/%g0"), "400 the path holds a '%' that two hexadecimal digits do not follow");
  EXPECT_EQ(fault_of("/%00"), "400 the path holds a control character");
  EXPECT_EQ(fault_of("/%0d%0a"), "400 the path holds a control character");
  EXPECT_EQ(fault_of("/%7f"), "400 the path holds a control character");
  EXPECT_EQ(fault_of("/%ff"), "400 the path is not UTF-8");
  EXPECT_EQ(fault_of("/\xff"), "400 the path is not UTF-8");
  EXPECT_EQ(fault_of("/?a=%"), "400 the query is not percent-encoded UTF-8");
  EXPECT_EQ(fault_of("/?%ff=a"), "400 the query is not percent-encoded UTF-8");
  EXPECT_EQ(fault_of("/?a=%00"), "400 the query is not percent-encoded UTF-8");
}

/// The head without its Date.
std::string head_of(const AnswerHead& head, const Headers& headers = {}) {
  std::string text = answer_head(head, headers);
  const std::size_t date = text.find("Date: ");
  return text.erase(date, text.find("\r\n", date) + 2 - date);
}

TEST(AnswerHead, SaysWhereTheAnswerEnds) {
  EXPECT_EQ(head_of({.content_type = "text/plain", .content_length = 7}, {{"X", "y\tz"}}),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\nX: y\tz\r\n\r\n");
  EXPECT_EQ(head_of({.status = 404, .framing = Framing::kChunked, .keeps_alive = false}),
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(head_of({.framing = Framing::kUntilClose, .keeps_alive = false, .is_http_1_0 = true}),
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(head_of({.status = 204, .content_type = "text/plain", .framing = Framing::kBodiless}), "HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(head_of({.status = 299, .is_http_1_0 = true}), "HTTP/1.1 299 \r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n");
}

TEST(AnswerHead, RefusesWhatWouldBreakTheAnswer) {
  EXPECT_ERROR(answer_head({.status = 100}, {}), ErrorKind::kUsage, "100 is no status of an HTTP answer; expected 200 to 599");
  EXPECT_ERROR(answer_head({.content_type = "a\n"}, {}), ErrorKind::kUsage, "'Content-Type' holds a control character");
  EXPECT_ERROR(answer_head({}, {{"", "x"}}), ErrorKind::kUsage, "'' is no name of an HTTP header");
  EXPECT_ERROR(answer_head({}, {{"a:b", "x"}}), ErrorKind::kUsage, "'a:b' is no name of an HTTP header");
  EXPECT_ERROR(answer_head({}, {{"TRANSFER-ENCODING", "x"}}), ErrorKind::kUsage, "'Transfer-Encoding' is the server's own");
}

}  // namespace
}  // namespace quiver::http
