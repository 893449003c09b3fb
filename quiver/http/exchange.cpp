#include "quiver/http/exchange.h"

#include <algorithm>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::http {

void Mailbox::post(Function function) {
  const std::lock_guard lock(mutex_);
  if (deliver_) deliver_(std::move(function));
}

void Mailbox::close() {
  const std::lock_guard lock(mutex_);
  deliver_ = nullptr;
}

ResponderPtr Exchange::responder() {
  return {this, [self = shared_from_this()](Responder*) { self->drop(); }};
}

void Exchange::wake() {
  if (is_woken_) return;
  mailbox_->post(options_.wake);
  is_woken_ = true;
}

void Exchange::require(Stage stage, std::string_view call) const {
  if (stage_ == stage) return;
  fail(ErrorKind::kUsage, "{} is out of place: an HTTP request is answered once, by send, or by begin_stream, write and end", call);
}

void Exchange::begin(int status, std::string_view content_type, const Headers& headers, Framing framing, std::size_t content_length) {
  const bool keeps_alive = framing != Framing::kUntilClose && options_.keeps_alive && !mailbox_->is_draining;
  framing_ = has_no_body(status) ? Framing::kBodiless : framing;
  ready_ += answer_head({.status = status,
                         .content_type = content_type,
                         .framing = framing_,
                         .content_length = content_length,
                         .keeps_alive = keeps_alive,
                         .is_http_1_0 = options_.is_http_1_0},
                        headers);
  keeps_alive_ = keeps_alive;
}

void Exchange::send(Response response) {
  std::function<void()> released;  // outlives the lock: what it owns may come back here
  const std::lock_guard lock(mutex_);
  if (stage_ == Stage::kClientGone) return;
  require(Stage::kUnanswered, "send");
  begin(response.status, response.content_type, response.headers, Framing::kLength, response.body.size());
  if (!options_.is_head && framing_ == Framing::kLength) ready_ += response.body;
  stage_ = Stage::kEnded;
  released.swap(on_gone_);
  wake();
}

void Exchange::begin_stream(int status, std::string content_type, Headers headers) {
  const std::lock_guard lock(mutex_);
  if (stage_ == Stage::kClientGone) return;
  require(Stage::kUnanswered, "begin_stream");
  begin(status, content_type, headers, options_.is_http_1_0 ? Framing::kUntilClose : Framing::kChunked, 0);
  stage_ = Stage::kStreaming;
  wake();
}

bool Exchange::write(std::string chunk) {
  const std::lock_guard lock(mutex_);
  if (stage_ == Stage::kClientGone || stage_ == Stage::kTooSlow) return false;
  require(Stage::kStreaming, "write");
  if (chunk.empty() || options_.is_head || framing_ == Framing::kBodiless) return true;  // an empty chunk would end the answer
  if (framing_ == Framing::kChunked) ready_ += format("{:x}\r\n", chunk.size());
  ready_ += chunk;
  if (framing_ == Framing::kChunked) ready_ += "\r\n";
  if (ready_.size() + in_flight_ > options_.max_pending_bytes) {
    stage_ = Stage::kTooSlow;
    mailbox_->post(options_.cut);
    return false;
  }
  wake();
  return true;
}

void Exchange::end() {
  std::function<void()> released;
  const std::lock_guard lock(mutex_);
  if (stage_ == Stage::kClientGone || stage_ == Stage::kTooSlow) return;
  require(Stage::kStreaming, "end");
  if (framing_ == Framing::kChunked && !options_.is_head) ready_ += "0\r\n\r\n";
  stage_ = Stage::kEnded;
  released.swap(on_gone_);
  wake();
}

void Exchange::drop() {
  std::function<void()> released;
  const std::lock_guard lock(mutex_);
  if (stage_ != Stage::kUnanswered && stage_ != Stage::kStreaming) return;
  stage_ = stage_ == Stage::kUnanswered ? Stage::kDropped : Stage::kCut;
  released.swap(on_gone_);
  wake();
}

std::size_t Exchange::pending_bytes() const {
  const std::lock_guard lock(mutex_);
  return ready_.size() + in_flight_;
}

bool Exchange::is_open() const {
  const std::lock_guard lock(mutex_);
  return stage_ != Stage::kClientGone && stage_ != Stage::kTooSlow;
}

void Exchange::on_gone(std::function<void()> call) {
  std::function<void()> released;
  const std::lock_guard lock(mutex_);
  if (stage_ == Stage::kClientGone) return mailbox_->post(std::move(call));
  if (stage_ == Stage::kEnded) return;
  released = std::exchange(on_gone_, std::move(call));
}

Exchange::Output Exchange::take() {
  const std::lock_guard lock(mutex_);
  is_woken_ = false;
  in_flight_ += ready_.size();
  return {std::exchange(ready_, {}), stage_};
}

void Exchange::taken(std::size_t num_bytes) {
  const std::lock_guard lock(mutex_);
  in_flight_ -= std::min(in_flight_, num_bytes);  // client_gone() has set it to 0
}

void Exchange::client_gone() {
  std::function<void()> call;
  {
    const std::lock_guard lock(mutex_);
    stage_ = Stage::kClientGone;
    ready_ = {};
    in_flight_ = 0;
    call.swap(on_gone_);
  }
  if (call) call();
}

bool Exchange::keeps_alive() const {
  const std::lock_guard lock(mutex_);
  return keeps_alive_ && !mailbox_->is_draining;
}

}  // namespace quiver::http
