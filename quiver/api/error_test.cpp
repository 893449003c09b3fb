#include "quiver/api/error.h"

#include <new>

#include "quiver/api/test_support.h"

namespace quiver::api {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(ApiErrors, HaveTheFormOfOpenAi) {
  const ApiError error(Reason::kUnsupportedValue, "'best_of' is \"2\"\n", "best_of");
  EXPECT_EQ(error_body(error),
            R"({"error":{"message":"'best_of' is \"2\"\n","type":"invalid_request_error","param":"best_of","code":"unsupported_value"}})");
  EXPECT_EQ(error_body(ApiError(Reason::kMethodNotAllowed, "no")),
            R"({"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}})");
  EXPECT_TRUE(json::accept(error_body(ApiError(Reason::kInvalidRequest, "\xff\xe2\x80", "\xff"))));
}

TEST(ApiErrors, HaveTheirStatusTypeAndCode) {
  const auto row = [](Reason reason) {
    const auto& [status, type, code] = error_row(reason);
    return format("{} {} {}", status, type, code == nullptr ? "null" : code);
  };
  EXPECT_EQ(row(Reason::kInvalidRequest), "400 invalid_request_error null");
  EXPECT_EQ(row(Reason::kInvalidJson), "400 invalid_request_error invalid_json");
  EXPECT_EQ(row(Reason::kContextLength), "400 invalid_request_error context_length_exceeded");
  EXPECT_EQ(row(Reason::kNoChatTemplate), "400 invalid_request_error no_chat_template");
  EXPECT_EQ(row(Reason::kInvalidApiKey), "401 invalid_request_error invalid_api_key");
  EXPECT_EQ(row(Reason::kForbidden), "403 invalid_request_error forbidden");
  EXPECT_EQ(row(Reason::kModelNotFound), "404 invalid_request_error model_not_found");
  EXPECT_EQ(row(Reason::kUnknownPath), "404 invalid_request_error null");
  EXPECT_EQ(row(Reason::kAdapterInUse), "409 invalid_request_error adapter_in_use");
  EXPECT_EQ(row(Reason::kAdapterExists), "409 invalid_request_error adapter_exists");
  EXPECT_EQ(row(Reason::kNotJson), "415 invalid_request_error null");
  EXPECT_EQ(row(Reason::kQueueFull), "429 rate_limit_error queue_full");
  EXPECT_EQ(row(Reason::kTooManyConnections), "429 rate_limit_error too_many_connections");
  EXPECT_EQ(row(Reason::kInternal), "500 server_error internal_error");
  EXPECT_EQ(row(Reason::kStarting), "503 server_error starting");
  EXPECT_EQ(row(Reason::kShuttingDown), "503 server_error shutting_down");
  EXPECT_EQ(row(Reason::kEngineStalled), "503 server_error engine_stalled");
  EXPECT_EQ(row(Reason::kQueueTimeout), "503 server_error queue_timeout");
}

TEST(ApiErrors, AnswerTheStatusesOfTheHttpServer) {
  for (const int status : {400, 401, 403, 404, 405, 408, 411, 413, 415, 431, 500, 501}) {
    EXPECT_EQ(error_row(reason_of_status(status)).status, status);
  }
  EXPECT_EQ(reason_of_status(400), Reason::kInvalidRequest);
  EXPECT_EQ(reason_of_status(404), Reason::kUnknownPath);
  EXPECT_EQ(reason_of_status(503), Reason::kTooManyConnections);
  EXPECT_EQ(reason_of_status(418), Reason::kInternal);
}

TEST(ApiErrors, AreMadeOfErrorsOfTheLibrary) {
  const auto made = [](ErrorKind kind) { return refusal_of([&] { throw api_error_of(Error(kind, "why"), "r1"); }); };
  EXPECT_EQ(made(ErrorKind::kUsage), "400 - -: why");
  EXPECT_EQ(made(ErrorKind::kBadFormat), "400 - -: why");
  EXPECT_EQ(made(ErrorKind::kMismatch), "400 - -: why");
  EXPECT_EQ(made(ErrorKind::kNotFound), "404 - -: why");
  EXPECT_EQ(made(ErrorKind::kUnsupported), "400 unsupported_value -: why");
  EXPECT_EQ(made(ErrorKind::kInterrupted), "503 shutting_down -: why");
  EXPECT_EQ(made(ErrorKind::kIo), "500 internal_error -: request r1 failed: why");
  EXPECT_EQ(made(ErrorKind::kInternal), "500 internal_error -: request r1 failed: why");
  EXPECT_EQ(refusal_of([] { throw api_error_of(std::bad_alloc(), "r2"); }), "500 internal_error -: request r2 failed: std::bad_alloc");
  EXPECT_EQ(api_error_of(std::bad_alloc(), "r2").headers(), (Headers{{"x-should-retry", "false"}}));
  EXPECT_EQ(refusal_of([] { throw api_error_of(ApiError(Reason::kQueueFull, "full", "p"), "r3"); }), "429 queue_full p: full");
}

TEST(ApiErrors, OfUnknownModelsNameWhatIsServed) {
  EXPECT_EQ(refusal_of([] {
              throw model_not_found("arow", {"base", "arrow", "lag"});
            }),
            "404 model_not_found model: the model 'arow' does not exist (did you mean 'arrow'?); served are base, arrow, lag");
  std::vector<std::string> names;
  for (int i = 0; i < 25; ++i) names.push_back("adapter" + std::to_string(i));
  const std::string message = model_not_found("zzzzzzzzzzzzzz", names).what();
  EXPECT_THAT(message, HasSubstr("adapter18, adapter19 and 5 more (GET /v1/models lists all)"));
  EXPECT_THAT(message, Not(HasSubstr("adapter20")));
  EXPECT_LT(std::string(model_not_found(std::string(1'000'000, 'x'), names).what()).size(), 600);
}

TEST(ApiErrors, OfTheContextHoldThePhraseThatClientsLookFor) {
  EXPECT_THAT(
      refusal_of([] { throw context_exceeded(2000, 100, 2048); }),
      HasSubstr("400 context_length_exceeded max_tokens: this model's maximum context length is 2048 tokens, but 2100 were requested: "
                "2000 of the prompt and 100 of the answer"));
}

TEST(ApiErrors, SayWhenToTryAgain) {
  const auto seconds = [](double value) { return retry_later(Reason::kQueueFull, "full", value).headers().at(0).second; };
  EXPECT_EQ(retry_later(Reason::kQueueFull, "full", 2.1).headers().at(0).first, "Retry-After");
  EXPECT_EQ(seconds(2.1), "3");
  EXPECT_EQ(seconds(0), "1");
  EXPECT_EQ(seconds(-5), "1");
  EXPECT_EQ(seconds(1e9), "60");
  EXPECT_EQ(seconds(0.0 / 0.0), "60");
}

TEST(Clipped, CutsAtABorderOfCharacters) {
  EXPECT_EQ(clipped("abc"), "abc");
  EXPECT_EQ(clipped(std::string(100, 'a')), std::string(100, 'a'));
  EXPECT_EQ(clipped(std::string(101, 'a')), std::string(100, 'a') + "...");
  EXPECT_EQ(clipped(std::string(99, 'a') + "\u00e9\u00e9"), std::string(99, 'a') + "...");
  EXPECT_EQ(clipped("a\xff"), "a\uFFFD");
}

}  // namespace
}  // namespace quiver::api
