#include "node-agent/vmm/artifact_store.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>

#include "src/common/base/files.h"
#include "src/common/base/hash.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::vmm {
namespace {

bool IsDigest(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool IsName(std::string_view text) {
  return !text.empty() && text != "." && text != ".." && text.find('/') == std::string_view::npos;
}

Result<> CopyContent(int from, int to) {
  if (::ioctl(to, FICLONE, from) == 0) return {};
  for (;;) {
    const ssize_t copied = ::copy_file_range(from, nullptr, to, nullptr, size_t{64} << 20, 0);
    if (copied == 0) return {};
    if (copied > 0 || errno == EINTR) continue;
    if (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) {
      return FailErrno("copy_file_range");
    }
    break;
  }
  // Neither: byte by byte, from where the file offsets are.
  std::string block(size_t{1} << 20, '\0');
  for (;;) {
    const ssize_t got = ::read(from, block.data(), block.size());
    if (got == 0) return {};
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno("read");
    DORMOUSE_TRY(WriteAll(to, std::string_view(block.data(), static_cast<size_t>(got))));
  }
}

Result<> CopyDurably(const std::string& source, const std::string& temporary) {
  UniqueFd from(::open(source.c_str(), O_RDONLY | O_CLOEXEC));
  if (!from) return FailErrno("open " + source);
  DORMOUSE_TRY(RemoveFile(temporary));  // of a Keep that was killed
  UniqueFd to(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0500));
  if (!to) return FailErrno("create " + temporary);
  if (auto copied = CopyContent(from.get(), to.get()); !copied) {
    return Fail(copied.error().Wrap("copy " + source));
  }
  // VMMs of every uid read and run it; the umask has no say.
  if (::fchmod(to.get(), 0555) != 0) return FailErrno("chmod " + temporary);
  if (::fsync(to.get()) != 0) return FailErrno("fsync " + temporary);
  return {};
}

}  // namespace

Result<Artifact> ArtifactStore::Keep(const std::string& source, std::string_view name) const {
  if (!IsName(name)) return Fail(ErrorCode::kInvalid, "artifact name: " + std::string(name));
  DORMOUSE_ASSIGN(const std::string digest, Sha256OfFile(source));
  const std::string directory = root_ + "/" + digest;
  const Artifact kept{digest, directory + "/" + std::string(name)};
  if (PathExists(kept.path)) return kept;

  DORMOUSE_TRY(MakeDirectories(directory, 0755));
  const std::string temporary = kept.path + ".new" + std::to_string(::gettid());
  auto copied = CopyDurably(source, temporary);
  if (copied) {
    // The source may have changed between the two reads.
    const auto digest_of_copy = Sha256OfFile(temporary);
    if (!digest_of_copy) {
      copied = Fail(digest_of_copy.error());
    } else if (*digest_of_copy != digest) {
      copied = Fail(ErrorCode::kUnavailable, source + " changed while it was copied");
    } else if (::rename(temporary.c_str(), kept.path.c_str()) != 0) {
      copied = FailErrno("rename " + temporary);
    }
  }
  if (!copied) {
    (void)RemoveFile(temporary);
    return Fail(copied.error().Wrap("keep " + source));
  }
  DORMOUSE_TRY(SyncDirectory(directory));
  DORMOUSE_TRY(SyncDirectory(root_));
  return kept;
}

Result<Artifact> ArtifactStore::Find(std::string_view sha256, std::string_view name) const {
  if (!IsDigest(sha256) || !IsName(name)) {
    return Fail(ErrorCode::kInvalid, "artifact " + std::string(sha256) + "/" + std::string(name));
  }
  Artifact kept{std::string(sha256), root_ + "/" + std::string(sha256) + "/" + std::string(name)};
  if (!PathExists(kept.path))
    return Fail(ErrorCode::kNotFound, "artifact " + kept.path + " is not kept");
  return kept;
}

Result<std::string> FindVmmBinary(std::string_view override_path, std::string_view search_path) {
  if (!override_path.empty()) {
    const std::string path(override_path);
    if (::access(path.c_str(), X_OK) == 0) return path;
    return Fail(ErrorCode::kNotFound, "cloud-hypervisor: $CLOUD_HYPERVISOR names " + path +
                                          ", which is not there or not executable");
  }
  for (size_t at = 0; at <= search_path.size();) {
    const size_t end = std::min(search_path.find(':', at), search_path.size());
    const std::string path = std::string(search_path.substr(at, end - at)) + "/cloud-hypervisor";
    struct stat info {};
    if (path.front() == '/' && ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
        ::access(path.c_str(), X_OK) == 0) {
      return path;
    }
    at = end + 1;
  }
  return Fail(ErrorCode::kNotFound, "cloud-hypervisor: neither $CLOUD_HYPERVISOR nor in PATH (" +
                                        std::string(search_path) + ")");
}

Result<std::string> ReadVersionOutput(const std::string& binary) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return FailErrno("pipe");
  UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, writing.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  std::string program = binary;
  std::string option = "--version";
  std::array<char*, 3> argv = {program.data(), option.data(), nullptr};
  std::array<char*, 1> environment = {nullptr};
  pid_t pid = -1;
  const int failed =
      ::posix_spawn(&pid, binary.c_str(), &actions, nullptr, argv.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return FailErrno("run " + binary, failed);
  writing.Reset();

  std::string output;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  bool in_time = true;
  while (output.size() < 4096) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd ready{reading.get(), POLLIN, 0};
    if (left.count() <= 0 || ::poll(&ready, 1, static_cast<int>(left.count())) == 0) {
      in_time = false;
      break;
    }
    std::array<char, 1024> block;
    const ssize_t got = ::read(reading.get(), block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    output.append(block.data(), static_cast<size_t>(got));
  }
  // It has closed its output, or said too much, or hangs: in no case do we wait for it.
  (void)::kill(pid, SIGKILL);
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (!in_time) return Fail(ErrorCode::kDeadline, binary + " --version did not answer within 2 s");
  return output;
}

}  // namespace dormouse::vmm
