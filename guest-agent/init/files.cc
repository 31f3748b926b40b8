#include "guest-agent/init/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "src/common/base/unique_fd.h"

namespace dormouse::guest {

Result<std::string> ReadSmallFile(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return FailErrno("open " + path);
  std::string out;
  char buffer[4096];
  while (out.size() < 1024 * 1024) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof(buffer));
    if (got < 0) return FailErrno("read " + path);
    if (got == 0) break;
    out.append(buffer, static_cast<size_t>(got));
  }
  return out;
}

Result<void> WriteSmallFile(const std::string& path, std::string_view text) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return FailErrno("open " + path);
  while (!text.empty()) {
    const ssize_t put = ::write(fd.get(), text.data(), text.size());
    if (put < 0) return FailErrno("write " + path);
    text.remove_prefix(static_cast<size_t>(put));
  }
  return {};
}

Result<void> WriteSetting(const std::string& path, std::string_view value) {
  if (::access(path.c_str(), F_OK) != 0) return {};
  return WriteSmallFile(path, value);
}

Result<void> MakeDirectories(const std::string& path) {
  if (path.empty()) return {};  // "/", where what is made lies directly below it
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) return FailErrno("make " + part);
    if (end == std::string::npos) return {};
  }
}

}  // namespace dormouse::guest
