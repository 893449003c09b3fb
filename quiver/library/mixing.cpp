// How tasks mix skills, in a library.
#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/io/safetensors.h"
#include "quiver/library/library.h"

namespace quiver::library {
namespace {

constexpr const char* kMetaKey = "quiver.mixing";

std::filesystem::path file_of(const Library& library, const std::string& name) {
  check_adapter_name(name);  // it becomes a path
  return library.path() / "mixing" / (name + ".safetensors");
}

}  // namespace

std::optional<Mixing> Library::find_mixing(const std::string& name) const {
  const auto path = file_of(*this, name);
  if (!std::filesystem::exists(path)) return std::nullopt;
  const io::MappedFile file(path);
  const auto view = io::SafetensorsView::parse(file.bytes(), path.string());
  const auto found = view.metadata().find(kMetaKey);
  if (found == view.metadata().end()) fail(ErrorKind::kBadFormat, "'{}' has no metadata '{}'", path.string(), kMetaKey);
  Mixing mixing{.tensors = {}, .meta = io::parse_json(found->second, path.string())};
  for (const auto& entry : view.entries()) mixing.tensors.emplace(entry.name, tensor::to_tensor(entry));
  return mixing;
}

void Library::store_mixing(const std::string& name, const tensor::TensorMap& tensors, const nlohmann::json& meta) const {
  const auto path = file_of(*this, name);
  std::filesystem::create_directories(path.parent_path());
  tensor::save_tensors(path, tensors, {{kMetaKey, io::dump_json(meta, path.string())}});
}

}  // namespace quiver::library
