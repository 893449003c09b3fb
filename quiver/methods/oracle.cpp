// One adapter of the library, named.
#include "quiver/methods/adapted_model.h"
#include "quiver/methods/adapter_form.h"
#include "quiver/methods/method.h"

namespace quiver::methods {
namespace {

struct OracleOptions {
  std::string name;
  static void describe(auto& schema) { schema.add(&OracleOptions::name, "name", {.help = "the adapter", .has_flag = false}); }
};

adapters::LoraAdapter make_oracle(const LibraryContext& in, const OracleOptions& options) {
  auto adapter = in_form_of(in.base.lm.spec(), in.library.load(options.name));
  check_fits_base(adapter, in.base, in.source.allow_other_base);
  return adapter;
}

}  // namespace

Method oracle() { return method_row(Family::kMerge, {"oracle", "oracle", "one adapter, named", "Ostapenko et al. 2024"}, make_oracle); }

}  // namespace quiver::methods
