#include "quiver/model/generate.h"

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/schedule/scheduler.h"

namespace quiver::model {
namespace {

using schedule::Finish;
using schedule::Request;

std::vector<Request> requests_of(const Model& model, std::span<const std::vector<std::int32_t>> prompts,
                                 const schedule::RequestOptions& request, const GenerateOptions& options) {
  if (!options.groups.empty() && options.groups.size() != prompts.size()) {
    fail(ErrorKind::kUsage, "{} groups for {} prompts; expected one a prompt", options.groups.size(), prompts.size());
  }
  if (!options.names.inputs.empty() && options.names.inputs.size() != prompts.size()) {
    fail(ErrorKind::kUsage, "{} names for {} prompts; expected one a prompt", options.names.inputs.size(), prompts.size());
  }
  std::vector<Request> requests;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    requests.push_back({.tokens = prompts[i], .options = request, .name = options.names.input(index)});
    if (!options.groups.empty()) requests.back().assignment = std::make_shared<const GroupAssignment>(options.groups[i]);
    requests.back().options.sampler.stream = format("generate/{}", options.first_index + index);
    schedule::check_request(requests.back(), model.spec().vocab_size, model.spec().max_positions);
  }
  return requests;
}

/// Rows of a KV cache that hold all requests at once: what prompts have in common once, and pages that are not full.
std::int64_t cache_rows_for(const Model& model, std::span<const Request> requests, std::int64_t page_rows) {
  const auto in_pages = [&](std::int64_t rows) { return (rows + page_rows - 1) / page_rows * page_rows; };
  std::vector<forest::Sequence> sequences;
  std::int64_t rows = 0;
  for (const auto& request : requests) {
    const auto* group = static_cast<const GroupAssignment*>(request.assignment.get());
    sequences.push_back({request.tokens, 0, group == nullptr || group->group == nullptr ? 0 : *group->group});
    const auto room = model.spec().max_positions - static_cast<std::int64_t>(request.tokens.size());
    rows += in_pages(std::min(request.options.max_new_tokens, room)) + 2 * page_rows;
  }
  return rows + in_pages(forest::build_batch(sequences, {.keep_last_token = true}).forest.num_rows());
}

}  // namespace

std::vector<std::vector<std::int32_t>> generate(const Model& model, std::span<const std::vector<std::int32_t>> prompts,
                                                const schedule::RequestOptions& request, const GenerateOptions& options,
                                                const TokenCallback& on_token) {
  if (options.max_batch < 1) fail(ErrorKind::kUsage, "max_batch is {}; expected 1 or more", options.max_batch);
  const auto requests = requests_of(model, prompts, request, options);
  const schedule::SchedulerOptions scheduling{.max_sequences = options.max_batch};
  std::vector<std::vector<std::int32_t>> results(prompts.size());
  for (std::size_t first = 0; first < requests.size(); first += static_cast<std::size_t>(options.max_batch)) {
    const auto some = std::span(requests).subspan(first, std::min(requests.size() - first, static_cast<std::size_t>(options.max_batch)));
    ModelEngine engine(model, cache_rows_for(model, some, scheduling.page_rows));
    schedule::Scheduler scheduler(engine, scheduling);
    for (const auto& one : some) scheduler.add(one);  // its id is its index
    while (!scheduler.is_empty() && !options.stop.stop_requested()) {
      const auto events = scheduler.step();
      for (const auto& event : events) {
        if (event.finish == Finish::kNotFinite) fail_not_finite(some[event.id].name, options.names.model);
      }
      for (const auto& event : events) {
        results[first + event.id].push_back(event.token);
        if (on_token && !on_token(static_cast<std::int64_t>(first + event.id), event.token)) scheduler.remove(event.id);
      }
    }
  }
  return results;
}

}  // namespace quiver::model
