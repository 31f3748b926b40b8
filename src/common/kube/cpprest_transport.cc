#include "src/common/kube/cpprest_transport.h"

#include <cpprest/http_client.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include "src/common/base/log.h"
#include "src/common/kube/exec_plugin.h"
#include "src/common/kube/in_flight.h"
#include "src/common/kube/library_threads.h"
#include "src/common/kube/sink_buffer.h"
#include "src/common/kube/tls_credentials.h"
#include "src/common/kube/token_source.h"

namespace dormouse::kube {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using web::http::client::http_client;
using web::http::client::http_client_config;

constexpr std::size_t kMaxBodyBytes = 32 * 1024 * 1024;
constexpr std::size_t kMaxErrorBodyBytes = 64 * 1024;
constexpr auto kLookAtFilesEach = std::chrono::minutes(1);
/// The API server gives a plain request 60 s; a stream's headers come no later.
constexpr auto kHeaderLimit = std::chrono::seconds(60);
/// It takes milliseconds, but for a name that is being looked up, which nothing can cancel.
constexpr auto kEndLimit = std::chrono::seconds(1);
constexpr char kSystemRoots[] = "/etc/ssl/certs/ca-certificates.crt";

struct SocketOption {
  int level, name, value;
};
/// Those of keep-alive together end a half-open connection within 45 s; without, the kernel takes
/// 13 to 30 minutes. A body follows its headers in a segment of its own: it waits for no
/// acknowledgement of them.
constexpr SocketOption kSocketOptions[] = {
    {SOL_SOCKET, SO_KEEPALIVE, 1},           {IPPROTO_TCP, TCP_KEEPIDLE, 30},
    {IPPROTO_TCP, TCP_KEEPINTVL, 5},         {IPPROTO_TCP, TCP_KEEPCNT, 3},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, 45'000}, {IPPROTO_TCP, TCP_NODELAY, 1},
};

/// AF_INET or AF_INET6 when all of the host's addresses are of it, else AF_UNSPEC.
int FamilyOf(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return AF_UNSPEC;
  int family = found->ai_family;
  for (const addrinfo* it = found; it != nullptr; it = it->ai_next) {
    if (it->ai_family != family) family = AF_UNSPEC;
  }
  ::freeaddrinfo(found);
  return family;
}

template <typename Socket>
void SetOptions(Socket& socket, int family) {
  // cpprestsdk calls back before it connects, with a socket that is not open: options need it open.
  boost::system::error_code error;
  if (!socket.is_open()) {
    socket.open(family == AF_INET6 ? asio::ip::tcp::v6() : asio::ip::tcp::v4(), error);
    if (error) return;
  }
  for (const SocketOption& option : kSocketOptions) {
    (void)::setsockopt(socket.native_handle(), option.level, option.name, &option.value,
                       sizeof(option.value));
  }
}

void SetUpTls(asio::ssl::context& context, const TlsCredentials& credentials) {
  context.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_tlsv1 |
                      asio::ssl::context::no_tlsv1_1);
  // Whatever roots the library has loaded: only the cluster's own may vouch for its API server.
  SSL_CTX_set_cert_store(context.native_handle(), X509_STORE_new());
  if (credentials.ca_pem.empty()) {
    context.load_verify_file(kSystemRoots);
  } else {
    context.add_certificate_authority(asio::buffer(credentials.ca_pem));
  }
  if (!credentials.certificate_pem.empty()) {
    context.use_certificate_chain(asio::buffer(credentials.certificate_pem));
    context.use_private_key(asio::buffer(credentials.key_pem), asio::ssl::context::pem);
  }
}

std::shared_ptr<http_client> MakeClient(const ClusterConfig& config,
                                        const TlsCredentials& credentials) {
  http_client_config options;
  // An idle timer, in fact; our own limits are below it.
  options.set_timeout(std::chrono::minutes(12));
  // A redirect would carry our token to wherever it points.
  options.set_max_redirects(0);
  options.set_validate_certificates(!config.insecure_skip_tls_verify);
  const web::uri server(config.server);
  const bool tls = server.scheme() == "https";
  std::string host = server.host();
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  options.set_nativehandle_options([host, tls](web::http::client::native_handle handle) {
    const int family = FamilyOf(host);
    if (family == AF_UNSPEC) return;
    if (tls) {
      using TlsStream = asio::ssl::stream<asio::ip::tcp::socket&>;
      SetOptions(static_cast<TlsStream*>(handle)->lowest_layer(), family);
    } else {
      SetOptions(*static_cast<asio::ip::tcp::socket*>(handle), family);
    }
  });
  if (tls) {
    options.set_ssl_context_callback(
        [credentials](asio::ssl::context& context) { SetUpTls(context, credentials); });
  }
  return std::make_shared<http_client>(server, options);
}

/// What one exchange is made of.
struct Exchange {
  std::string method;
  std::string target;
  std::string content_type;
  std::string body;
  bool compressed = false;
  steady_clock::time_point deadline;
  milliseconds idle_limit{0};  ///< 0 = none
};

/// Shared between the waiting caller and the library's threads.
struct Outcome {
  std::mutex mutex;
  std::condition_variable_any changed;
  bool headers = false;
  bool done = false;
  int status = 0;
  std::optional<std::chrono::seconds> retry_after;
  std::optional<Error> error;
};

std::optional<std::chrono::seconds> RetryAfterOf(const web::http::http_response& response) {
  const auto it = response.headers().find("Retry-After");
  if (it == response.headers().end()) return std::nullopt;
  int64_t seconds = 0;
  const std::string& text = it->second;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (parsed.ec != std::errc() || seconds < 0) return std::nullopt;
  return std::chrono::seconds(std::min<int64_t>(seconds, 3600));
}

Error ErrorOf(const std::exception& exception) {
  const std::string text = exception.what();
  const bool tls = text.find("certificate") != std::string::npos ||
                   text.find("SSL handshake") != std::string::npos;
  return {tls ? ErrorCode::kPermission : ErrorCode::kUnavailable, text};
}

class CpprestTransport : public HttpTransport {
 public:
  CpprestTransport(ClusterConfig config, TransportOptions options,
                   std::unique_ptr<TokenSource> tokens)
      : config_(std::move(config)), options_(std::move(options)), tokens_(std::move(tokens)) {
    const std::string server = config_.server.substr(config_.server.find("//") + 2);
    host_ = server.substr(0, server.find('/'));
  }

  /// What was cancelled is torn down on the library's threads, and leaves tasks to them.
  ~CpprestTransport() override {
    if (in_flight_.WaitUntilNone(kEndLimit)) (void)WaitForLibraryThreads(kEndLimit);
  }

  /// The first look at the files; later failures keep what there is.
  Result<> Prepare() {
    DORMOUSE_ASSIGN(const ClientIdentity identity, StartIdentity());
    DORMOUSE_ASSIGN(TlsCredentials credentials, ReadTlsCredentials(config_, identity));
    try {
      std::lock_guard lock(mutex_);
      client_ = MakeClient(config_, credentials);
      credentials_ = std::move(credentials);
      looked_at_ = options_.clock->Now();
    } catch (const std::exception& exception) {
      return Fail(ErrorCode::kInvalid, "server " + config_.server + ": " + exception.what());
    }
    return {};
  }

  Result<HttpResponse> Request(const HttpRequest& request, const std::stop_token& stop) override {
    Exchange exchange{request.method, request.target, request.content_type,
                      request.body,   false,          steady_clock::now() + request.timeout,
                      milliseconds(0)};
    std::string body;
    auto answer = Authorized(
        exchange, stop,
        [&body](int, std::string_view bytes) -> Result<> {
          if (body.size() + bytes.size() > kMaxBodyBytes) {
            return Fail(ErrorCode::kCorrupt, "answer larger than 32 MiB");
          }
          body.append(bytes);
          return {};
        },
        [&body] { body.clear(); });
    if (answer) answer->body = std::move(body);
    return answer;
  }

  Result<HttpResponse> Stream(const StreamRequest& request, const StreamSink& sink,
                              const std::stop_token& stop) override {
    Exchange exchange{"GET",
                      request.target,
                      "",
                      "",
                      request.compressed,
                      steady_clock::now() + request.total_limit,
                      request.idle_limit};
    std::string error_body;
    auto answer = Authorized(
        exchange, stop,
        [&](int status, std::string_view bytes) -> Result<> {
          if (status == 200) return sink(bytes);
          error_body.append(bytes.substr(
              0, kMaxErrorBodyBytes - std::min(kMaxErrorBodyBytes, error_body.size())));
          return {};
        },
        [&error_body] { error_body.clear(); });
    if (answer) answer->body = std::move(error_body);
    return answer;
  }

 private:
  /// An exec plugin's identity is needed for the TLS set-up; a token's absence may heal later.
  Result<ClientIdentity> StartIdentity() {
    if (!config_.exec) return ClientIdentity{};
    return tokens_->Get();
  }

  Result<HttpResponse> Authorized(const Exchange& exchange, const std::stop_token& stop,
                                  const SinkBuffer::Sink& sink,
                                  const std::function<void()>& start_over) {
    const auto started = steady_clock::now();
    DORMOUSE_ASSIGN(ClientIdentity identity, tokens_->Get());
    auto answer = Perform(exchange, identity, stop, sink);
    if (answer && answer->status == 401) {
      tokens_->Drop(identity);
      DORMOUSE_ASSIGN(const ClientIdentity fresh, tokens_->Get());
      if (fresh != identity) {
        start_over();
        retries_.Increment();
        answer = Perform(exchange, fresh, stop, sink);
      }
    }
    Count(exchange.method, answer ? std::to_string(answer->status) : "<error>",
          std::chrono::duration<double>(steady_clock::now() - started).count());
    if (!answer) return Fail(answer.error().Wrap(config_.server));
    return answer;
  }

  std::shared_ptr<http_client> CurrentClient(const ClientIdentity& identity) {
    std::lock_guard lock(mutex_);
    const MonotonicTime now = options_.clock->Now();
    const bool other_identity = !identity.certificate_pem.empty() &&
                                identity.certificate_pem != credentials_.certificate_pem;
    if (!other_identity && now - looked_at_ < kLookAtFilesEach) return client_;
    looked_at_ = now;
    auto credentials = ReadTlsCredentials(config_, identity);
    if (!credentials) {
      log::Warning("credentials not read again, the old ones are kept",
                   {{"error", credentials.error().message()}});
    } else if (*credentials != credentials_) {
      log::Info("credentials changed", {{"server", config_.server}});
      client_ = MakeClient(config_, *credentials);
      credentials_ = std::move(*credentials);
    }
    return client_;
  }

  web::http::http_request MakeRequest(const Exchange& exchange,
                                      const ClientIdentity& identity) const {
    web::http::http_request request(exchange.method);
    request.set_request_uri(web::uri(exchange.target));
    request.headers().add("Accept", "application/json");
    request.headers().add("User-Agent", options_.user_agent);
    // cpprestsdk takes the name for SNI and for the certificate's check from this header.
    if (!config_.tls_server_name.empty()) request.headers().add("Host", config_.tls_server_name);
    if (!identity.token.empty()) request.headers().add("Authorization", "Bearer " + identity.token);
    if (!exchange.content_type.empty()) request.set_body(exchange.body, exchange.content_type);
    if (exchange.compressed) {
      request.set_decompress_factories(
          {web::http::compression::builtin::get_decompress_factory("gzip")});
    }
    return request;
  }

  Result<HttpResponse> Perform(const Exchange& exchange, const ClientIdentity& identity,
                               const std::stop_token& stop, const SinkBuffer::Sink& sink) {
    const auto buffer = std::make_shared<SinkBuffer>(sink, in_flight_.Enter());
    const auto outcome = std::make_shared<Outcome>();
    pplx::cancellation_token_source cancel;
    try {
      web::http::http_request request = MakeRequest(exchange, identity);
      request.set_response_stream(
          concurrency::streams::ostream(concurrency::streams::streambuf<uint8_t>(buffer)));
      Begin(CurrentClient(identity), request, cancel.get_token(), buffer, outcome);
    } catch (const std::exception& exception) {
      buffer->Detach();
      return Fail(ErrorCode::kInvalid,
                  exchange.method + " " + exchange.target + ": " + exception.what());
    }
    const Result<> waited = Await(exchange, *outcome, *buffer, stop);
    // From here on the library's threads may go on without us, but not into our caller's sink.
    buffer->Detach();
    if (!waited) cancel.cancel();
    if (auto refusal = buffer->refusal()) return Fail(*refusal);
    DORMOUSE_TRY(waited);
    std::lock_guard lock(outcome->mutex);
    if (outcome->error) return Fail(*outcome->error);
    return HttpResponse{outcome->status, outcome->retry_after, ""};
  }

  static void Begin(const std::shared_ptr<http_client>& client,
                    const web::http::http_request& request, const pplx::cancellation_token& token,
                    const std::shared_ptr<SinkBuffer>& buffer,
                    const std::shared_ptr<Outcome>& outcome) {
    client->request(request, token)
        .then([buffer, outcome](const web::http::http_response& response) {
          {
            std::lock_guard lock(outcome->mutex);
            outcome->headers = true;
            outcome->status = response.status_code();
            outcome->retry_after = RetryAfterOf(response);
          }
          outcome->changed.notify_all();
          buffer->OnStatus(response.status_code());
          return response.content_ready();
        })
        .then([client, outcome](const pplx::task<web::http::http_response>& ended) {
          std::optional<Error> error;
          try {
            (void)ended.get();
          } catch (const std::exception& exception) {
            error = ErrorOf(exception);
          } catch (...) {
            error = Error(ErrorCode::kUnavailable, "cancelled");
          }
          {
            std::lock_guard lock(outcome->mutex);
            outcome->done = true;
            outcome->error = std::move(error);
          }
          outcome->changed.notify_all();
        });
  }

  static Result<> Await(const Exchange& exchange, Outcome& outcome, const SinkBuffer& buffer,
                        const std::stop_token& stop) {
    const auto begun = steady_clock::now();
    std::unique_lock lock(outcome.mutex);
    while (!outcome.done) {
      auto until = exchange.deadline;
      const bool streaming = exchange.idle_limit.count() > 0;
      if (streaming && !outcome.headers) {
        until = std::min(until, begun + std::min<milliseconds>(exchange.idle_limit, kHeaderLimit));
      } else if (streaming) {
        until = std::min(until, buffer.last_activity() + exchange.idle_limit);
      }
      const auto now = steady_clock::now();
      if (now >= until) {
        const bool deadline = until == exchange.deadline;
        return Fail(ErrorCode::kDeadline,
                    exchange.method + " " + exchange.target.substr(0, 200) +
                        (deadline ? ": not done in time" : ": the connection is silent"));
      }
      (void)outcome.changed.wait_until(lock, stop, until, [&outcome] { return outcome.done; });
      if (stop.stop_requested())
        return Fail(ErrorCode::kCancelled, exchange.method + ": we are stopping");
    }
    return {};
  }

  void Count(const std::string& method, const std::string& code, double seconds) {
    auto& registry = *options_.metrics;
    registry
        .MakeCounter("rest_client_requests_total",
                     "Number of HTTP requests, partitioned by status code, method, and host.",
                     {{"code", code}, {"method", method}, {"host", host_}})
        .Increment();
    if (method == "GET" && seconds > 60) return;  // a watch's length is no latency
    static const std::vector<double> kBuckets{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60};
    registry
        .MakeHistogram("rest_client_request_duration_seconds",
                       "Request latency in seconds. Broken down by verb, and host.", kBuckets,
                       {{"verb", method}, {"host", host_}})
        .Observe(seconds);
  }

  const ClusterConfig config_;
  const TransportOptions options_;
  const std::unique_ptr<TokenSource> tokens_;
  std::string host_;
  metrics::Counter retries_ = options_.metrics->MakeCounter(
      "rest_client_request_retries_total",
      "Number of request retries, partitioned by status code, verb, and host.", {{"code", "401"}});
  std::mutex mutex_;
  std::shared_ptr<http_client> client_;
  TlsCredentials credentials_;
  MonotonicTime looked_at_{};
  InFlight in_flight_;
};

}  // namespace

void InitialiseProcess(int threads) {
  static std::once_flag once;
  std::call_once(once, [threads] {
    // The library's threads end after main, when its static pool does. OpenSSL must not have freed
    // at exit what they still lock, nor forget what it keeps for each of them.
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr);
    ::setenv("SSL_CERT_FILE", kNoCertFile, 0);
    ::setenv("SSL_CERT_DIR", kNoCertDirectory, 0);
    // One heap for each of a dozen mostly idle threads would cost more than the contention on two.
    ::mallopt(M_ARENA_MAX, 2);
    StartLibraryThreads(threads);
  });
}

Result<std::shared_ptr<HttpTransport>> MakeTransport(const ClusterConfig& config,
                                                     TransportOptions options) {
  if (config.server.find("//") == std::string::npos) {
    return Fail(ErrorCode::kInvalid, "API server address '" + config.server + "' is not a URL");
  }
  const Clock& clock = *options.clock;
  auto transport = std::make_shared<CpprestTransport>(config, std::move(options),
                                                      MakeTokenSource(config, clock));
  DORMOUSE_TRY(transport->Prepare());
  return std::shared_ptr<HttpTransport>(std::move(transport));
}

}  // namespace dormouse::kube
