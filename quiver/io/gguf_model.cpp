#include "quiver/io/gguf_model.h"

#include <charconv>
#include <functional>
#include <optional>

#include "quiver/base/error.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;

/// The place of a file among the pieces of a model, as its name says: "<stem>-00002-of-00003.gguf".
struct Piece {
  std::string stem;
  std::int64_t number = 1;  ///< from 1
  std::int64_t count = 1;
};

constexpr std::size_t kDigits = 5;
constexpr std::string_view kExtension = ".gguf";

/// Five digits at `at`.
std::optional<std::int64_t> number_at(std::string_view text, std::size_t at) {
  std::int64_t value = 0;
  const auto* const end = text.data() + at + kDigits;
  const auto result = std::from_chars(text.data() + at, end, value);
  return result.ec == std::errc() && result.ptr == end && text[at] != '-' ? std::optional(value) : std::nullopt;
}

std::optional<Piece> piece_of(const fs::path& path) {
  constexpr std::string_view kOf = "-of-";
  constexpr std::size_t kTail = 1 + kDigits + kOf.size() + kDigits;  // "-00002-of-00003"
  std::string name = path.filename().string();
  if (!name.ends_with(kExtension) || name.size() <= kTail + kExtension.size()) return std::nullopt;
  const std::size_t tail = name.size() - kExtension.size() - kTail;
  const auto number = number_at(name, tail + 1), count = number_at(name, tail + 1 + kDigits + kOf.size());
  if (name[tail] != '-' || name.compare(tail + 1 + kDigits, kOf.size(), kOf) != 0 || !number || !count) return std::nullopt;
  if (*number < 1 || *number > *count) return std::nullopt;
  return Piece{name.substr(0, tail), *number, *count};
}

fs::path path_of(const fs::path& folder, const Piece& piece, std::int64_t number) {
  const auto padded = [](std::int64_t value) {
    const auto digits = std::to_string(value);
    return std::string(kDigits - digits.size(), '0') + digits;
  };
  return folder / (piece.stem + "-" + padded(number) + "-of-" + padded(piece.count) + std::string(kExtension));
}

void check_all_exist(const fs::path& path, const Piece& piece) {
  constexpr int kMostNamed = 6;
  int missing = 0;
  std::string names;
  for (std::int64_t number = 1; number <= piece.count; ++number) {
    const auto file = path_of(path.parent_path(), piece, number);
    if (fs::exists(file) || ++missing > kMostNamed) continue;
    names += format("{}'{}'", names.empty() ? "" : ", ", file.filename().string());
  }
  if (missing > kMostNamed) names += format(" and {} more", missing - kMostNamed);
  if (missing > 0) {
    fail(ErrorKind::kNotFound, "{}: the model has {} pieces, of which {} are missing beside it: {} (an incomplete download?)",
         path.string(), piece.count, missing, names);
  }
}

/// Refuses a file that does not say that it is the piece that its name says.
void check_piece(const GgufView& view, const Piece& piece, std::int64_t number) {
  const auto expect = [&](const char* key, std::int64_t expected) {
    const auto value = view.require_int(key);
    if (value == expected) return;
    fail(ErrorKind::kBadFormat, "{}: '{}' is {}, but its name says {}; were the pieces renamed?", view.origin(), key, value, expected);
  };
  expect("split.no", number - 1);
  expect("split.count", piece.count);
}

}  // namespace

fs::path first_gguf_piece(const fs::path& path) {
  const auto piece = piece_of(path);
  return piece ? path_of(path.parent_path(), *piece, 1) : path;
}

GgufModel::GgufModel(const fs::path& path) {
  const auto named = piece_of(path);
  if (!named || named->count == 1) {
    view_ = GgufView::parse(files_.emplace_back(path).bytes(), path.string());
    if (const auto count = view_.find_int("split.count").value_or(1); count > 1) {
      fail(ErrorKind::kBadFormat,
           "{}: is one of {} pieces of a model ('split.count'), but its name does not end like those of pieces, -00001-of-00002.gguf; were "
           "they renamed?",
           path.string(), count);
    }
    return;
  }
  check_all_exist(path, *named);
  for (std::int64_t number = 1; number <= named->count; ++number) {
    const auto piece_path = path_of(path.parent_path(), *named, number);
    auto view = GgufView::parse(files_.emplace_back(piece_path).bytes(), piece_path.string());
    check_piece(view, *named, number);
    if (number == 1) {
      view_ = std::move(view);
    } else {
      view_.append(view);
    }
  }
  const auto expected = view_.find_int("split.tensors.count").value_or(static_cast<std::int64_t>(view_.tensors().size()));
  if (std::ssize(view_.tensors()) != expected) {
    fail(ErrorKind::kBadFormat, "{}: 'split.tensors.count' is {}, but the {} pieces hold {} tensors", view_.origin(), expected,
         named->count, view_.tensors().size());
  }
}

const MappedFile& GgufModel::file_of(const GgufTensor& tensor) const {
  const auto* first = tensor.data.data();
  for (const auto& file : files_) {
    const auto bytes = file.bytes();
    if (std::less_equal<>()(bytes.data(), first) && std::less_equal<>()(first, bytes.data() + bytes.size())) return file;
  }
  fail(ErrorKind::kInternal, "tensor '{}' lies in none of the files of {}", tensor.name, view_.origin());
}

}  // namespace quiver::io
