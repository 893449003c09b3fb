#include <charconv>

#include "quiver/adapters/peft.h"
#include "quiver/adapters/rows.h"
#include "quiver/cli/cluster_options.h"
#include "quiver/cli/unread_options.h"
#include "quiver/recipes/build_library.h"

namespace quiver::cli {
namespace {

struct ClusterOptions {
  CommonOptions common;
  ClusterArguments cluster;
  std::string library;
  std::vector<std::string> adapters;
  std::vector<std::string> folders;
  std::string sweep;
};

/// "2,5,10" as numbers; none, which is all, for "all" or nothing.
std::vector<std::int64_t> parse_ks(const std::string& text) {
  std::vector<std::int64_t> ks;
  if (text.empty() || text == "all") return ks;
  for (std::size_t begin = 0; begin <= text.size();) {
    const auto end = std::min(text.find(',', begin), text.size());
    std::int64_t k = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, k);
    if (error != std::errc() || stop != text.data() + end) {
      fail(ErrorKind::kUsage, "--sweep '{}' is no list of numbers of clusters; write 2,5,10 or all (and put folders before it)", text);
    }
    ks.push_back(k);
    begin = end + 1;
  }
  return ks;
}

std::vector<adapters::LoraAdapter> load_folders(const ClusterOptions& options) {
  std::vector<adapters::LoraAdapter> adapters;
  for (const auto& folder : options.folders) adapters.push_back(adapters::load_peft(folder));
  adapters::complete(adapters);
  return adapters;
}

std::vector<std::string> members(const library::Library& library, const ClusterOptions& options) {
  return methods::library_members(library, {.names = options.adapters});
}

std::vector<adapters::LoraAdapter> load_members(const ClusterOptions& options) {
  const auto library = library::Library::open(options.library);
  return library.load_alike(members(library, options));
}

/// Reads only: a sweep stores no groups.
void run_sweep(const ClusterOptions& options) {
  const auto adapters = options.library.empty() ? load_folders(options) : load_members(options);
  const auto sweep = cluster::sweep_clusters(adapters, options.cluster.resolve(options.common.seed), parse_ks(options.sweep));
  std::string text = "   K     inertia  silhouette\n";
  for (const auto& entry : sweep.entries) {
    const auto silhouette = entry.silhouette ? format("{:.4f}", *entry.silhouette) : "-";
    const auto* mark = entry.num_clusters == sweep.suggested ? "  suggested" : "";
    text += format("{:>4}  {:>10.4f}  {:>10}{}\n", entry.num_clusters, entry.inertia, silhouette, mark);
  }
  print_result(options.common, recipes::to_json(sweep), text);
}

void run(ClusterOptions& options) {
  options.common.placement();
  if (is_given(*options.common.command, "--sweep")) return run_sweep(options);
  const auto mbc = options.cluster.resolve(options.common.seed);
  cluster::MbcResult result;
  if (options.library.empty()) {
    result = cluster::mbc(load_folders(options), mbc);
  } else {
    auto library = library::Library::open(options.library);
    result = recipes::cluster_library(library, members(library, options), mbc);
  }
  std::string text;
  const auto clusters = result.clusters();
  for (std::size_t k = 0; k < clusters.size(); ++k) {
    text += format("c{} ({} adapters)\n", k, clusters[k].size());
    for (const auto& name : clusters[k]) text += "  " + name + "\n";
  }
  print_result(options.common, recipes::to_json(result), text + format("silhouette {:.3f}\n", result.silhouette));
}

}  // namespace

/// quiver cluster --library DIR | PEFT_DIR ... [--num-clusters K | --sweep [K,K,...]]
void add_cluster_command(CLI::App& app) {
  auto [command, options] = add_verb<ClusterOptions>(
      app, "cluster", "Group adapters by model-based clustering (MBC); a library keeps the groups", Reads::kNothing, run);
  auto* library = command.add_option("--library", options.library, "Library whose private and imported adapters to group");
  command.add_option("--adapters", options.adapters, "Only these adapters of the library")->delimiter(',')->needs(library);
  add_cluster_options(command, options.cluster);
  command.add_option("folders", options.folders, "PEFT adapter folders, instead of a library");
  command
      .add_option("--sweep", options.sweep,
                  "Compare numbers of clusters instead, all or 2,5,10, by inertia and silhouette; stores no groups")
      ->expected(0, 1)
      ->excludes("--num-clusters");
  command.parse_complete_callback([&options] {
    refuse_names_twice("--adapters", options.adapters);
    if (options.library.empty() == options.folders.empty()) fail(ErrorKind::kUsage, "give either --library or PEFT folders");
  });
}

}  // namespace quiver::cli
