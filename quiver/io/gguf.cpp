#include "quiver/io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "quiver/base/checked.h"
#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/base/utf8.h"

namespace quiver::io {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian, and mapped as they are");

constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::string_view kAlignmentKey = "general.alignment";

/// Walks over untrusted bytes; every read is checked.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, std::string_view origin) : bytes_(bytes), origin_(origin) {}

  std::uint64_t position() const { return position_; }
  std::uint64_t remaining() const { return bytes_.size() - position_; }
  std::string_view origin() const { return origin_; }

  template <typename T>
  T read(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  /// A length of 64 bits, then as many bytes.
  std::string read_string(std::string_view what) {
    const auto bytes = take(read<std::uint64_t>(what), what);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  /// A string that names something: valid UTF-8, so that it can be printed.
  std::string read_name(std::string_view what) {
    std::string name = read_string(what);
    if (!is_valid_utf8(name)) fail(ErrorKind::kBadFormat, "{}: {} is not UTF-8", origin_, what);
    return name;
  }

  /// A number of items that each take `item_bytes` at least: refused before anything is allocated for them.
  void check_count(std::uint64_t count, std::uint64_t item_bytes, std::string_view what) const {
    if (count > remaining() / item_bytes) {
      fail(ErrorKind::kBadFormat,
           "{}: {} claims {} items of {} bytes or more, but only {} bytes follow (perhaps an incomplete download or a corrupt file?)",
           origin_, what, count, item_bytes, remaining());
    }
  }

 private:
  std::span<const std::byte> take(std::uint64_t count, std::string_view what) {
    if (count > remaining()) {
      fail(ErrorKind::kBadFormat,
           "{}: {} needs {} bytes at byte {}, but only {} follow (perhaps an incomplete download or a corrupt file?)", origin_, what, count,
           position_, remaining());
    }
    const auto part = bytes_.subspan(position_, count);
    position_ += count;
    return part;
  }

  std::span<const std::byte> bytes_;
  std::string_view origin_;
  std::uint64_t position_ = 0;
};

bool read_bool(Cursor& cursor, std::string_view what) {
  const auto byte = cursor.read<std::uint8_t>(what);
  if (byte > 1) fail(ErrorKind::kBadFormat, "{}: {} is a boolean of value {}; expected 0 or 1", cursor.origin(), what, byte);
  return byte == 1;
}

std::int64_t read_uint64(Cursor& cursor, std::string_view what) {
  const auto value = cursor.read<std::uint64_t>(what);
  if (value > static_cast<std::uint64_t>(INT64_MAX)) {
    fail(ErrorKind::kUnsupported, "{}: {} is {}, more than the {} that Quiver can hold", cursor.origin(), what, value, INT64_MAX);
  }
  return static_cast<std::int64_t>(value);
}

/// Returns use(item_bytes, read_item) with what reads one value of `type`: an int64, a double, a boolean or a string.
template <typename Use>
GgufValue with_reader(Cursor& cursor, GgufValueType type, std::string_view what, const Use& use) {
  const auto integer = [&]<typename T>(T) { return use(sizeof(T), [&] { return static_cast<std::int64_t>(cursor.read<T>(what)); }); };
  const auto real = [&]<typename T>(T) { return use(sizeof(T), [&] { return static_cast<double>(cursor.read<T>(what)); }); };
  switch (type) {
    case GgufValueType::kUint8: return integer(std::uint8_t{});
    case GgufValueType::kInt8: return integer(std::int8_t{});
    case GgufValueType::kUint16: return integer(std::uint16_t{});
    case GgufValueType::kInt16: return integer(std::int16_t{});
    case GgufValueType::kUint32: return integer(std::uint32_t{});
    case GgufValueType::kInt32: return integer(std::int32_t{});
    case GgufValueType::kInt64: return integer(std::int64_t{});
    case GgufValueType::kUint64: return use(8, [&] { return read_uint64(cursor, what); });
    case GgufValueType::kFloat32: return real(float{});
    case GgufValueType::kFloat64: return real(double{});
    case GgufValueType::kBool: return use(1, [&] { return read_bool(cursor, what); });
    case GgufValueType::kString: return use(8, [&] { return cursor.read_string(what); });
    case GgufValueType::kArray:
      fail(ErrorKind::kUnsupported, "{}: {} is an array of arrays, which Quiver does not read", cursor.origin(), what);
  }
  fail(ErrorKind::kBadFormat, "{}: {} is of metadata type {}; the format knows 0 to 12", cursor.origin(), what, type);
}

GgufValue read_value(Cursor& cursor, std::string_view what) {
  const auto type = static_cast<GgufValueType>(cursor.read<std::uint32_t>(what));
  if (type != GgufValueType::kArray) {
    return with_reader(cursor, type, what, [](std::uint64_t, const auto& read_item) { return GgufValue(read_item()); });
  }
  const auto item_type = static_cast<GgufValueType>(cursor.read<std::uint32_t>(what));
  const auto count = cursor.read<std::uint64_t>(what);
  return with_reader(cursor, item_type, what, [&](std::uint64_t item_bytes, const auto& read_item) {
    cursor.check_count(count, item_bytes, what);
    std::vector<decltype(read_item())> items;
    items.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) items.push_back(read_item());
    return GgufValue(std::move(items));
  });
}

void check_version(Cursor& cursor) {
  if (cursor.remaining() < 4 || cursor.read<std::uint32_t>("the magic number") != 0x46554747) {
    fail(ErrorKind::kBadFormat, "{}: does not begin with \"GGUF\" (is this a GGUF file?)", cursor.origin());
  }
  const auto version = cursor.read<std::uint32_t>("the version");
  if (version != 0 && (version & 0xffffU) == 0) {
    fail(ErrorKind::kUnsupported, "{}: a big-endian GGUF file; convert it to little-endian", cursor.origin());
  }
  if (version != 2 && version != 3) {
    fail(ErrorKind::kUnsupported, "{}: GGUF version {}; Quiver reads 2 and 3 (convert the model anew)", cursor.origin(), version);
  }
}

/// A tensor's description, with the offset of its data from the start of the data section.
std::pair<GgufTensor, std::uint64_t> read_tensor_info(Cursor& cursor) {
  GgufTensor tensor;
  tensor.name = cursor.read_name("a tensor's name");
  const std::string what = format("tensor '{}'", tensor.name);
  const auto num_dims = cursor.read<std::uint32_t>(what);
  if (num_dims > kMaxGgufDims) {
    fail(ErrorKind::kBadFormat, "{}: {} has {} dimensions; the format allows {}", cursor.origin(), what, num_dims, kMaxGgufDims);
  }
  tensor.shape.resize(num_dims);
  for (std::uint32_t i = 0; i < num_dims; ++i) {
    const auto dim = cursor.read<std::uint64_t>(what);
    if (dim > static_cast<std::uint64_t>(INT64_MAX)) {
      fail(ErrorKind::kBadFormat, "{}: {} has a dimension of {}", cursor.origin(), what, dim);
    }
    tensor.shape[num_dims - 1 - i] = static_cast<std::int64_t>(dim);  // the file lists the innermost first
  }
  const auto type = cursor.read<std::uint32_t>(what);
  tensor.type = static_cast<GgufType>(type);
  if (!find_block_layout(tensor.type)) {
    fail(ErrorKind::kBadFormat, "{}: {} is of type {}, which no known GGUF type has", cursor.origin(), what, type);
  }
  return {std::move(tensor), cursor.read<std::uint64_t>(what)};
}

/// The bytes of a tensor of whole blocks, or kBadFormat.
std::uint64_t block_bytes(const GgufTensor& tensor, std::string_view origin) {
  const BlockLayout layout = *find_block_layout(tensor.type);
  const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (row % layout.num_values != 0) {
    fail(ErrorKind::kBadFormat, "{}: tensor '{}' of type {} has rows of {} values, not a multiple of its blocks of {}", origin, tensor.name,
         gguf_type_name(tensor.type), row, layout.num_values);
  }
  if (!tensor_bytes(tensor.shape, static_cast<std::uint64_t>(layout.num_bytes))) {
    fail(ErrorKind::kBadFormat, "{}: tensor '{}' has more elements than 64 bits can count", origin, tensor.name);
  }
  return static_cast<std::uint64_t>(tensor.num_elements() / layout.num_values * layout.num_bytes);
}

/// Where the data section starts: the tensor descriptions' end, rounded up.
std::uint64_t data_start(std::uint64_t position, std::uint64_t alignment, std::string_view origin) {
  const auto padded = checked_add(position, alignment - 1);
  if (!padded) fail(ErrorKind::kBadFormat, "{}: '{}' is {}, which is absurd", origin, kAlignmentKey, alignment);
  return *padded / alignment * alignment;
}

std::uint64_t read_alignment(const GgufView& view) {
  const auto alignment = view.find_int(kAlignmentKey);
  if (!alignment) return kDefaultAlignment;
  if (*alignment <= 0 || !std::has_single_bit(static_cast<std::uint64_t>(*alignment))) {
    fail(ErrorKind::kBadFormat, "{}: '{}' is {}; expected a power of two", view.origin(), kAlignmentKey, *alignment);
  }
  return static_cast<std::uint64_t>(*alignment);
}

/// The tensor's part of the file, checked.
std::span<const std::byte> tensor_data(const GgufTensor& tensor, std::uint64_t start, std::uint64_t offset, std::uint64_t alignment,
                                       std::span<const std::byte> bytes, std::string_view origin) {
  if (offset % alignment != 0) {
    fail(ErrorKind::kBadFormat, "{}: tensor '{}' is at offset {}, which is no multiple of the alignment {}", origin, tensor.name, offset,
         alignment);
  }
  const std::uint64_t size = block_bytes(tensor, origin);
  const auto begin = checked_add(start, offset);
  const auto end = begin ? checked_add(*begin, size) : std::nullopt;
  if (!end || (size > 0 && *end > bytes.size())) {
    fail(ErrorKind::kBadFormat,
         "{}: tensor '{}' takes {} bytes at offset {} of the data, but the file ends {} bytes after the start of the data (perhaps an "
         "incomplete download?)",
         origin, tensor.name, size, offset, bytes.size() > start ? bytes.size() - start : 0);
  }
  return size == 0 ? std::span<const std::byte>{} : bytes.subspan(*begin, size);
}

/// Refuses tensors that share bytes: no writer makes such a file.
void check_overlaps(std::span<const GgufTensor> tensors, std::span<const std::uint64_t> offsets, std::string_view origin) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].data.empty()) order.push_back(i);
  }
  std::ranges::sort(order, {}, [&](std::size_t i) { return offsets[i]; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const auto before = order[i - 1], after = order[i];
    if (offsets[after] - offsets[before] < tensors[before].data.size()) {
      fail(ErrorKind::kBadFormat, "{}: tensor '{}' begins at offset {} of the data, inside tensor '{}' of {} bytes at {}", origin,
           tensors[after].name, offsets[after], tensors[before].name, tensors[before].data.size(), offsets[before]);
    }
  }
}

}  // namespace

std::int64_t GgufTensor::num_elements() const {
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) count *= dim;
  return count;
}

GgufView GgufView::parse(std::span<const std::byte> bytes, const std::string& origin) {
  Cursor cursor(bytes, origin);
  GgufView view;
  view.origin_ = origin;
  check_version(cursor);
  const auto num_tensors = cursor.read<std::uint64_t>("the number of tensors");
  const auto num_values = cursor.read<std::uint64_t>("the number of metadata keys");
  cursor.check_count(num_values, 8 + 4 + 1, "the metadata");
  for (std::uint64_t i = 0; i < num_values; ++i) {
    std::string key = cursor.read_name("a metadata key");
    GgufValue value = read_value(cursor, format("metadata '{}'", key));
    const auto [place, is_new] = view.metadata_.try_emplace(std::move(key), std::move(value));
    if (!is_new) fail(ErrorKind::kBadFormat, "{}: the metadata key '{}' occurs twice", origin, place->first);
  }

  view.head_ = bytes.first(cursor.position());
  cursor.check_count(num_tensors, 8 + 4 + 4 + 8, "the list of tensors");
  std::vector<std::uint64_t> offsets;
  for (std::uint64_t i = 0; i < num_tensors; ++i) {
    auto [tensor, offset] = read_tensor_info(cursor);
    if (!view.index_.emplace(tensor.name, view.tensors_.size()).second) {
      fail(ErrorKind::kBadFormat, "{}: two tensors are called '{}'", origin, tensor.name);
    }
    view.tensors_.push_back(std::move(tensor));
    offsets.push_back(offset);
  }

  const std::uint64_t alignment = read_alignment(view);
  const std::uint64_t start = data_start(cursor.position(), alignment, origin);
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    view.tensors_[i].data = tensor_data(view.tensors_[i], start, offsets[i], alignment, bytes, origin);
  }
  check_overlaps(view.tensors_, offsets, origin);
  return view;
}

void GgufView::append(const GgufView& other) {
  for (const GgufTensor& tensor : other.tensors_) {
    if (!index_.emplace(tensor.name, tensors_.size()).second) {
      fail(ErrorKind::kBadFormat, "{}: tensor '{}' is in an earlier piece of the model, too", other.origin_, tensor.name);
    }
    tensors_.push_back(tensor);
  }
}

std::string GgufView::metadata_file() const {
  std::string file(reinterpret_cast<const char*>(head_.data()), head_.size());
  constexpr std::size_t kNumTensors = 8;  // after magic and version
  file.replace(kNumTensors, sizeof(std::uint64_t), sizeof(std::uint64_t), '\0');
  return file;
}

const GgufTensor* GgufView::find(std::string_view name) const {
  const auto place = index_.find(name);
  return place == index_.end() ? nullptr : &tensors_[place->second];
}

const GgufTensor& GgufView::at(std::string_view name) const {
  if (const GgufTensor* tensor = find(name)) return *tensor;
  std::vector<std::string> names;
  for (const auto& [known, position] : index_) names.push_back(known);
  fail(ErrorKind::kNotFound, "{}: no tensor '{}' among the {} there{}", origin_, name, names.size(), did_you_mean(name, names));
}

}  // namespace quiver::io
