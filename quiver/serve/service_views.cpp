// The endpoints that tell of the server: health, status, metrics, and the page.
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/serve/service_call.h"
#include "quiver/serve/web_assets.h"

namespace quiver::serve {

using api::ApiError;
using api::Reason;
using nlohmann::json;

void Service::health(Call& call) {
  if (call.request.query.contains("ready")) return ready(call);
  send_json(call, R"({"status":"ok"})");
}

void Service::ready(Call& call) {
  expect_ready();
  if (loop_.status().seconds_since_beat > options_.stall_seconds) {
    throw api::retry_later(Reason::kEngineStalled, "the engine makes no steps", 10);
  }
  send_json(call, R"({"status":"ready"})");
}

void Service::show_status(Call& call) {
  const auto status = loop_.status();
  const auto& counts = status.counts;
  const auto now = std::chrono::steady_clock::now();
  json errors = json::array(), adapters = json::array();
  json requests, rates;
  const auto models = models_.list();
  {
    const std::lock_guard lock(mutex_);
    for (const auto& fault : faults_) {
      errors.push_back({{"time", fault.time}, {"status", fault.status}, {"message", fault.message}, {"request", fault.request}});
    }
    for (const auto& model : models) {
      if (model.kind != "adapter" || model.id.starts_with("adapter:")) continue;
      const auto found = requests_.find(model.id);
      adapters.push_back({{"name", model.id},
                          {"bytes", model.bytes},
                          {"requests", found == requests_.end() ? 0 : found->second},
                          {"is_ready", model.is_ready}});
    }
    requests = {{"finished", finished_}, {"failed", failed_}, {"cancelled", cancelled_}};
    const auto rate = [&](std::uint64_t Sample::*count) {
      if (samples_.size() < 2) return 0.0;
      const auto& first = samples_.front();
      const auto& last = samples_.back();
      return static_cast<double>(last.*count - first.*count) / std::chrono::duration<double>(last.time - first.time).count();
    };
    rates = {{"generated", rate(&Sample::generated)}, {"prompt", rate(&Sample::computed)}};
  }
  const json body = {
      {"version", options_.version},
      {"base", options_.base_name},
      {"uptime_seconds", std::chrono::duration<double>(now - start_).count()},
      {"is_ready", !is_draining_ && status.seconds_since_beat <= options_.stall_seconds},
      {"connections", connections_ ? connections_() : 0},
      {"running", counts.num_running},
      {"waiting", counts.num_waiting},
      {"pages",
       {{"used", counts.num_pages - counts.num_free_pages - counts.num_cached_pages},
        {"cached", counts.num_cached_pages},
        {"free", counts.num_free_pages},
        {"rows", options_.page_rows}}},
      {"cache",
       {{"hit_tokens", counts.cached_tokens}, {"prompt_tokens", counts.cached_tokens + counts.computed_tokens - counts.generated_tokens}}},
      {"tokens_per_second", std::move(rates)},
      {"requests", std::move(requests)},
      {"adapters", std::move(adapters)},
      {"can_change_adapters", !options_.admin_key.empty()},
      {"errors", std::move(errors)}};
  send_json(call, io::dump_json(body, "the status"));
}

void Service::show_metrics(Call& call) {
  const auto status = loop_.status();
  const auto& counts = status.counts;
  const auto gauge = [](auto value) { return static_cast<double>(value); };
  std::vector<std::tuple<std::string, Labels, double>> gauges = {
      {"quiver_steps_total", {}, gauge(counts.steps)},
      {"quiver_failed_steps_total", {}, gauge(status.failed_steps)},
      {"quiver_preemptions_total", {}, gauge(counts.preemptions)},
      {"quiver_running", {}, gauge(counts.num_running)},
      {"quiver_waiting", {}, gauge(counts.num_waiting)},
      {"quiver_kv_pages", {{"state", "free"}}, gauge(counts.num_free_pages)},
      {"quiver_kv_pages", {{"state", "cached"}}, gauge(counts.num_cached_pages)},
      {"quiver_kv_pages", {{"state", "used"}}, gauge(counts.num_pages - counts.num_free_pages - counts.num_cached_pages)},
      {"quiver_step_seconds", {}, status.last_step_seconds},
      {"quiver_build_info", {{"version", options_.version}}, 1}};
  gauges.emplace_back("quiver_adapters", Labels{}, gauge(std::ranges::count_if(models_.list(), [](const auto& model) {
                        return model.kind == "adapter" && !model.id.starts_with("adapter:");
                      })));
  if (connections_) gauges.emplace_back("quiver_connections", Labels{}, gauge(connections_()));
  call.responder->send({.status = 200,
                        .body = metrics_.text(gauges),
                        .content_type = "text/plain; version=0.0.4; charset=utf-8",
                        .headers = headers_of(call.id)});
}

void Service::page(Call& call) {
  const auto* file = find_web_file(call.request.path);
  if (file == nullptr || (call.request.method != "GET" && call.request.method != "HEAD")) {
    throw ApiError(Reason::kUnknownPath, format("there is no endpoint '{}'", api::clipped(call.request.path)));
  }
  http::Headers headers = {{"ETag", std::string(file->etag)}, {"Cache-Control", "no-cache"}, {"Vary", "Accept-Encoding"}};
  for (const auto& [name, value] : page_headers()) headers.emplace_back(name, value);
  if (call.request.header("if-none-match") == file->etag) return call.responder->send({.status = 304, .headers = std::move(headers)});
  const bool is_gzipped = call.request.header("accept-encoding").find("gzip") != std::string_view::npos;
  if (is_gzipped) headers.emplace_back("Content-Encoding", "gzip");
  call.responder->send({.status = 200,
                        .body = std::string(is_gzipped ? file->gzip : file->content),
                        .content_type = std::string(file->content_type),
                        .headers = std::move(headers)});
}

}  // namespace quiver::serve
