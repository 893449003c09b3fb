#include "quiver/io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <tuple>
#include <utility>

#include "quiver/base/checked.h"
#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"

namespace quiver::io {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian, and mapped as they are");

constexpr std::string_view kMetadataKey = "__metadata__";
constexpr std::size_t kLengthBytes = 8;

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  std::int64_t bytes;
};

// In the order that the Python library writes them: the widest first, then as its own enumeration has them.
constexpr std::array<DtypeRow, 10> kDtypes = {{{Dtype::kI64, "I64", 8},
                                               {Dtype::kF64, "F64", 8},
                                               {Dtype::kF32, "F32", 4},
                                               {Dtype::kI32, "I32", 4},
                                               {Dtype::kBF16, "BF16", 2},
                                               {Dtype::kF16, "F16", 2},
                                               {Dtype::kI16, "I16", 2},
                                               {Dtype::kI8, "I8", 1},
                                               {Dtype::kU8, "U8", 1},
                                               {Dtype::kBool, "BOOL", 1}}};

/// Dtypes of the format that we know of and do not read.
constexpr std::array<std::string_view, 13> kOtherDtypes = {"U16", "U32",     "U64",     "C64",  "F8_E4M3",     "F8_E5M2",    "F8_E8M0",
                                                           "F4",  "F6_E2M3", "F6_E3M2", "C128", "F8_E4M3FNUZ", "F8_E5M2FNUZ"};

std::size_t dtype_position(Dtype dtype) {
  for (std::size_t i = 0; i < kDtypes.size(); ++i) {
    if (kDtypes[i].dtype == dtype) return i;
  }
  fail(ErrorKind::kInternal, "no dtype has the number {}", dtype);
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += format("{}{}", i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

std::vector<std::int64_t> read_shape(const json& info, std::string_view where) {
  std::vector<std::int64_t> shape;
  for (const json& dim : require_array(info, "shape", where)) {
    if (!dim.is_number_unsigned() || dim.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
      fail(ErrorKind::kBadFormat, "{}: 'shape' holds {}; expected integers from 0", where, dim.dump());
    }
    shape.push_back(dim.get<std::int64_t>());
  }
  return shape;
}

Dtype read_dtype(const json& info, std::string_view where) {
  const std::string name = require_string(info, "dtype", where);
  if (const auto dtype = dtype_from_name(name)) return *dtype;
  if (std::ranges::find(kOtherDtypes, name) != kOtherDtypes.end()) {
    fail(ErrorKind::kUnsupported, "{} is of dtype {}, which Quiver does not read; convert it to F32, F16 or BF16", where, name);
  }
  fail(ErrorKind::kBadFormat, "{}: no dtype is called '{}'; expected F32, F16, BF16, I64, ...", where, name);
}

struct PlacedEntry {
  TensorEntry entry;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

PlacedEntry read_entry(const std::string& name, const json& info, std::span<const std::byte> data, std::string_view origin) {
  const std::string where = format("{}: tensor '{}'", origin, name);
  PlacedEntry placed;
  placed.entry.name = name;
  placed.entry.dtype = read_dtype(info, where);
  placed.entry.shape = read_shape(info, where);

  const json& offsets = require_array(info, "data_offsets", where);
  if (offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned()) {
    fail(ErrorKind::kBadFormat, "{}: 'data_offsets' must be two integers from 0: begin and end", where);
  }
  placed.begin = offsets[0].get<std::uint64_t>();
  placed.end = offsets[1].get<std::uint64_t>();
  if (placed.begin > placed.end) {
    fail(ErrorKind::kBadFormat, "{} begins at byte {} and ends before, at {}", where, placed.begin, placed.end);
  }
  if (placed.end > data.size()) {
    fail(ErrorKind::kBadFormat, "{} ends at byte {} of the data, but the file holds only {} (perhaps an incomplete download?)", where,
         placed.end, data.size());
  }
  const auto expected = tensor_bytes(placed.entry.shape, static_cast<std::uint64_t>(dtype_bytes(placed.entry.dtype)));
  if (!expected) {
    fail(ErrorKind::kBadFormat, "{}: shape {} has more elements than 64 bits can count", where, shape_text(placed.entry.shape));
  }
  if (*expected != placed.end - placed.begin) {
    fail(ErrorKind::kBadFormat, "{} of dtype {} and shape {} takes {} bytes, but its data_offsets span {}", where,
         dtype_name(placed.entry.dtype), shape_text(placed.entry.shape), *expected, placed.end - placed.begin);
  }
  placed.entry.data = data.subspan(placed.begin, placed.end - placed.begin);
  return placed;
}

/// Tensors sorted by place must follow one another from the first byte of the data to the last.
void check_coverage(std::span<const PlacedEntry> sorted, std::size_t data_bytes, std::string_view origin) {
  std::uint64_t covered = 0;
  std::string_view previous = "the header";
  for (const PlacedEntry& placed : sorted) {
    if (placed.begin != covered) {
      fail(ErrorKind::kBadFormat, "{}: tensor '{}' begins at byte {} of the data, but '{}' before it ends at {} ({})", origin,
           placed.entry.name, placed.begin, previous, covered, placed.begin < covered ? "they overlap" : "a hole");
    }
    covered = placed.end;
    previous = placed.entry.name;
  }
  if (covered != data_bytes) {
    fail(ErrorKind::kBadFormat, "{}: the tensors end at byte {} of the data, but the file holds {} bytes of data", origin, covered,
         data_bytes);
  }
}

std::map<std::string, std::string> read_metadata(const json& value, std::string_view origin) {
  if (!value.is_object()) {
    fail(ErrorKind::kBadFormat, "{}: '{}' is {}; expected an object of strings", origin, kMetadataKey, value.type_name());
  }
  std::map<std::string, std::string> metadata;
  for (const auto& item : value.items()) {
    metadata[item.key()] = require_string(value, item.key(), format("{}: {}", origin, kMetadataKey));
  }
  return metadata;
}

/// The header's JSON text.
std::string_view header_text(std::span<const std::byte> bytes, std::string_view origin) {
  if (bytes.size() < kLengthBytes) {
    fail(ErrorKind::kBadFormat, "{}: a safetensors file has 8 bytes at least, this one has {} (perhaps an incomplete download?)", origin,
         bytes.size());
  }
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > SafetensorsView::kMaxHeaderBytes) {
    fail(ErrorKind::kBadFormat, "{}: the header claims {} bytes, more than the {} allowed (is this a safetensors file?)", origin, length,
         SafetensorsView::kMaxHeaderBytes);
  }
  if (length > bytes.size() - kLengthBytes) {
    fail(ErrorKind::kBadFormat, "{}: the header claims {} bytes, but only {} follow (perhaps an incomplete download or a corrupt file?)",
         origin, length, bytes.size() - kLengthBytes);
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data() + kLengthBytes), length);
  if (!text.starts_with('{')) {
    fail(ErrorKind::kBadFormat, "{}: the header does not begin with an opening brace (is this a safetensors file?)", origin);
  }
  return text;
}

/// `text` as a JSON string, escaped as the Python library does.
std::string quoted(std::string_view text, std::string_view what) { return dump_json(json(text), what); }

/// The tensors in the order of the file, checked.
std::vector<const TensorEntry*> writing_order(std::span<const TensorEntry> entries) {
  std::vector<const TensorEntry*> order;
  for (const TensorEntry& entry : entries) {
    if (entry.name == kMetadataKey) fail(ErrorKind::kUsage, "no tensor may be called '{}'", kMetadataKey);
    const auto expected = tensor_bytes(entry.shape, static_cast<std::uint64_t>(dtype_bytes(entry.dtype)));
    if (!expected || *expected != entry.data.size()) {
      fail(ErrorKind::kUsage, "tensor '{}' of dtype {} and shape {} does not take {} bytes, the size of its data", entry.name,
           dtype_name(entry.dtype), shape_text(entry.shape), entry.data.size());
    }
    order.push_back(&entry);
  }
  std::ranges::sort(order, [](const TensorEntry* a, const TensorEntry* b) {
    return std::pair(dtype_position(a->dtype), std::string_view(a->name)) < std::pair(dtype_position(b->dtype), std::string_view(b->name));
  });
  std::vector<std::string_view> names;
  for (const TensorEntry* entry : order) names.push_back(entry->name);
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end()) {
    fail(ErrorKind::kUsage, "two tensors are called '{}'", *twice);
  }
  return order;
}

/// The length and the padded header, all that comes before the data.
std::string preamble(std::span<const TensorEntry* const> order, const std::map<std::string, std::string>& metadata) {
  std::string header = "{";
  if (!metadata.empty()) {
    header += format("\"{}\":{{", kMetadataKey);
    for (const auto& [key, value] : metadata) {
      if (header.back() != '{') header += ',';
      header += quoted(key, "a metadata key") + ':' + quoted(value, format("metadata '{}'", key));
    }
    header += '}';
  }
  std::uint64_t offset = 0;
  for (const TensorEntry* entry : order) {
    if (header.size() > 1) header += ',';
    header += quoted(entry->name, "a tensor's name");
    header += format(":{{\"dtype\":\"{}\",\"shape\":[", dtype_name(entry->dtype));
    for (std::size_t i = 0; i < entry->shape.size(); ++i) header += format("{}{}", i == 0 ? "" : ",", entry->shape[i]);
    header += format("],\"data_offsets\":[{},{}]}}", offset, offset + entry->data.size());
    offset += entry->data.size();
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > SafetensorsView::kMaxHeaderBytes) {
    fail(ErrorKind::kUsage, "the header would take {} bytes, more than the {} that the format allows", header.size(),
         SafetensorsView::kMaxHeaderBytes);
  }
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), kLengthBytes) + header;
}

}  // namespace

std::int64_t dtype_bytes(Dtype dtype) { return kDtypes[dtype_position(dtype)].bytes; }

std::string_view dtype_name(Dtype dtype) { return kDtypes[dtype_position(dtype)].name; }

std::optional<Dtype> dtype_from_name(std::string_view name) {
  const auto row = std::ranges::find(kDtypes, name, &DtypeRow::name);
  return row == kDtypes.end() ? std::nullopt : std::optional(row->dtype);
}

SafetensorsView SafetensorsView::parse(std::span<const std::byte> bytes, std::string origin) {
  const std::string_view text = header_text(bytes, origin);
  const auto data = bytes.subspan(kLengthBytes + text.size());
  const json header = parse_json(text, format("{}: the header", origin));

  SafetensorsView view;
  std::vector<PlacedEntry> placed;
  for (const auto& item : header.items()) {
    if (item.key() == kMetadataKey) {
      view.metadata_ = read_metadata(item.value(), origin);
    } else {
      placed.push_back(read_entry(item.key(), item.value(), data, origin));
    }
  }
  // By end too: an empty tensor may begin where its neighbour does.
  std::ranges::sort(placed, [](const PlacedEntry& a, const PlacedEntry& b) {
    return std::tie(a.begin, a.end, a.entry.name) < std::tie(b.begin, b.end, b.entry.name);
  });
  check_coverage(placed, data.size(), origin);

  for (PlacedEntry& one : placed) {
    view.index_.emplace(one.entry.name, view.entries_.size());
    view.entries_.push_back(std::move(one.entry));
  }
  view.origin_ = std::move(origin);
  return view;
}

const TensorEntry* SafetensorsView::find(std::string_view name) const {
  const auto place = index_.find(name);
  return place == index_.end() ? nullptr : &entries_[place->second];
}

const TensorEntry& SafetensorsView::at(std::string_view name) const {
  if (const TensorEntry* entry = find(name)) return *entry;
  std::vector<std::string> names;
  for (const auto& [known, position] : index_) names.push_back(known);
  fail(ErrorKind::kNotFound, "{}: no tensor '{}' among the {} there{}", origin_, name, names.size(), did_you_mean(name, names));
}

std::string serialize_safetensors(std::span<const TensorEntry> entries, const std::map<std::string, std::string>& metadata) {
  const auto order = writing_order(entries);
  std::string bytes = preamble(order, metadata);
  std::size_t total = bytes.size();
  for (const TensorEntry* entry : order) total += entry->data.size();
  bytes.reserve(total);
  for (const TensorEntry* entry : order) {
    bytes.append(reinterpret_cast<const char*>(entry->data.data()), entry->data.size());
  }
  return bytes;
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorEntry> entries,
                       const std::map<std::string, std::string>& metadata) {
  const auto order = writing_order(entries);
  AtomicFileWriter writer(path);
  writer.write(preamble(order, metadata));
  for (const TensorEntry* entry : order) writer.write(entry->data);
  writer.commit();
}

}  // namespace quiver::io
