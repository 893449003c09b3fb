// Errors of the operating system, for the sources of this folder.
#pragma once

#include <filesystem>
#include <string_view>

namespace quiver::io {

/// Throws "cannot <action> '<path>'" with what an errno says and what a person can do: kNotFound where nothing is there, else kIo.
[[noreturn]] void fail_errno(std::string_view action, const std::filesystem::path& path, int error);

}  // namespace quiver::io
