// A request while it is being answered: for the sources of the service alone.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "quiver/http/server.h"
#include "quiver/serve/models.h"
#include "quiver/serve/service.h"

namespace quiver::serve {

struct Service::Call : std::enable_shared_from_this<Call> {
  http::Request request;
  http::ResponderPtr responder;
  std::string id;
  nlohmann::json body = nullptr;  // of a POST, once it is parsed
  std::optional<Resolved> model;  // once it is loaded
};

}  // namespace quiver::serve
