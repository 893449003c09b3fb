// Reading base models in GGUF.
#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/io/gguf_model.h"
#include "quiver/model/checkpoint.h"
#include "quiver/model/families.h"
#include "quiver/model/weight_identity.h"
#include "quiver/tensor/mapped.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::model {
namespace {

namespace fs = std::filesystem;

/// Formats of blocks that products read as they are.
constexpr std::array kKept = {io::GgufType::kQ8_0, io::GgufType::kQ4_0, io::GgufType::kQ4_1};

/// Splits the rows into three dimensions, exchanges two of these, and joins all again. One of the three is -1: what remains.
torch::Tensor reordered(const torch::Tensor& values, std::array<std::int64_t, 3> split, std::int64_t first, std::int64_t second,
                        const GgufSlot& slot, const std::string& origin) {
  const auto rows = values.dim() > 0 ? values.size(0) : 0, known = -split[0] * split[1] * split[2];
  if (rows == 0 || rows % known != 0) {
    fail(ErrorKind::kBadFormat, "{}: tensor '{}' has {} rows, which do not divide into {}", origin, slot.gguf, rows, known);
  }
  auto shape = values.sizes().vec();
  shape.erase(shape.begin());
  shape.insert(shape.begin(), split.begin(), split.end());
  return values.reshape(shape).transpose(first, second).reshape(values.sizes());
}

/// The values of a tensor. All threads share the work, and each has a piece of it in float32 at a time.
torch::Tensor values_of(const io::GgufTensor& stored, torch::Dtype dtype, const std::string& origin) {
  if (!io::can_dequantize(stored.type)) {
    fail(ErrorKind::kUnsupported, "{}: tensor '{}' is {}; Quiver reads {} (choose a file quantised so, such as one named Q4_K_M or Q8_0)",
         origin, stored.name, io::gguf_type_name(stored.type), io::readable_gguf_types());
  }
  const auto [block_values, block_bytes] = *io::find_block_layout(stored.type);
  constexpr std::int64_t kPieceValues = 64 * 1024;  // a multiple of every type's block
  const auto count = stored.num_elements();
  auto values = torch::empty(stored.shape, dtype);
  const auto flat = values.view(-1);
  at::parallel_for(0, (count + kPieceValues - 1) / kPieceValues, 1,
                   [&, block_values = block_values, block_bytes = block_bytes](std::int64_t begin, std::int64_t end) {
                     auto piece = torch::empty({std::min(kPieceValues, count)}, torch::kFloat);
                     const auto elements = tensor::mutable_elements<float>(piece, "a piece of a weight");
                     for (std::int64_t i = begin; i < end; ++i) {
                       const auto first = i * kPieceValues, size = std::min(kPieceValues, count - first);
                       const auto bytes = stored.data.subspan(static_cast<std::size_t>(first / block_values * block_bytes),
                                                              static_cast<std::size_t>(size / block_values * block_bytes));
                       io::dequantize(stored.type, bytes, elements.first(static_cast<std::size_t>(size)));
                       flat.narrow(0, first, size).copy_(piece.narrow(0, 0, size));
                     }
                   });
  return values;
}

/// Splits "blk.0.attn_q.bias" before its last part. Empty for what is neither weight nor bias.
std::pair<std::string, std::string> split_name(const std::string& name) {
  for (const char* kind : {".weight", ".bias"}) {
    if (name.ends_with(kind)) return {name.substr(0, name.size() - std::string_view(kind).size()), kind};
  }
  return {};
}

/// What spec_from_gguf reads itself, and what follows from the description.
bool is_buffer(const std::string& name) {
  return name == "rope_freqs.weight" || name == "rope_factors_long.weight" || name == "rope_factors_short.weight" ||
         name.ends_with(".attn_rot_embd.weight");
}

/// Collects the weights of a file, by the names that Model takes.
class Reader {
 public:
  Reader(const ModelSpec& spec, torch::Dtype dtype, Weights weights, const std::string& origin)
      : spec_(spec), dtype_(dtype), keeps_blocks_(weights == Weights::kQuantized), origin_(origin) {
    for (auto& slot : gguf_slots(spec)) slots_.emplace(slot.gguf, slot);
    for (auto& slot : gguf_fused_slots(spec)) fused_.emplace(slot.gguf, slot);
  }

  void add(const io::GgufTensor& stored, const io::MappedFile& file) {
    const auto [stem, kind] = split_name(stored.name);
    const auto slot = slots_.find(stem);
    const auto fused = fused_.find(stem);
    if (slot == slots_.end() && fused == fused_.end()) {
      if (!is_buffer(stored.name)) {
        fail(ErrorKind::kUnsupported, "{}: tensor '{}' has no place in a model of family '{}'", origin_, stored.name, spec_.family);
      }
      identify(stored.name, stored);
      return;
    }
    // Kept in the final dtype already: the whole model in float32 would need twice the memory.
    const bool is_matrix = stored.shape.size() == 2 && (slot == slots_.end() || slot->second.name != position_name());
    auto values = keeps_blocks_ && is_matrix ? blocks_of(stored, file) : torch::Tensor();
    if (!values.defined()) values = values_of(stored, stored.shape.size() == 1 ? torch::kFloat : dtype_, origin_);
    if (slot != slots_.end()) {
      identify(slot->second.name + kind, stored);
      keep(slot->second, kind, values);
    } else {
      identify(fused->second.name + kind, stored);
      cut(fused->second, kind, values);
    }
    file.release(stored.data);  // what stays in the file is read again, a matrix at a time
  }

  tensor::TensorMap& weights() { return weights_; }
  bool has_blocks() const { return has_blocks_; }
  WeightIdentity identity() { return {fingerprint_.hex(), content_.hex()}; }

 private:
  std::string position_name() const { return spec_.names.positions == nullptr ? "" : spec_.names.positions; }

  /// The tensor as backend::is_blocks has it, in the mapped file; undefined in another format.
  torch::Tensor blocks_of(const io::GgufTensor& stored, const io::MappedFile& file) {
    if (std::ranges::find(kKept, stored.type) == kKept.end()) return {};
    has_blocks_ = true;
    const auto [block_values, block_bytes] = *io::find_block_layout(stored.type);
    const std::vector<std::int64_t> shape = {stored.shape[0], stored.shape[1] / block_values, block_bytes};
    return tensor::mapped_tensor({stored.name, io::Dtype::kU8, shape, stored.data}, file);
  }

  void identify(const std::string& name, const io::GgufTensor& stored) {
    fingerprint_.add(name, io::gguf_type_name(stored.type), stored.shape, stored.data);
    content_.add(name, io::gguf_type_name(stored.type), stored.shape, stored.data);
  }

  void keep(const GgufSlot& slot, const std::string& kind, const torch::Tensor& values) {
    if (!weights_.emplace(slot.name + kind, from_gguf_rows(slot, values, origin_)).second) {
      fail(ErrorKind::kBadFormat, "{}: tensor '{}{}' is there twice: alone, and as a part of a fused one", origin_, slot.gguf, kind);
    }
  }

  /// llama.cpp's converter stacks q, k and v after it has put the rows of each in its order.
  void cut(const GgufFusedSlot& fused, const std::string& kind, const torch::Tensor& values) {
    std::int64_t rows = 0;
    for (const auto& part : fused.parts) rows += part.num_rows;
    const auto found = values.dim() > 0 ? values.size(0) : 0;
    if (found != rows) {
      fail(ErrorKind::kBadFormat, "{}: tensor '{}{}' has {} rows; q, k and v have {}", origin_, fused.gguf, kind, found, rows);
    }
    rows = 0;
    for (const auto& part : fused.parts) {
      keep(part.slot, kind, values.narrow(0, rows, part.num_rows).clone());
      rows += part.num_rows;
    }
  }

  const ModelSpec& spec_;
  torch::Dtype dtype_;
  bool keeps_blocks_, has_blocks_ = false;
  std::string origin_;
  std::map<std::string, GgufSlot> slots_;
  std::map<std::string, GgufFusedSlot> fused_;
  tensor::TensorMap weights_;
  Fingerprint fingerprint_;
  ContentHash content_;
};

}  // namespace

torch::Tensor from_gguf_rows(const GgufSlot& slot, const torch::Tensor& values, const std::string& origin) {
  const auto heads = slot.num_heads;
  switch (slot.rows) {
    case GgufRows::kSame: break;
    case GgufRows::kPaired: return reordered(values, {heads, -1, 2}, 1, 2, slot, origin);
    case GgufRows::kByPart: return reordered(values, {3, heads, -1}, 0, 1, slot, origin);
  }
  return values;
}

torch::Tensor to_gguf_rows(const GgufSlot& slot, const torch::Tensor& values, const std::string& origin) {
  const auto heads = slot.num_heads;
  switch (slot.rows) {
    case GgufRows::kSame: break;
    case GgufRows::kPaired: return reordered(values, {heads, 2, -1}, 1, 2, slot, origin);
    case GgufRows::kByPart: return reordered(values, {heads, 3, -1}, 0, 1, slot, origin);
  }
  return values;
}

bool is_all_in_blocks(const fs::path& path) {
  if (path.extension() != ".gguf") return false;
  const io::GgufModel file(path);
  return std::ranges::all_of(file.view().tensors(), [](const io::GgufTensor& tensor) {
    return tensor.shape.size() != 2 || std::ranges::find(kKept, tensor.type) != kKept.end();
  });
}

Model load_gguf(const fs::path& path, tensor::Placement placement, const LoadOptions& options) {
  const io::GgufModel file(path);
  const auto& gguf = file.view();
  auto spec = spec_from_gguf(gguf);
  if (spec.name.empty()) spec.name = path.stem().string();
  set_context(spec, options.context, path.string());
  Reader reader(spec, placement.dtype, options.base_weights, path.string());
  for (const auto& stored : gguf.tensors()) reader.add(stored, file.file_of(stored));
  if (options.base_weights == Weights::kQuantized && !reader.has_blocks()) refuse_quantized(path);
  limit_positions(spec, reader.weights());
  set_fusion(spec, reader.weights(), options.fusion);
  return Model(std::move(spec), std::move(reader.weights()), placement, reader.identity());
}

}  // namespace quiver::model
