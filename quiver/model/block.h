// A transformer block as two lists of steps, with attention between them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "quiver/model/spec.h"
#include "quiver/nn/row_program.h"
#include "quiver/tensor/tensor.h"

namespace quiver::model {

/// The tensors of a block by the slot of its programs. Rows of kQuery, kKey, kValue and kAttended hold all heads side by side. A family's
/// blocks use some of them.
enum BlockSlot : nn::Slot {
  kInput,           ///< what enters the block, [T, d]
  kNormed,          ///< normalised, for q, k and v
  kQkv,             ///< of one map to queries, keys and values
  kQueryProjected,  ///< before norm and rotation
  kKeyProjected,
  kQueryNormed,  ///< before the rotation
  kKeyNormed,
  kQuery,            ///< what attention reads
  kKey,              //
  kValue,            //
  kAttended,         ///< what attention gives, [T, H D]
  kAttentionOutput,  ///< projected, [T, d]
  kAttentionNormed,
  kMid,  ///< the residual stream after attention, [T, d]
  kMlpNormed,
  kGateUp,  ///< of one map to gate and up
  kGate,
  kUp,
  kActivated,  ///< act(gate) * up, or act(up)
  kMlpOutput,
  kMlpOutputNormed,
  kOutput,  ///< what leaves the block, [T, d]
  kHidden,  ///< of the last block: normalised once more
  kNumBlockSlots,
};

/// The width of every slot's rows.
std::vector<std::int64_t> slot_widths(const ModelSpec& spec);

/// The steps of one block.
struct Block {
  nn::RowProgram before;          ///< kInput -> kQuery, kKey, kValue
  nn::RowProgram after;           ///< kAttended and `carried` -> kOutput; of the last block -> kHidden
  std::vector<nn::Slot> carried;  ///< slots of `before` that `after` reads
  nn::Slot result = kOutput;      ///< kOutput, or kHidden
};

/// Norms by path.
using NormMap = std::map<std::string, nn::Norm>;

/// The block of a layer. The last block ends with the model's final norm.
Block compile_block(const ModelSpec& spec, std::int64_t layer, const nn::LinearMap& linears, const NormMap& norms);

}  // namespace quiver::model
