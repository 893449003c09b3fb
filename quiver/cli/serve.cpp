#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>
#include <set>

#include "quiver/api/generation.h"
#include "quiver/base/error.h"
#include "quiver/base/memory.h"
#include "quiver/cli/allocator.h"
#include "quiver/cli/command.h"
#include "quiver/cli/terminal.h"
#include "quiver/data/prompt_format.h"
#include "quiver/engine/catalogue.h"
#include "quiver/engine/serving_engine.h"
#include "quiver/http/server.h"
#include "quiver/serve/access.h"
#include "quiver/serve/engine_loop.h"
#include "quiver/serve/service.h"

namespace quiver::cli {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

struct ServeOptions {
  CommonOptions common;
  http::ServerOptions server{.port = 8080};
  engine::CatalogueOptions catalogue;
  serve::ServiceOptions service;
  schedule::SchedulerOptions scheduler{.max_step_seconds = 0.05};
  std::vector<std::string> adapter_dirs, aliases, allow_hosts, preload;
  std::int64_t kv_mib = 0, max_step_ms = 50, max_body_mib = 4, drain_seconds = 30, queue_seconds = 300;
  bool has_no_auth = false, is_strict = false, logs_requests = false;
};

bool is_loopback(const std::string& address) { return address.starts_with("127.") || address == "::1"; }

void check(const ServeOptions& options) {
  if (!is_loopback(options.server.address) && options.service.api_key.empty() && !options.has_no_auth) {
    fail(ErrorKind::kUsage, "--host {} can be reached from other machines: give --api-key, or --no-auth to serve anybody",
         options.server.address);
  }
}

/// Rows of the cache: as many as --kv-memory holds, or a quarter of what is free; one full context at least.
std::int64_t cache_rows(const ServeOptions& options, const model::Model& model) {
  const auto row_bytes = engine::cache_row_bytes(model);
  const auto page = options.scheduler.page_rows;
  const auto least = model.spec().max_positions + 2 * page;
  if (options.kv_mib > 0) {
    const auto rows = options.kv_mib * kMiB / row_bytes;
    if (rows < least) {
      fail(ErrorKind::kUsage, "--kv-memory {} holds {} tokens, and the context is {}: give {} or more, or a smaller --context",
           options.kv_mib, rows, model.spec().max_positions, (least * row_bytes + kMiB - 1) / kMiB);
    }
    return rows;
  }
  const auto free = available_memory();
  const auto rows = free ? *free / 4 / row_bytes : least;
  return std::clamp<std::int64_t>(rows, least, std::max<std::int64_t>(least, 64 * model.spec().max_positions));
}

/// Where the server can be reached from this machine.
std::string url_of(const ServeOptions& options, std::uint16_t port) {
  const auto& address = options.server.address;
  const bool is_any = address == "0.0.0.0" || address == "::";
  const auto host = is_any ? "localhost" : address.find(':') == std::string::npos ? address : "[" + address + "]";
  return format("{}://{}:{}", options.server.tls_certificate.empty() ? "http" : "https", host, port);
}

void say_ready(const ServeOptions& options, const engine::Catalogue& catalogue, const std::string& url, std::int64_t rows,
               std::int64_t row_bytes) {
  const auto models = catalogue.list();
  const auto& base = catalogue.base_name();
  if (options.common.json) {
    print_json({{"url", url}, {"base", base}, {"num_models", models.size()}, {"cache_tokens", rows}, {"cache_bytes", rows * row_bytes}});
    return;
  }
  std::string shown = base;
  for (const auto* name : {"arrow", "lag"}) {
    if (std::ranges::find(models, name, &api::ModelObject::id) != models.end()) shown += format(", {}", name);
  }
  const auto key = options.service.api_key.empty() ? "" : " -H 'Authorization: Bearer KEY'";
  print_text(
      format("serving {} ({} names in all, see {}/v1/models); the cache holds {} tokens in {} MiB\n"
             "try: curl {}/v1/completions{} -H 'Content-Type: application/json' -d '{{\"model\":\"{}\",\"prompt\":\"Paris is\"}}'\n"
             "ready: {}\n",
             shown, models.size(), url, rows, rows * row_bytes / kMiB, url, key, base, url));
}

/// Loads contexts before anybody asks for them.
void preload(const ServeOptions& options, engine::Catalogue& catalogue) {
  for (const auto& name : options.preload) {
    try {
      catalogue.load(name, {});
    } catch (const api::ApiError& error) {
      fail(ErrorKind::kUsage, "--preload: {}", error.what());
    }
  }
}

/// What the endpoints need to know of base and command line.
void settle_service(ServeOptions& options, const methods::BaseModel& base, const std::string& base_name) {
  auto& service = options.service;
  service.base_name = base_name;
  service.max_sequences = options.scheduler.max_sequences;
  service.page_rows = options.scheduler.page_rows;
  service.max_body_bytes = static_cast<std::size_t>(options.max_body_mib * kMiB);
  service.stream_limits.queue_timeout = std::chrono::seconds(options.queue_seconds);
  service.version = kVersion;
  service.limits.vocab_size = base.lm.spec().vocab_size;
  service.limits.context_length = base.lm.spec().max_positions;
  service.limits.unknown_fields = options.is_strict ? api::UnknownFields::kRefuse : api::UnknownFields::kIgnore;
  service.chat_stop_ids = data::stop_ids(base.tokenizer, base.format);
  service.system = base.format.system;
  if (options.logs_requests)
    service.log = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };  // one call, one line
  if (!is_loopback(options.server.address)) return;
  service.hosts = {"localhost", "127.0.0.1", "[::1]", serve::host_name(options.server.address)};
  for (const auto& host : options.allow_hosts) service.hosts.insert(serve::host_name(host));
}

/// A server decodes more than it reads: weights stay in the blocks of their file, where all of them can.
void settle_weights(CommonOptions& common) {
  const bool is_free = common.base_weights == "auto" && common.dtype == "auto" && common.device != "cuda";
  if (is_free && model::is_all_in_blocks(methods::base_path_or_default(common.base))) common.base_weights = "quantized";
}

void settle_catalogue(ServeOptions& options) {
  options.catalogue.say = [said = std::set<std::string>(), mutex = std::make_shared<std::mutex>()](const std::string& line) mutable {
    const std::lock_guard lock(*mutex);
    if (said.insert(line).second) std::fprintf(stderr, "quiver: %s\n", line.c_str());  // once, however often adapters are loaded again
  };
  for (const auto& folder : options.adapter_dirs) options.catalogue.adapter_folders.emplace_back(folder);
  for (const auto& alias : options.aliases) {
    const auto equals = alias.find('=');
    if (equals == std::string::npos || equals == 0) fail(ErrorKind::kUsage, "--alias '{}'; expected NAME=MODEL", alias);
    options.catalogue.aliases[alias.substr(0, equals)] = alias.substr(equals + 1);
  }
}

/// How long the last answers may take to reach their clients.
constexpr std::chrono::seconds kLastWrites{2};

/// Until a signal: then no further connection, and answers may end for a while. The last bytes of answers are sent before the end.
void serve_until_stopped(const ServeOptions& options, http::Server& server, serve::Service& service) {
  using Clock = std::chrono::steady_clock;
  std::atomic<bool> is_draining{false};
  Clock::time_point drain_end, last_busy;
  server.every(std::chrono::milliseconds(100), [&] {
    service.tick();
    if (!is_draining && stop_requested()) {
      is_draining = true;
      drain_end = Clock::now() + std::chrono::seconds(options.drain_seconds);
      std::fputs("quiver: shutting down; answers that have begun may end (Ctrl-C again ends at once)\n", stderr);
      server.close_listener();
      service.begin_drain();
      return;
    }
    if (!is_draining) return;
    if (Clock::now() > drain_end) service.end_all();
    if (!service.is_idle()) last_busy = Clock::now();
    if (server.counts().num_connections == 0 || Clock::now() > last_busy + kLastWrites) server.stop();
  });
  server.run();
}

void run(ServeOptions& options) {
  check(options);
  settle_catalogue(options);
  auto progress = options.common.progress();
  settle_weights(options.common);
  const auto base = options.common.load({.adapters = {.library = options.catalogue.library}});
  const auto tracer = std::make_shared<engine::RouteTracer>(std::ssize(base.lm.blocks()));
  engine::Catalogue catalogue(base, options.catalogue, tracer);
  for (const auto& note : catalogue.notes()) progress.message(note);

  const auto rows = cache_rows(options, base.lm);
  options.scheduler.max_step_seconds = static_cast<double>(options.max_step_ms) / 1000;
  engine::ServingEngine engine(base, rows, tracer);
  const auto threads = at::get_num_threads();
  serve::EngineLoop loop(engine, options.scheduler, [threads] { at::set_num_threads(threads); });

  settle_service(options, base, catalogue.base_name());
  const auto* chat = base.format.chat ? &*base.format.chat : nullptr;
  serve::Service service(catalogue, base.tokenizer, chat, loop, options.service);
  http::Server server(options.server, service.handlers());
  service.set_connections([&server] { return server.counts().num_connections; });
  preload(options, catalogue);
  give_back_free_pages();  // of what loading took
  say_ready(options, catalogue, url_of(options, server.port()), rows, engine::cache_row_bytes(base.lm));
  serve_until_stopped(options, server, service);
  loop.stop();
}

}  // namespace

/// quiver serve [--library L] [--host H --port P --api-key K]
void add_serve_command(CLI::App& app) {
  auto [command, options] = add_verb<ServeOptions>(
      app, "serve", "Serve the base, adapters and routed methods of a library over HTTP, as OpenAI's API has it", Reads::kText, run);
  add_base_weights_option(command, options.common);
  command.add_option("--library", options.catalogue.library, "Library whose adapters and methods are served");
  command.add_flag("--allow-other-base", options.catalogue.allow_other_base, "Serve adapters of another base model");
  command.add_option("--host", options.server.address, "Address to listen on; others than this machine's own want --api-key or --no-auth");
  command.add_option("--port", options.server.port, "Port to listen on; 0 is any free one");
  command.add_option("--api-key", options.service.api_key, "Key that clients must send")->envname("QUIVER_API_KEY");
  command.add_option("--admin-key", options.service.admin_key, "Key for adding and removing adapters; without it nobody may")
      ->envname("QUIVER_ADMIN_KEY");
  command.add_flag("--no-auth", options.has_no_auth, "Serve anybody who reaches --host, without a key");
  command.add_option("--allow-host", options.allow_hosts, "A further name that the server answers to");
  command.add_option("--cors-origin", options.service.cors_origin, "Origin whose web pages may call the server");
  command.add_option("--tls-cert", options.server.tls_certificate, "Certificate chain in PEM: serves HTTPS")
      ->needs(command.add_option("--tls-key", options.server.tls_key, "Private key in PEM"));
  command.add_option("--adapter-dir", options.adapter_dirs, "Folder whose adapters may be loaded while the server runs");
  command.add_option("--alias", options.aliases, "NAME=MODEL: a further name of a model, or of a method with options");
  command.add_option("--preload", options.preload, "Models to make ready at the start")->delimiter(',');
  command.add_option("--kv-memory", options.kv_mib, "MiB for keys and values (0: a quarter of the free memory)")->check(at_least(0));
  command.add_option("--max-sequences", options.scheduler.max_sequences, "Requests computed together")->check(between(1, 1024));
  command.add_option("--max-waiting", options.service.max_waiting, "Requests that may wait; others are refused")->check(at_least(0));
  command.add_option("--max-step-ms", options.max_step_ms, "How long prompts may hold up answers, about (0: no limit)")->check(at_least(0));
  command.add_option("--max-connections", options.server.limits.max_connections, "Open connections")->check(at_least(1));
  command.add_option("--max-body", options.max_body_mib, "MiB of a request's body")->check(between(1, 1024));
  command.add_option("--max-tokens-default", options.service.limits.default_max_tokens, "Longest chat answer where a request says nothing")
      ->check(at_least(1));
  command.add_option("--queue-timeout", options.queue_seconds, "Seconds that a request may wait for its turn")->check(at_least(1));
  command.add_option("--drain-seconds", options.drain_seconds, "Seconds that answers may go on after SIGTERM")->check(at_least(0));
  command.add_flag("--strict-fields", options.is_strict, "Refuse fields that are not known, as OpenAI does");
  command.add_flag("--log-requests", options.logs_requests, "A JSON line for each answer on standard error; no texts");
}

}  // namespace quiver::cli
