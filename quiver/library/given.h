// PEFT folders that somebody gives to a library.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "quiver/adapters/peft.h"
#include "quiver/library/catalogue.h"

namespace quiver::library {

/// A PEFT folder that was read for a library.
struct GivenAdapter {
  std::filesystem::path folder;   ///< empty for an adapter that comes as something else: Quiver writes its files
  adapters::LoraAdapter adapter;  ///< of the library's base, whatever its files say
  std::string tensors_sha256;     ///< of adapter_model.safetensors, as it was read
  std::vector<std::string> warnings;
};

/// Reads a PEFT folder, and checks that it is an adapter of `base`, whose model has these projections and `outer` maps
/// (adapters::check_fits). Warnings tell of a base of another name, of what PEFT would warn of, and of an adapter that changes nothing.
/// Throws as load_peft and check_fits.
GivenAdapter read_given(const std::filesystem::path& folder, const Base& base, const nn::LinearMap& projections, bool allow_other_base,
                        const adapters::MapSizes& outer = {});

}  // namespace quiver::library
