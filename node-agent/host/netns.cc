#include "node-agent/host/netns.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "src/common/base/files.h"

namespace dormouse::host {
namespace {

constexpr char kOwnNetNs[] = "/proc/thread-self/ns/net";

// In the caller's mount namespace.
Result<UniqueFd> OpenHere(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return FailErrno("open netns " + path);
  struct statfs file_system {};
  if (::fstatfs(fd.get(), &file_system) != 0) return FailErrno("statfs " + path);
  if (file_system.f_type != NSFS_MAGIC || ::ioctl(fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    return Fail(ErrorCode::kNotFound, "netns " + path + ": a plain file, no namespace");
  }
  return fd;
}

Result<> OnFreshThread(const std::function<Result<>()>& work) {
  Result<> result;
  std::thread([&] { result = work(); }).join();
  return result;
}

}  // namespace

Result<UniqueFd> NewNetNs(const std::function<Result<>()>& work) {
  UniqueFd netns;
  auto made = OnFreshThread([&]() -> Result<> {
    if (::unshare(CLONE_NEWNET) != 0) return FailErrno("unshare network namespace");
    netns.Reset(::open(kOwnNetNs, O_RDONLY | O_CLOEXEC));
    if (!netns) return FailErrno("open new netns");
    return work();
  });
  if (!made) return Fail(made.error().Wrap("create netns"));
  return netns;
}

Result<> BindNetNs(const HostNamespaces& host, int netns, const std::string& path) {
  return host.RunInMounts([&]() -> Result<> {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) return FailErrno("create " + path);
    // By descriptor: in another mount namespace there may be another /proc, but "self" is us.
    const std::string source = "/proc/self/fd/" + std::to_string(netns);
    if (::mount(source.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0)
      return FailErrno("bind " + path);
    return {};
  });
}

Result<> CreateNetNs(const HostNamespaces& host, const std::string& path) {
  auto existing = OpenNetNs(host, path);
  if (existing) return {};
  if (existing.error().code() != ErrorCode::kNotFound) return Fail(existing.error());
  DORMOUSE_ASSIGN(const UniqueFd made, NewNetNs([]() -> Result<> { return {}; }));
  return BindNetNs(host, made.get(), path);
}

Result<UniqueFd> OpenNetNs(const HostNamespaces& host, const std::string& path) {
  UniqueFd fd;
  DORMOUSE_TRY(host.RunInMounts([&]() -> Result<> {
    DORMOUSE_ASSIGN(fd, OpenHere(path));
    return {};
  }));
  return fd;
}

Result<> DeleteNetNs(const HostNamespaces& host, const std::string& path) {
  return host.RunInMounts([&]() -> Result<> {
    // A crash between two binds may have left two on one another.
    while (OpenHere(path)) DORMOUSE_TRY(DetachMount(path));
    return RemoveFile(path);
  });
}

Result<std::vector<std::string>> ListNetNs(const HostNamespaces& host,
                                           const std::string& directory) {
  std::vector<std::string> names;
  DORMOUSE_TRY(host.RunInMounts([&]() -> Result<> {
    DORMOUSE_ASSIGN(names, ListDirectory(directory));
    return {};
  }));
  return names;
}

Result<> RunInNetNs(int netns, const std::function<Result<>()>& work) {
  return OnFreshThread([&]() -> Result<> {
    if (::setns(netns, CLONE_NEWNET) != 0) return FailErrno("enter network namespace");
    return work();
  });
}

}  // namespace dormouse::host
