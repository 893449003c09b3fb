// How tasks mix skills, in a library.
#include "quiver/base/error.h"
#include "quiver/io/safetensors.h"
#include "quiver/library/library.h"

namespace quiver::library {
namespace {

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
  auto meta = parse_mixing(view);
  return Mixing{.logits = tensor::to_tensor(view.at("logits")), .meta = std::move(meta)};
}

void Library::store_mixing(const std::string& name, const Mixing& mixing) const {
  const auto path = file_of(*this, name);
  std::filesystem::create_directories(path.parent_path());
  tensor::save_tensors(path, {{"logits", mixing.logits}}, {mixing_metadata(mixing.meta)});
}

}  // namespace quiver::library
