// A model in GGUF as it lies on the disk: one file, or the pieces that llama.cpp's gguf-split makes of one.
#pragma once

#include <filesystem>
#include <vector>

#include "quiver/io/file.h"
#include "quiver/io/gguf.h"

namespace quiver::io {

/// The file that has a model's metadata: "NAME-00001-of-00003.gguf" for any piece of that model, else `path` itself. Opens nothing.
std::filesystem::path first_gguf_piece(const std::filesystem::path& path);

/// All files of a model, mapped as long as the object lives. Move-only.
class GgufModel {
 public:
  /// Opens the model that `path` is or is a piece of. Throws kNotFound, naming all pieces that are missing, kBadFormat for pieces that do
  /// not belong together, and what GgufView::parse throws.
  explicit GgufModel(const std::filesystem::path& path);
  GgufModel(GgufModel&&) = default;
  GgufModel& operator=(GgufModel&&) = default;

  /// The metadata of the first piece, and the tensors of all pieces in their order.
  const GgufView& view() const { return view_; }
  /// The file in which a tensor of the view lies. Throws kInternal for another tensor.
  const MappedFile& file_of(const GgufTensor& tensor) const;

 private:
  std::vector<MappedFile> files_;
  GgufView view_;
};

}  // namespace quiver::io
