#include "quiver/train/training_run.h"

#include <chrono>

#include "quiver/base/error.h"
#include "quiver/train/adapter_group.h"

namespace quiver::train {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

void restore(const TrainingJob& job, Progress& progress) {
  fs::create_directories(job.checkpoint.parent_path());
  if (fs::exists(job.checkpoint) && !job.trainer->restore(job.checkpoint, job.key)) {
    progress.message(format("'{}' is of other settings; training '{}' from the start", job.checkpoint.string(), job.name));
  }
}

/// Where a stage that was begun goes on.
void announce(const TrainingJob& job, Progress& progress) {
  if (job.trainer->step() == 0) return;
  progress.message(format("'{}' goes on after step {} of {}", job.name, job.trainer->step(), job.trainer->num_steps()));
  progress.resume(job.trainer->stats().tokens);
}

}  // namespace

double run_training(Trainer& trainer, const std::string& name, const fs::path& checkpoint, const std::string& key,
                    double checkpoint_seconds, Progress& progress) {
  const TrainingJob job{&trainer, name, checkpoint, key};
  restore(job, progress);
  const double seconds_before = trainer.stats().seconds;
  progress.begin("train " + name, trainer.num_tokens(), "tokens");
  announce(job, progress);
  auto saved = Clock::now();
  while (!trainer.is_done()) {
    const auto tokens = trainer.next_batch_tokens();
    try {
      trainer.run_step();
    } catch (const Error& error) {
      trainer.save(checkpoint, key);  // as it was before the step
      fail(error.kind(), "{}; the state before that step is kept in '{}'", error.what(), checkpoint.string());
    }
    progress.advance(tokens, format("loss {:.3f}", trainer.stats().losses.back()));
    const bool stop = stop_requested();
    if (!trainer.is_done() && (stop || std::chrono::duration<double>(Clock::now() - saved).count() >= checkpoint_seconds)) {
      trainer.save(checkpoint, key);
      saved = Clock::now();
    }
    if (!trainer.is_done()) throw_if_stopped(format("after step {} of {} of adapter '{}'", trainer.step(), trainer.num_steps(), name));
  }
  progress.end();
  return trainer.stats().seconds - seconds_before;
}

void run_together(const model::Model& base, const std::vector<TrainingJob>& jobs, double checkpoint_seconds, Progress& progress) {
  std::vector<Trainer*> members;
  std::int64_t num_tokens = 0;
  for (const auto& job : jobs) {
    restore(job, progress);
    members.push_back(job.trainer);
    num_tokens += job.trainer->num_tokens();
  }
  AdapterGroup group(base, members);
  progress.begin(format("train {} adapters together", jobs.size()), num_tokens, "tokens");
  for (const auto& job : jobs) announce(job, progress);
  const auto save = [&jobs] {
    for (const auto& job : jobs) job.trainer->save(job.checkpoint, job.key);
  };
  auto saved = Clock::now();
  while (!group.is_done()) {
    const auto tokens = group.next_batch_tokens();
    try {
      group.run_step();
    } catch (const Error& error) {
      save();
      fail(error.kind(), "{}; the states are kept in '{}'", error.what(), jobs.front().checkpoint.parent_path().string());
    }
    double loss = 0;
    for (const auto* member : members) loss += member->stats().losses.back() / static_cast<double>(members.size());
    progress.advance(tokens, format("mean loss {:.3f}", loss));
    const bool stop = stop_requested();
    if (!group.is_done() && (stop || std::chrono::duration<double>(Clock::now() - saved).count() >= checkpoint_seconds)) {
      save();
      saved = Clock::now();
    }
    if (!group.is_done()) throw_if_stopped(format("while training {} adapters together", jobs.size()));
  }
  progress.end();
}

void remove_checkpoint(const fs::path& checkpoint) {
  std::error_code ignored;
  fs::remove(checkpoint, ignored);
  for (const auto& entry : fs::directory_iterator(checkpoint.parent_path(), ignored)) {
    if (entry.path().filename().string().starts_with("." + checkpoint.filename().string())) fs::remove(entry.path(), ignored);
  }
}

}  // namespace quiver::train
