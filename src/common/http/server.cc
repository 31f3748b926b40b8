#include "src/common/http/server.h"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "src/common/base/log.h"
#include "src/common/base/unix_socket.h"

namespace dormouse::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using Protocol = asio::generic::stream_protocol;
using Stream = beast::basic_stream<Protocol>;
using BeastRequest = beast::http::request<beast::http::string_body>;
using BeastResponse = beast::http::response<beast::http::string_body>;

struct Route {
  std::string method;
  Handler handler;
};
using Routes = std::map<std::string, Route>;

const Route* FindRoute(const Routes& routes, const std::string& path) {
  if (auto it = routes.find(path); it != routes.end()) return &it->second;
  for (std::size_t slash = path.rfind('/'); slash != std::string::npos;
       slash = slash == 0 ? std::string::npos : path.rfind('/', slash - 1)) {
    if (auto it = routes.find(path.substr(0, slash + 1)); it != routes.end()) return &it->second;
  }
  return nullptr;
}

ServerResponse Answer(const Routes& routes, const ServerRequest& request) {
  const Route* route = FindRoute(routes, request.path);
  if (route == nullptr) return {404, "not found\n"};
  const bool fits =
      request.method == route->method || (request.method == "HEAD" && route->method == "GET");
  if (!fits) return {405, "method not allowed\n"};
  try {
    return route->handler(request);
  } catch (const std::exception& exception) {
    log::Error("handler failed", {{"path", request.path}, {"error", exception.what()}});
    return {500, "internal error\n"};
  }
}

/// One connection: reads a request, answers, and so on. Kept alive by its own pending operations.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Protocol::socket socket, const Routes& routes, const ServerLimits& limits,
          uint64_t* clock, std::function<void(Session*)> ended)
      : stream_(std::move(socket)),
        routes_(routes),
        limits_(limits),
        clock_(*clock),
        ended_(std::move(ended)) {}
  ~Session() { ended_(this); }

  void Read() {
    since_ = ++clock_;
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(limits_.head_bytes));
    parser_->body_limit(limits_.body_bytes);
    // The first byte may take the idle time; from then on the whole request has the head's.
    stream_.expires_after(buffer_.size() > 0 ? limits_.head_time : limits_.idle_time);
    if (buffer_.size() > 0) return ReadRest();
    stream_.async_read_some(buffer_.prepare(4096),
                            [self = shared_from_this()](beast::error_code error, std::size_t got) {
                              if (error) return;
                              self->buffer_.commit(got);
                              self->stream_.expires_after(self->limits_.head_time);
                              self->ReadRest();
                            });
  }
  void Close() { stream_.close(); }
  /// When it was accepted, last sent a whole request, or last had its answer: by a count.
  [[nodiscard]] uint64_t since() const { return since_; }

 private:
  void ReadRest() {
    beast::http::async_read(stream_, buffer_, *parser_,
                            [self = shared_from_this()](beast::error_code error, std::size_t) {
                              self->OnRequest(error);
                            });
  }

  void OnRequest(beast::error_code error) {
    if (error == beast::http::error::header_limit) return Refuse(431, "headers too large\n");
    if (error == beast::http::error::body_limit) return Refuse(413, "body too large\n");
    if (error == beast::http::error::end_of_stream) return;
    if (error == beast::http::error::partial_message) return;
    const auto& http_category =
        beast::http::make_error_code(beast::http::error::bad_method).category();
    if (error && error.category() == http_category) return Refuse(400, "bad request\n");
    if (error) return;
    since_ = ++clock_;
    BeastRequest message = parser_->release();
    const std::string target(message.target());
    const std::size_t question = target.find('?');
    ServerRequest request{std::string(message.method_string()), target.substr(0, question),
                          question == std::string::npos ? "" : target.substr(question + 1),
                          std::move(message.body())};
    Write(Answer(routes_, request), message.keep_alive(), request.method == "HEAD");
  }

  void Refuse(int status, const char* why) { Write({status, why}, false, false); }

  void Write(ServerResponse answer, bool keep_alive, bool head) {
    response_ = BeastResponse();
    response_.version(11);
    response_.result(static_cast<unsigned>(answer.status));
    response_.set(beast::http::field::content_type, answer.content_type);
    response_.set("X-Content-Type-Options", "nosniff");
    response_.keep_alive(keep_alive);
    response_.content_length(answer.body.size());
    if (!head) response_.body() = std::move(answer.body);
    stream_.expires_after(limits_.head_time);
    beast::http::async_write(
        stream_, response_,
        [self = shared_from_this(), keep_alive](beast::error_code error, std::size_t) {
          if (!error && keep_alive) return self->Read();
          self->stream_.close();
        });
  }

  Stream stream_;
  const Routes& routes_;
  const ServerLimits& limits_;
  uint64_t& clock_;  ///< of all sessions
  uint64_t since_ = 0;
  std::function<void(Session*)> ended_;
  beast::flat_buffer buffer_;
  std::optional<beast::http::request_parser<beast::http::string_body>> parser_;
  BeastResponse response_;
};

Result<Protocol::endpoint> ParseAddress(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  unsigned port = 0;
  const auto wrong = [&text] {
    return Fail(ErrorCode::kInvalid, "listen on '" + text + "': not host:port or unix:/path");
  };
  if (colon == std::string::npos) return wrong();
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end || port > 65535) return wrong();
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  if (host.empty()) host = ::access("/proc/net/if_inet6", F_OK) == 0 ? "::" : "0.0.0.0";
  if (host == "localhost") host = "127.0.0.1";
  beast::error_code error;
  const auto ip = asio::ip::make_address(host, error);
  if (error) return wrong();
  return asio::ip::tcp::endpoint(ip, static_cast<uint16_t>(port));
}

}  // namespace

class Server::Impl {
 public:
  explicit Impl(ServerLimits limits) : limits_(limits), acceptor_(io_) {}
  ~Impl() {
    Stop();
    if (!unix_path_.empty()) ::unlink(unix_path_.c_str());
  }

  Result<> Bind(const std::string& address) {
    if (address.starts_with("unix:")) return BindUnix(address.substr(5));
    DORMOUSE_ASSIGN(const Protocol::endpoint endpoint, ParseAddress(address));
    beast::error_code error;
    const auto failed = [&](const char* step) {
      return Fail(Error::FromErrno("listen on " + address + ": " + step, error.value())
                      .WithCode(error == asio::error::address_in_use ? ErrorCode::kBusy
                                                                     : ErrorCode::kUnavailable));
    };
    acceptor_.open(endpoint.protocol(), error);
    if (error) return failed("socket");
    acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    acceptor_.bind(endpoint, error);
    if (error) return failed("bind");
    acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) return failed("listen");
    return {};
  }

  Result<> BindUnix(const std::string& path) {
    DORMOUSE_TRY(RemoveDeadSocket(path));
    DORMOUSE_ASSIGN(UniqueFd listener, ListenUnix(path));
    beast::error_code error;
    acceptor_.assign(Protocol(asio::local::stream_protocol()), listener.get(), error);
    if (error) return FailErrno("listen on " + path, error.value());
    (void)listener.Release();
    unix_path_ = path;
    return {};
  }

  void Handle(const std::string& method, const std::string& path, Handler handler) {
    routes_[path] = Route{method, std::move(handler)};
  }

  void Start() {
    Accept();
    thread_ = std::thread([this] { io_.run(); });
  }

  void Stop() {
    if (!thread_.joinable()) return;
    asio::post(io_, [this] {
      stopping_ = true;
      beast::error_code ignored;
      acceptor_.close(ignored);
      for (Session* session : sessions_) session->Close();
    });
    thread_.join();
  }

  uint16_t port() const {
    beast::error_code error;
    const auto endpoint = acceptor_.local_endpoint(error);
    if (error || !unix_path_.empty()) return 0;
    asio::ip::tcp::endpoint tcp;
    tcp.resize(endpoint.size());
    std::memcpy(tcp.data(), endpoint.data(), endpoint.size());
    return tcp.port();
  }

 private:
  void Accept() {
    acceptor_.async_accept([this](beast::error_code error, Protocol::socket socket) {
      if (stopping_ || error == asio::error::operation_aborted) return;
      if (error) {
        // Mostly EMFILE: give connections that end the time to do so.
        retry_.expires_after(std::chrono::milliseconds(100));
        retry_.async_wait([this](beast::error_code) {
          if (!stopping_) Accept();
        });
        return;
      }
      if (sessions_.size() >= limits_.connections) Shed();
      auto session = std::make_shared<Session>(std::move(socket), routes_, limits_, &clock_,
                                               [this](Session* ended) { sessions_.erase(ended); });
      sessions_.insert(session.get());
      session->Read();
      Accept();
    });
  }

  /// Who connects and says nothing must not keep others out: the connection that has been of no use
  /// for longest makes room.
  void Shed() {
    Session* const oldest = *std::min_element(
        sessions_.begin(), sessions_.end(),
        [](const Session* a, const Session* b) { return a->since() < b->since(); });
    sessions_.erase(oldest);
    oldest->Close();
  }

  const ServerLimits limits_;
  Routes routes_;
  uint64_t clock_ = 0;
  std::set<Session*> sessions_;  ///< before io_: sessions end with it at the latest
  asio::io_context io_{1};
  asio::basic_socket_acceptor<Protocol> acceptor_;
  asio::steady_timer retry_{io_};
  std::string unix_path_;
  bool stopping_ = false;
  std::thread thread_;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::Listen(const std::string& address, ServerLimits limits) {
  auto impl = std::make_unique<Impl>(limits);
  DORMOUSE_TRY(impl->Bind(address));
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

void Server::Handle(const std::string& method, const std::string& path, Handler handler) {
  impl_->Handle(method, path, std::move(handler));
}
void Server::Start() {
  impl_->Start();
}
void Server::Stop() {
  impl_->Stop();
}
uint16_t Server::port() const {
  return impl_->port();
}

}  // namespace dormouse::http
