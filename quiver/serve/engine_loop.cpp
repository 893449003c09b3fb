#include "quiver/serve/engine_loop.h"

#include <memory>

#include "quiver/base/error.h"

namespace quiver::serve {

using Clock = std::chrono::steady_clock;
using schedule::Event;
using schedule::Finish;
using schedule::RequestId;

EngineLoop::EngineLoop(schedule::Engine& engine, const schedule::SchedulerOptions& options, std::function<void()> on_start)
    : scheduler_(engine, options), on_start_(std::move(on_start)), last_beat_(Clock::now()) {
  status_.counts = scheduler_.counts();
  thread_ = std::thread([this] { run(); });
}

EngineLoop::~EngineLoop() { stop(); }

void EngineLoop::stop() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::vector<Ticket> EngineLoop::submit(std::vector<Submission> submissions) {
  std::vector<Ticket> tickets;
  for (std::size_t i = 0; i < submissions.size(); ++i) tickets.push_back(next_ticket_++);
  num_open_ += static_cast<std::int64_t>(submissions.size());
  auto shared = std::make_shared<std::vector<Submission>>(std::move(submissions));
  {
    const std::lock_guard lock(mutex_);
    commands_.emplace_back([this, tickets, shared] {
      for (std::size_t i = 0; i < tickets.size(); ++i) add(tickets[i], std::move((*shared)[i]));
    });
  }
  changed_.notify_one();
  return tickets;
}

void EngineLoop::cancel(Ticket ticket) {
  {
    const std::lock_guard lock(mutex_);
    commands_.emplace_back([this, ticket] {
      const auto found = id_of_.find(ticket);
      if (found == id_of_.end()) return;
      scheduler_.remove(found->second);
      open_.erase(found->second);
      id_of_.erase(found);
      --num_open_;
    });
  }
  changed_.notify_one();
}

void EngineLoop::set_paused(Ticket ticket, bool is_paused) {
  {
    const std::lock_guard lock(mutex_);
    commands_.emplace_back([this, ticket, is_paused] {
      if (const auto found = id_of_.find(ticket); found != id_of_.end()) scheduler_.set_paused(found->second, is_paused);
    });
  }
  changed_.notify_one();
}

void EngineLoop::fail_waiting(std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    commands_.emplace_back([this, error = std::move(error)] {
      std::vector<RequestId> waiting;
      for (const auto& [id, open] : open_) {
        if (!open.has_begun && scheduler_.is_waiting(id)) waiting.push_back(id);
      }
      for (const auto id : waiting) fail(id, error);
    });
  }
  changed_.notify_one();
}

LoopStatus EngineLoop::status() const {
  const std::lock_guard lock(mutex_);
  auto status = status_;
  if (has_work_) status.seconds_since_beat = std::chrono::duration<double>(Clock::now() - last_beat_).count();
  return status;
}

void EngineLoop::run() {
  if (on_start_) on_start_();
  while (true) {
    std::vector<std::function<void()>> commands;
    {
      std::unique_lock lock(mutex_);
      has_work_ = scheduler_.has_work();
      if (!has_work_) changed_.wait(lock, [this] { return ends_ || !commands_.empty(); });
      if (ends_) return;
      commands.swap(commands_);
    }
    for (auto& command : commands) command();
    {
      const std::lock_guard lock(mutex_);
      has_work_ = scheduler_.has_work();
      last_beat_ = Clock::now();
    }
    if (has_work_) step();
    const auto counts = scheduler_.counts();
    const std::lock_guard lock(mutex_);
    status_.counts = counts;
  }
}

void EngineLoop::add(Ticket ticket, Submission submission) {
  try {
    const auto id = scheduler_.add(std::move(submission.request));
    open_[id] = {ticket, std::move(submission.on_event)};
    id_of_[ticket] = id;
  } catch (...) {
    --num_open_;
    submission.on_event({.finish = Finish::kError, .error = std::current_exception()});
  }
}

void EngineLoop::step() {
  const auto start = Clock::now();
  try {
    for (auto& event : scheduler_.step()) tell(std::move(event));
    const std::lock_guard lock(mutex_);
    status_.last_step_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  } catch (...) {
    const auto error = std::current_exception();
    const auto failed = scheduler_.in_last_step();
    for (const auto id : failed) fail(id, error);
    const std::lock_guard lock(mutex_);
    ++status_.failed_steps;
  }
}

void EngineLoop::tell(Event event) {
  const auto found = open_.find(event.id);
  if (found == open_.end()) return;
  found->second.has_begun = true;
  if (!event.finish) {
    found->second.on_event(std::move(event));
    return;
  }
  const auto on_event = std::move(found->second.on_event);
  id_of_.erase(found->second.ticket);
  open_.erase(found);
  --num_open_;
  on_event(std::move(event));
}

void EngineLoop::fail(RequestId id, const std::exception_ptr& error) {
  scheduler_.remove(id);
  tell({.id = id, .finish = Finish::kError, .error = error});
}

}  // namespace quiver::serve
