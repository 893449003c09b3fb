// What an error says, for tests of refusals in every folder; free of libtorch.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "quiver/base/error.h"

namespace quiver::testing {

/// The message of the Error that `action` throws; the test fails unless it throws one of kind `kind`.
inline std::string message_of(ErrorKind kind, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

/// "kind: message" of the Error that `action` throws; "no error" if it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return std::string(kind_name(error.kind())) + ": " + error.what();
  }
  return "no error";
}

}  // namespace quiver::testing

/// The expression throws an Error of this kind whose message holds `part`.
#define EXPECT_ERROR(expression, kind, part) \
  EXPECT_THAT(::quiver::testing::message_of(kind, [&] { static_cast<void>(expression); }), ::testing::HasSubstr(part))
