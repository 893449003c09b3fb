// The one exception type, and the formatting its messages are made with.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

namespace quiver {

/// What a program should do about an error; the message says what a person should do.
enum class ErrorKind {
  kUsage,        ///< a documented precondition is broken            exit 2
  kNotFound,     ///< no such adapter, task, tensor or file          exit 3
  kBadFormat,    ///< bytes do not parse                             exit 3
  kMismatch,     ///< two valid things do not fit together           exit 3
  kUnsupported,  ///< valid, but not implemented                     exit 3
  kIo,           ///< the operating system refused                   exit 4
  kInterrupted,  ///< the user asked to stop; nothing is lost        exit 130
  kInternal,     ///< a bug in Quiver: please report                 exit 70
};

/// The exit code of a program that ends with an error of this kind.
int exit_code(ErrorKind kind);
/// "usage", "not found", ...
const char* kind_name(ErrorKind kind);

/// The only exception type Quiver throws.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

namespace detail {
using FormatValue = std::variant<std::int64_t, std::uint64_t, double, bool, std::string_view>;
std::string format_values(std::string_view pattern, const FormatValue* values, std::size_t count);

template <typename T>
FormatValue format_value(const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value;
  } else if constexpr (std::is_floating_point_v<T>) {
    return static_cast<double>(value);
  } else if constexpr (std::is_enum_v<T>) {
    return static_cast<std::int64_t>(value);
  } else if constexpr (std::is_integral_v<T> && std::is_unsigned_v<T>) {
    return static_cast<std::uint64_t>(value);
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<std::int64_t>(value);
  } else {
    return std::string_view(value);
  }
}
}  // namespace detail

/// format(pattern, args...): fmt's format language over integers, floating-point numbers, booleans and strings. (fmt itself stays out of
/// headers: libtorch ships another version of it, and one program must not see both.) An object, because a call of a function by this name
/// with a std::string would find std::format too.
struct Format {
  template <typename... Args>
  std::string operator()(std::string_view pattern, const Args&... args) const {
    const detail::FormatValue values[] = {detail::format_value(args)..., detail::FormatValue{}};
    return detail::format_values(pattern, values, sizeof...(Args));
  }
};
inline constexpr Format format;

/// Throws Error(kind, format(pattern, args...)).
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, std::string_view pattern, const Args&... args) {
  throw Error(kind, format(pattern, args...));
}

}  // namespace quiver
