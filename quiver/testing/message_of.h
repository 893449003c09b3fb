// What an error says, for tests of refusals.
#pragma once

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

}  // namespace quiver::testing
