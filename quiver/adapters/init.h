// Where training starts.
#pragma once

#include <cstdint>
#include <string>

#include "quiver/adapters/lora.h"
#include "quiver/nn/linear.h"

namespace quiver::adapters {

/// The bound b of lora_a ~ U(-b, b).
enum class LoraInit {
  kMttl,  ///< b = sqrt(1/3) / sqrt(d_in), that of the paper's code
  kPeft,  ///< b = 1 / sqrt(d_in), PEFT's default (Kaiming uniform, a = sqrt 5)
};

/// True if `target` ("q_proj", "self_attn.q_proj", "all-linear") selects the projection at `path`.
bool is_target(const std::string& path, const std::string& target);

/// An adapter that changes nothing yet: lora_a uniform, lora_b zero, a DoRA's magnitude the norm of W's rows; float32 on the CPU, on every
/// projection that `options.target_modules` selects. Each lora_a is drawn from the stream "init/<path>" of `seed`, whatever the adapter's
/// name: adapters that are to be averaged factor by factor must start from the same lora_a, since unrelated ones cancel. Throws kUsage for
/// bad options, kNotFound for a target module that selects no projection.
LoraAdapter initial_adapter(const std::string& name, const LoraOptions& options, const nn::LinearMap& linears, std::uint64_t seed,
                            LoraInit init = LoraInit::kMttl);

}  // namespace quiver::adapters
