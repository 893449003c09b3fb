#include "quiver/model/generate.h"

#include <algorithm>

#include "quiver/base/error.h"

namespace quiver::model {
namespace {

std::vector<Request> requests_of(const Model& model, std::span<const std::vector<std::int32_t>> prompts, const RequestOptions& request,
                                 const GenerateOptions& options) {
  if (!options.assignments.empty() && options.assignments.size() != prompts.size()) {
    fail(ErrorKind::kUsage, "{} assignments for {} prompts; expected one a prompt", options.assignments.size(), prompts.size());
  }
  if (!options.names.inputs.empty() && options.names.inputs.size() != prompts.size()) {
    fail(ErrorKind::kUsage, "{} names for {} prompts; expected one a prompt", options.names.inputs.size(), prompts.size());
  }
  std::vector<Request> requests;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    requests.push_back({prompts[i], request, options.assignments.empty() ? nullptr : options.assignments[i], options.names.input(index)});
    requests.back().options.sampler.stream = format("generate/{}", options.first_index + index);
    check_request(model, requests.back());
  }
  return requests;
}

}  // namespace

std::vector<std::vector<std::int32_t>> generate(const Model& model, std::span<const std::vector<std::int32_t>> prompts,
                                                const RequestOptions& request, const GenerateOptions& options,
                                                const TokenCallback& on_token) {
  if (options.max_batch < 1) fail(ErrorKind::kUsage, "max_batch is {}; expected 1 or more", options.max_batch);
  const auto requests = requests_of(model, prompts, request, options);
  std::vector<std::vector<std::int32_t>> results(prompts.size());
  for (std::size_t first = 0; first < requests.size(); first += static_cast<std::size_t>(options.max_batch)) {
    const auto some = std::span(requests).subspan(first, std::min(requests.size() - first, static_cast<std::size_t>(options.max_batch)));
    Session session(model, {.max_batch = options.max_batch, .cache_rows = cache_rows_for(model, some)});
    for (const auto& one : some) session.add(one);  // its id is its index
    while (!session.is_empty() && !options.stop.stop_requested()) {
      const auto chosen = session.step();
      for (const auto& [id, token, finish] : chosen) {
        if (finish == Finish::kNotFinite) fail_not_finite(some[id].name, options.names.model);
      }
      for (const auto& [id, token, finish] : chosen) {
        results[first + id].push_back(token);
        if (on_token && !on_token(static_cast<std::int64_t>(first + id), token)) session.remove(id);
      }
    }
  }
  return results;
}

}  // namespace quiver::model
