#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/cli/command.h"
#include "quiver/methods/table.h"

namespace quiver::cli {
namespace {

struct MergeOptions {
  CommonOptions common;
  AdapterOptions adapters;
  std::string output;
  bool force = false;
};

void run(MergeOptions& options) {
  auto use = options.adapters.use();
  methods::expect_merge(use.method.row());  // before the work
  if (use.method.row().has("seed") && !use.method.options.contains("seed")) use.method.options["seed"] = options.common.seed;
  library::check_may_write(options.output, options.force);
  const auto base = options.common.load({use.source});
  const auto library = library::Library::open(use.source.library);
  auto merged = methods::merged_adapter(base, library, use);
  merged.base_model = base.lm.spec().name;
  merged.base_fingerprint = base.lm.fingerprint();
  adapters::save_peft(options.output, merged, options.force);
  std::int64_t rank = 0;
  for (const auto& [path, pair] : merged.pairs) rank = std::max(rank, pair.rank());
  print_result(options.common, {{"path", options.output}, {"method", options.adapters.method}, {"rank", rank}},
               format("merged {} adapters by {} into {}, rank {}\n", methods::library_members(library, use.source).size(),
                      options.adapters.method, options.output, rank));
}

}  // namespace

/// quiver merge --library L --method ties --output DIR
void add_merge_command(CLI::App& app) {
  auto [command, options] = add_verb<MergeOptions>(app, "merge", "Make one adapter, a PEFT folder, of a library's", Reads::kBase, run);
  options.adapters.method = "mean";
  add_library_options(command, options.adapters);
  add_former_temperature(command, options.adapters.flags);
  command.get_option("--library")->required();
  command.add_option("--output", options.output, "The PEFT folder to write")->required();
  command.add_flag("--force", options.force, "Replace the folder");
}

}  // namespace quiver::cli
