// Models and parts of them as GGUF files have them: the way back from families.h's spec_from_gguf and from gguf_slots.h.
#pragma once

#include <string>
#include <vector>

#include "quiver/io/gguf_writer.h"
#include "quiver/model/gguf_slots.h"
#include "quiver/model/spec.h"
#include "quiver/tensor/tensor.h"

namespace quiver::model {

/// The description as one of a family that GGUF files know: Mistral's is Llama's. Throws kUnsupported for a family without an architecture
/// there (GPT-Neo).
ModelSpec gguf_form(const ModelSpec& spec);

/// What "general.architecture" says of a description that gguf_form has let pass.
std::string gguf_architecture(const ModelSpec& spec);

/// The metadata that spec_from_gguf reads the description back from, in the types and under the keys of llama.cpp's converter, without the
/// tokenizer. The scale of Gemma's scores has a key that llama.cpp does not read. Throws as gguf_form, and kUnsupported for what no key
/// holds.
io::GgufMetadata gguf_description(const ModelSpec& spec);

/// What such a file does not say, a line for the user; empty if it says all. llama.cpp has no windows in the architectures of Llama and
/// Qwen, and its converter leaves them out.
std::string lost_in_gguf(const ModelSpec& spec);

/// The tensors of a model. `weights` are those of Model::weights() without the prefix of the names ("layers.0.mlp.up_proj.weight").
/// Matrices become `type`, or F16 where Q8_0's blocks do not divide their rows; vectors and factors of rotations are F32.
std::vector<io::GgufSource> gguf_tensors(const ModelSpec& spec, const tensor::TensorMap& weights, io::GgufType type);

/// One tensor that is written as `type`. `values` is on any device and of any dtype.
io::GgufSource gguf_source(const std::string& name, const torch::Tensor& values, io::GgufType type);

}  // namespace quiver::model
