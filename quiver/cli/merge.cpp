#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/recipes/reuse_methods.h"

namespace quiver::cli {
namespace {

struct MergeOptions {
  CommonOptions common;
  recipes::AdapterChoice choice;
  std::string output;
  bool force = false;
};

void run(MergeOptions& options) {
  recipes::expect_merge(options.choice.method);  // before the work
  library::check_may_write(options.output, options.force);
  const auto base = options.common.load();
  const auto library = library::Library::open(options.choice.library);
  options.choice.merge.seed = options.common.seed;
  auto merged = recipes::merged_adapter(base, library, options.choice);
  merged.base_model = base.llama.spec().name;
  merged.base_fingerprint = base.llama.fingerprint();
  adapters::save_peft(options.output, merged, options.force);
  std::int64_t rank = 0;
  for (const auto& [path, pair] : merged.pairs) rank = std::max(rank, pair.rank());
  if (options.common.json) {
    print_json({{"path", options.output}, {"method", options.choice.method}, {"rank", rank}});
  } else {
    print_text(format("merged {} adapters by {} into {}, rank {}\n", recipes::library_members(library, options.choice).size(),
                      options.choice.method, options.output, rank));
  }
}

}  // namespace

/// quiver merge --library L --method ties --output DIR
void add_merge_command(CLI::App& app) {
  auto options = std::make_shared<MergeOptions>();
  options->choice.method = "mean";
  auto* command = app.add_subcommand("merge", "Make one adapter, a PEFT folder, of a library's");
  add_common_options(*command, options->common);
  add_library_options(*command, options->choice);
  command->get_option("--library")->required();
  command->add_option("--output", options->output, "The PEFT folder to write")->required();
  command->add_flag("--force", options->force, "Replace the folder");
  command->callback([options] { run(*options); });
}

}  // namespace quiver::cli
