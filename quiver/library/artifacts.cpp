// The artifacts of a library: tensors that can be computed again.

#include "quiver/base/error.h"
#include "quiver/library/library.h"

namespace quiver::library {
namespace {

namespace fs = std::filesystem;

/// A key becomes a file name, so nothing but digits may pass.
void check_key(const std::string& key) {
  const auto size = static_cast<std::int64_t>(key.size());
  const bool fits = size >= kMinArtifactKeyBytes && size <= kMaxArtifactKeyBytes;
  if (!fits || key.find_first_not_of("0123456789abcdef") != std::string::npos) {
    fail(ErrorKind::kUsage, "'{}' of {} bytes cannot be the key of an artifact: give {} to {} lower-case hexadecimal digits", key, size,
         kMinArtifactKeyBytes, kMaxArtifactKeyBytes);
  }
}

/// The record beside the tensors, or nullopt if it is missing or damaged: whoever asks computes it again.
std::optional<ArtifactRecord> read_record(const fs::path& path) {
  try {
    return parse_artifact_record(io::read_text_file(path), path.string());
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

std::optional<nlohmann::json> Library::find_artifact_meta(const std::string& key) const {
  check_key(key);
  const auto record = read_record(path_ / "artifacts" / (key + ".json"));
  return record ? std::optional(record->meta) : std::nullopt;
}

std::optional<tensor::TensorMap> Library::find_artifact(const std::string& key) const {
  check_key(key);
  const auto record = read_record(path_ / "artifacts" / (key + ".json"));
  if (!record.has_value()) return std::nullopt;
  const auto file = path_ / "artifacts" / (key + ".safetensors");
  try {
    // A flipped bit would give other results without a word; hashing costs less than computing.
    if (io::sha256_file(file) != record->sha256) return std::nullopt;
    return tensor::load_tensors(file);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string Library::cache_fault() const {
  const std::lock_guard lock(cache_fault_->mutex);
  return cache_fault_->text;
}

void Library::store_artifact(const std::string& key, const tensor::TensorMap& tensors, const nlohmann::json& meta) const {
  check_key(key);
  const auto folder = path_ / "artifacts";
  std::error_code error;
  fs::create_directory(folder, error);  // somebody may have removed all artifacts; an error shows in the write below
  const auto file = folder / (key + ".safetensors");
  try {
    tensor::save_tensors(file, tensors);
    const ArtifactRecord record{.sha256 = io::sha256_file(file), .meta = meta};
    io::write_file_atomic(folder / (key + ".json"), artifact_record_text(record, format("the record of artifact {}", key)));
  } catch (const Error& fault) {
    if (fault.kind() != ErrorKind::kIo && fault.kind() != ErrorKind::kNotFound) throw;
    const std::lock_guard lock(cache_fault_->mutex);
    if (cache_fault_->text.empty()) cache_fault_->text = fault.what();  // what it holds is computed again next time
  }
}

}  // namespace quiver::library
