// Requests to the service over fake models and a fake engine, without sockets: each gets one whole answer, and nothing of it stays.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "fuzz/support.h"
#include "fuzz/tokenizer.h"
#include "quiver/base/utf8.h"
#include "quiver/serve/fake_models.h"

namespace quiver::fuzz {

/// A client that takes `most_writes` chunks of a stream and then goes.
class RecordingResponder : public http::Responder {
 public:
  explicit RecordingResponder(int most_writes) : most_writes_(most_writes) {}

  void send(http::Response response) override {
    const std::lock_guard lock(mutex_);
    expect_now(!has_begun_ && !has_ended_, "a second answer");
    answer_ = std::move(response);
    has_ended_ = true;
  }
  void begin_stream(int status, std::string content_type, http::Headers headers) override {
    const std::lock_guard lock(mutex_);
    expect_now(!has_begun_ && !has_ended_, "a second answer");
    has_begun_ = true;
    answer_ = {.status = status, .content_type = std::move(content_type), .headers = std::move(headers)};
  }
  bool write(std::string chunk) override {
    const std::lock_guard lock(mutex_);
    expect_now(has_begun_ && !has_ended_, "a chunk outside a stream");
    answer_.body += chunk;
    is_gone_ = --most_writes_ <= 0;
    return !is_gone_;
  }
  void end() override {
    const std::lock_guard lock(mutex_);
    expect_now(has_begun_ && !has_ended_, "an end outside a stream");
    has_ended_ = true;
  }
  std::size_t pending_bytes() const override { return 0; }
  bool is_open() const override {
    const std::lock_guard lock(mutex_);
    return !is_gone_ && !has_ended_;
  }
  void on_gone(std::function<void()> call) override {
    const std::lock_guard lock(mutex_);
    on_gone_ = std::move(call);
  }

  /// What the server's thread does when it notices that the client has gone.
  void notice() {
    std::function<void()> call;
    {
      const std::lock_guard lock(mutex_);
      if (is_gone_) call = std::exchange(on_gone_, nullptr);
    }
    if (call) call();
  }
  bool is_over() const {
    const std::lock_guard lock(mutex_);
    return is_gone_ || has_ended_;
  }
  bool is_gone() const {
    const std::lock_guard lock(mutex_);
    return is_gone_;
  }
  /// Once it is over.
  const http::Response& answer() const { return answer_; }
  const char* finding() const { return finding_; }

 private:
  void expect_now(bool condition, const char* what) {  // an exception would end a thread of the service
    if (!condition) finding_ = what;
  }
  mutable std::mutex mutex_;
  int most_writes_;
  http::Response answer_;
  bool has_begun_ = false, has_ended_ = false, is_gone_ = false;
  std::function<void()> on_gone_;
  std::atomic<const char*> finding_{nullptr};
};

/// A service with keys, limits and time limits of its own, over models whose answers are hashes.
class ServiceTarget {
 public:
  static constexpr std::int64_t kContext = 48;
  static constexpr const char* kKey = "key";
  static constexpr const char* kAdminKey = "admin";

  ServiceTarget()
      : tokenizer_(lossless_tokenizer()),
        chat_("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "fuzz", tokenizer_),
        engine_({.vocab_size = tokenizer_.vocab_size(), .context_length = kContext, .num_cache_rows = 2048}),
        loop_(engine_, {.max_sequences = 8, .page_rows = 4}),
        service_(models_, tokenizer_, &chat_, loop_, options()) {}

  /// The answer, or none if the client went before it was whole.
  std::optional<http::Response> exchange(http::Request request, int most_writes) {
    const auto handlers = service_.handlers();
    expect(handlers.body_limit(request) <= (std::size_t{4} << 20), "a limit beyond the options");
    if (request.body.size() > handlers.body_limit(request)) return handlers.refuse(413, "too large");
    if (auto refused = handlers.check(request)) return refused;
    const auto responder = std::make_shared<RecordingResponder>(most_writes);
    handlers.handle(std::move(request), responder);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    const auto is_settled = [&] {
      responder->notice();
      service_.tick();
      const auto counts = loop_.status().counts;
      return responder->is_over() && service_.is_idle() && loop_.num_open() == 0 && responder.use_count() == 1 &&
             counts.num_free_pages + counts.num_cached_pages == counts.num_pages;
    };
    while (!is_settled()) {
      expect(std::chrono::steady_clock::now() < end, "a request does not end, or something of it stays");
      std::this_thread::yield();
    }
    expect(responder->finding() == nullptr, responder->finding());
    if (responder->is_gone()) return std::nullopt;
    return responder->answer();
  }

 private:
  static serve::ServiceOptions options() {
    auto options = serve::service_options();
    options.api_key = kKey;
    options.admin_key = kAdminKey;
    options.hosts = {"localhost"};
    options.limits.vocab_size = lossless_tokenizer().vocab_size();
    options.limits.context_length = kContext;
    options.page_rows = 4;
    options.log = [](const std::string& line) { expect(nlohmann::json::accept(line), "a line of the log is not JSON"); };
    return options;
  }

  text::Tokenizer tokenizer_;
  text::ChatTemplate chat_;
  serve::FakeModels models_;
  schedule::FakeEngine engine_;
  serve::EngineLoop loop_;
  serve::Service service_;
};

/// The events of a whole stream are JSON, and the last says that it is done or why not.
inline void check_stream(std::string_view body) {
  bool is_done = false, has_error = false;
  while (!body.empty()) {
    const auto end = body.find("\n\n");
    expect(end != std::string_view::npos, "an event without an end");
    const auto event = body.substr(0, end);
    body.remove_prefix(end + 2);
    if (event.starts_with(": ")) continue;
    expect(!is_done && !has_error, "an event behind the last");
    expect(event.starts_with("data: "), "what is no event");
    is_done = event == "data: [DONE]";
    if (is_done) continue;
    const auto document = nlohmann::json::parse(event.substr(6), nullptr, /*allow_exceptions=*/false);
    expect(document.is_object(), "an event is no object");
    has_error = document.contains("error");
  }
  expect(is_done || has_error, "a stream without a last event");
}

/// What anyone may rely on, whatever was asked.
inline void check_answer(const http::Response& answer) {
  static const std::set<int> kStatuses = {200, 204, 304, 400, 401, 403, 404, 405, 409, 413, 415, 429, 503};
  expect(kStatuses.contains(answer.status), "another status");
  for (const auto& [name, value] : answer.headers) {
    expect(std::ranges::all_of(value, [](char c) { return c >= ' ' && c <= '~'; }), "a header with a control byte");
  }
  if (answer.content_type.starts_with("text/event-stream")) return check_stream(answer.body);
  if (answer.content_type != "application/json" || answer.status == 204) return;
  const auto document = nlohmann::json::parse(answer.body, nullptr, /*allow_exceptions=*/false);
  expect(document.is_object(), "an answer is no JSON");
  expect(document.contains("error") == (answer.status >= 400), "an error with another status");
  if (answer.status >= 400) expect(answer.body.size() < 4000, "an error repeats what was sent");
}

/// Lines as HTTP has them, then an empty one and a body: "POST /path", "name: value". Byte 0: which key comes along, and after how many
/// chunks the client goes.
inline void run_service(std::span<const std::byte> bytes) {
  static std::unique_ptr<ServiceTarget> target;
  if (bytes.empty()) return;
  if (target == nullptr) target = std::make_unique<ServiceTarget>();
  const auto choice = static_cast<unsigned>(bytes[0]);
  auto rest = text_of(bytes).substr(1);
  const auto take_line = [&] {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    return line;
  };
  http::Request request;
  const auto first = take_line();
  request.method = first.substr(0, first.find(' '));
  request.path = first.substr(std::min(request.method.size() + 1, first.size()));
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; };
  if (!request.path.starts_with('/') || !is_valid_utf8(request.path) || std::ranges::any_of(request.path, is_control)) return;
  request.headers = {{"host", "localhost"}, {"content-type", "application/json"}};
  constexpr const char* kKeys[] = {"", ServiceTarget::kKey, ServiceTarget::kAdminKey, "wrong"};
  request.headers["authorization"] = std::string("Bearer ") + kKeys[choice % 4];
  for (auto line = take_line(); !line.empty(); line = take_line()) {
    const auto colon = line.find(": ");
    if (colon != std::string_view::npos) request.headers[std::string(line.substr(0, colon))] = line.substr(colon + 2);
  }
  request.body = rest;
  request.content_length = rest.size();
  const int most_writes = choice / 4 % 8 == 0 ? 1 << 30 : static_cast<int>(choice / 4 % 8);
  if (const auto answer = target->exchange(std::move(request), most_writes)) check_answer(*answer);
  if (choice % 4 == 2) target.reset();  // the admin may have changed adapters: what a run does must follow from its bytes alone
}

}  // namespace quiver::fuzz
