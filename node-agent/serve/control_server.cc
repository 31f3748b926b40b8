#include "node-agent/serve/control_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "node-agent/serve/stream_socket.h"
#include "src/common/base/log.h"
#include "src/common/base/unix_socket.h"
#include "src/common/guest/messages.h"

namespace dormouse {
namespace {

constexpr int kBacklog = 64;
constexpr int kBreatheMs = 100;

Result<UniqueFd> Bind(const std::string& path) {
  if (auto free = RemoveDeadSocket(path); !free)
    return Fail(free.error().Wrap("another agent runs on this node"));
  return ListenUnix(path, kBacklog);
}

ino_t InodeOf(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 ? info.st_ino : 0;
}

void Refuse(StreamSocket client, ErrorCode code, const std::string& why) {
  client.Queue(guest::EncodeError(Error(code, why)));
  (void)client.Flush();
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::Listen(AgentView& view,
                                                             ControlServerOptions options) {
  const std::string path = options.paths.ControlSocket();
  DORMOUSE_ASSIGN(UniqueFd listener, Bind(path));
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) return FailErrno("eventfd");
  return std::unique_ptr<ControlServer>(new ControlServer(
      view, std::move(options), std::move(listener), std::move(stop), InodeOf(path)));
}

ControlServer::ControlServer(AgentView& view, ControlServerOptions options, UniqueFd listener,
                             UniqueFd stop, ino_t inode)
    : view_(view),
      options_(std::move(options)),
      listener_(std::move(listener)),
      stop_(std::move(stop)),
      inode_(inode) {}

ControlServer::~ControlServer() {
  Stop();
  const std::string path = options_.paths.ControlSocket();
  if (InodeOf(path) == inode_) (void)::unlink(path.c_str());
}

void ControlServer::Start() {
  acceptor_ = std::thread([this] { AcceptLoop(); });
}

void ControlServer::Stop() {
  (void)::eventfd_write(stop_.get(), 1);
  if (acceptor_.joinable()) acceptor_.join();
  (void)Reap(true);
}

size_t ControlServer::Reap(bool all) {
  for (auto client = clients_.begin(); client != clients_.end();) {
    if (!all && !client->done.load()) {
      ++client;
      continue;
    }
    client->thread.join();
    client = clients_.erase(client);
  }
  return clients_.size();
}

bool ControlServer::ShedOldestIdle() {
  // Whose request arrives just now ends too: ServeCtlClient finds the flag set.
  const auto idle = std::find_if(clients_.begin(), clients_.end(),
                                 [](Client& client) { return !client.asked.exchange(true); });
  if (idle == clients_.end()) return false;
  idle->socket.Abort();
  idle->thread.join();  // at once: it has nothing to do
  clients_.erase(idle);
  return true;
}

void ControlServer::AcceptLoop() {
  for (;;) {
    pollfd polled[2] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (::poll(polled, 2, -1) < 0 && errno != EINTR) return;
    if (polled[1].revents != 0) return;
    if ((polled[0].revents & POLLIN) == 0) continue;
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) {
      Admit(std::move(socket));
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
      // It stays readable: give clients that end the time to do so.
      (void)::poll(&polled[1], 1, kBreatheMs);
    }
  }
}

void ControlServer::Admit(UniqueFd socket) {
  const auto peer = PeerOf(socket);
  StreamSocket client(std::move(socket));
  if (!peer || peer->uid != options_.allowed_uid) {
    if (peer)
      log::Warning("refused a client of the local socket",
                   {{"uid", peer->uid}, {"pid", peer->pid}});
    return Refuse(std::move(client), ErrorCode::kPermission, "only root may speak to the agent");
  }
  if (Reap(false) >= options_.max_clients && !ShedOldestIdle()) {
    return Refuse(std::move(client), ErrorCode::kBusy, "too many clients at once");
  }
  const CtlContext context{view_, options_.paths, stop_.get(), options_.request_time,
                           options_.guest_time};
  Client& entry = clients_.emplace_back(std::move(client));
  try {
    entry.thread = std::thread([context, &entry] {
      ServeCtlClient(context, entry.socket, entry.asked);
      entry.done.store(true);
    });
  } catch (const std::system_error& error) {
    log::Warning("no thread for a client of the local socket", {{"error", error.what()}});
    clients_.pop_back();
  }
}

}  // namespace dormouse
