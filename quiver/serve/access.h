// Who may call the server.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "quiver/http/server.h"

namespace quiver::serve {

enum class Access {
  kOpen,   ///< anybody
  kKey,    ///< who has the API key, if there is one
  kAdmin,  ///< who has the admin key; nobody if there is none
};

/// Throws ApiError kForbidden where the header Host names none of `hosts` (any is allowed if there are none), or where a page of another
/// origin than the server's and `cors_origin` calls. So that no web page uses a server on the reader's own machine through a name of its
/// own.
void check_host(const http::RequestHead& head, const std::set<std::string>& hosts, std::string_view cors_origin);
/// The name in a header Host: without the port, in lower case.
std::string host_name(std::string_view host);

/// Throws ApiError: kInvalidApiKey for a key that is missing or wrong, kForbidden for kAdmin without an admin key. Keys come as
/// "Authorization: Bearer KEY". The admin key opens everything. The time does not depend on how much of a key is right.
void check_key(const http::RequestHead& head, Access access, std::string_view api_key, std::string_view admin_key);

}  // namespace quiver::serve
