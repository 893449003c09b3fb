#include "quiver/cli/cluster_options.h"
#include "quiver/lora/peft.h"
#include "quiver/recipes/build_library.h"

namespace quiver::cli {
namespace {

struct Options {
  CommonOptions common;
  ClusterArguments cluster;
  std::string library;
  std::vector<std::string> adapters;
  std::vector<std::string> folders;
};

cluster::MbcResult run_folders(const Options& options) {
  std::vector<lora::LoraAdapter> adapters;
  for (const auto& folder : options.folders) adapters.push_back(lora::load_peft(folder));
  return cluster::mbc(adapters, options.cluster.resolve(options.common.seed));
}

void run(const Options& options) {
  options.common.placement();
  if (options.library.empty() == options.folders.empty()) fail(ErrorKind::kUsage, "give either --library or PEFT folders");
  cluster::MbcResult result;
  if (options.library.empty()) {
    result = run_folders(options);
  } else {
    auto library = library::Library::open(options.library);
    recipes::AdapterChoice choice;
    choice.names = options.adapters;
    result = recipes::cluster_library(library, recipes::library_members(library, choice), options.cluster.resolve(options.common.seed));
  }
  if (options.common.json) {
    print_json(recipes::to_json(result));
    return;
  }
  const auto clusters = result.clusters();
  for (std::size_t k = 0; k < clusters.size(); ++k) {
    print_text(format("c{} ({} adapters)\n", k, clusters[k].size()));
    for (const auto& name : clusters[k]) print_text("  " + name + "\n");
  }
  print_text(format("silhouette {:.3f}\n", result.silhouette));
}

}  // namespace

/// quiver cluster --library DIR | PEFT_DIR ... [--num-clusters K]
void add_cluster_command(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("cluster", "Group adapters by model-based clustering (MBC); a library keeps the groups");
  add_common_options(*command, options->common, /*with_base=*/false);
  command->add_option("--library", options->library, "Library whose private and imported adapters to group");
  command->add_option("--adapters", options->adapters, "Only these adapters of the library")->delimiter(',');
  add_cluster_options(*command, options->cluster);
  command->add_option("folders", options->folders, "PEFT adapter folders, instead of a library");
  command->callback([options] { run(*options); });
}

}  // namespace quiver::cli
