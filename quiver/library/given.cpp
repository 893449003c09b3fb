#include "quiver/library/given.h"

#include "quiver/base/error.h"
#include "quiver/io/file.h"

namespace quiver::library {

GivenAdapter read_given(const std::filesystem::path& folder, const Base& base, const nn::LinearMap& projections, bool allow_other_base,
                        const adapters::MapSizes& outer) {
  GivenAdapter given{.folder = folder};
  // Before they are read: whoever copies them later can tell whether they are still what was read.
  std::error_code error;
  const auto tensors = folder / adapters::kPeftTensorsFile;
  if (std::filesystem::is_regular_file(tensors, error)) given.tensors_sha256 = io::sha256_file(tensors);
  given.adapter = adapters::load_peft(folder);
  auto& adapter = given.adapter;
  if (const auto warning = adapters::check_fits(adapter, projections, base.name, base.fingerprint, allow_other_base, outer)) {
    given.warnings.push_back(*warning);
  }
  for (auto& text : adapters::peft_warnings(adapter, projections)) given.warnings.push_back(std::move(text));
  if (adapters::changes_nothing(adapter)) {
    given.warnings.push_back(format("warning: lora_B of '{}' is 0 everywhere: the adapter changes nothing", folder.string()));
  }
  adapter.base_model = base.name;
  adapter.base_fingerprint = base.fingerprint;
  return given;
}

}  // namespace quiver::library
