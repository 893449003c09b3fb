// A client's connection, as the server sees it. Of the sources that include Boost.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "quiver/http/exchange.h"
#include "quiver/http/server.h"
#include "quiver/http/transport.h"

namespace quiver::http {

/// A client that is being served. Of the server's thread.
class Connection {
 public:
  virtual ~Connection() = default;
  /// Serves requests until the connection ends.
  virtual asio::awaitable<void> serve() = 0;
  /// Closes the connection if no request has begun.
  virtual void close_if_idle() = 0;
  /// Cuts the connection off.
  virtual void cut() = 0;
  /// The client's address.
  virtual const std::string& peer() const = 0;
};

/// What the connections of a server share. Of the server's thread, but for the counters.
struct Service {
  Handlers handlers;
  Limits limits;
  asio::io_context io{1};
  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>([this](Mailbox::Function f) { asio::post(io, std::move(f)); });
  std::set<Connection*> connections = {};
  std::map<std::string, std::size_t> connections_of_address = {};
  std::atomic<std::uint64_t> num_connections = 0, accepted = 0, refused = 0;

  bool is_draining() const { return mailbox->is_draining; }
};

/// Serves by HTTP/1.1 and HTTP/1.0 what comes through `transport`.
std::shared_ptr<Connection> make_connection(Service& service, std::unique_ptr<Transport> transport, std::string peer);

}  // namespace quiver::http
