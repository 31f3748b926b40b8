#include "node-agent/host/vmm_socket.h"

#include <sys/stat.h>

#include "node-agent/host/beneath.h"
#include "src/common/base/unix_socket.h"

namespace dormouse::host {
namespace {

Result<UniqueFd> ConnectBeneath(const VmmSocket& socket, std::chrono::milliseconds timeout) {
  const size_t slash = socket.path.find_last_of('/');
  DORMOUSE_ASSIGN(const Directory directory, Directory::Open(socket.path.substr(0, slash)));
  DORMOUSE_ASSIGN(const UniqueFd file, LookUp(directory, socket.path.substr(slash + 1)));
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return FailErrno("stat " + socket.path);
  if (!S_ISSOCK(info.st_mode)) return Fail(ErrorCode::kPermission, socket.path + " is no socket");
  return ConnectUnix(file, socket.path, timeout);
}

}  // namespace

Result<UniqueFd> ConnectVmm(const VmmSocket& socket, std::chrono::milliseconds timeout) {
  auto connected = ConnectBeneath(socket, timeout);
  if (!connected) {
    const Error& error = connected.error();
    if (error.code() == ErrorCode::kNotFound) return Fail(error.WithCode(ErrorCode::kUnavailable));
    if (error.code() == ErrorCode::kCorrupt) return Fail(error.WithCode(ErrorCode::kPermission));
    return connected;
  }
  DORMOUSE_ASSIGN(const UnixPeer peer, PeerOf(*connected));
  if (auto ours = CheckJail(peer.pid, peer.uid, socket.jail); !ours)
    return Fail(ours.error().Wrap("whoever listens on " + socket.path));
  return connected;
}

}  // namespace dormouse::host
