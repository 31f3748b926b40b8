#include "guest-agent/init/limits.h"

#include <glob.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "guest-agent/init/configuration_files.h"
#include "guest-agent/init/files.h"

namespace dormouse::guest {
namespace {

// The kernel's own bound of a limit (fs.nr_open), and what containerd sets.
constexpr rlim_t kOpenFiles = 1'048'576;

std::string Trimmed(std::string_view text) {
  constexpr char kBlanks[] = " \t\r";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1));
}

/// Of sysctl.d(5): with a slash first, dots stay dots; with a dot first, the two are exchanged.
std::string PathOfKey(std::string key) {
  const size_t separator = key.find_first_of("./");
  if (separator != std::string::npos && key[separator] == '.') {
    for (char& each : key) each = each == '.' ? '/' : each == '/' ? '.' : each;
  }
  return "/proc/sys/" + key;
}

Result<void> ApplySysctl(const std::string& root, std::string_view line) {
  const size_t equals = line.find('=');
  std::string key = Trimmed(line.substr(0, equals));
  const bool may_fail = key.starts_with('-');
  if (may_fail) key = Trimmed(std::string_view(key).substr(1));
  if (equals == std::string_view::npos || key.empty() || key.find("..") != std::string::npos)
    return {};
  const std::string value = Trimmed(line.substr(equals + 1));
  glob_t found{};
  Result<void> all;
  if (::glob((root + PathOfKey(key)).c_str(), GLOB_NOSORT, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) {
      auto written = WriteSmallFile(found.gl_pathv[i], value);
      if (all && !written && !may_fail) all = written;
    }
  }
  ::globfree(&found);
  return all;
}

Result<void> MakeNode(const std::string& path, unsigned major, unsigned minor) {
  if (::mknod(path.c_str(), S_IFCHR | 0666, ::makedev(major, minor)) != 0) {
    return errno == EEXIST ? Result<void>() : FailErrno("make " + path);
  }
  // Whatever the umask is.
  return ::chmod(path.c_str(), 0666) == 0 ? Result<void>() : FailErrno("chmod " + path);
}

}  // namespace

Result<void> RaiseLimits() {
  const rlimit limit{kOpenFiles, kOpenFiles};
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) return FailErrno("raise the limit of open files");
  return {};
}

Result<void> ApplySysctls(const std::string& root) {
  std::vector<std::string> files = ConfigurationFiles(root, "sysctl.d");
  files.push_back(root + "/etc/sysctl.conf");
  Result<void> all;
  for (const std::string& file : files) {
    ForEachLine(file, [&](std::string_view line) {
      if (line.front() == ';') return;
      auto applied = ApplySysctl(root, line);
      if (all && !applied) all = applied;
    });
  }
  return all;
}

Result<void> MakeDevices(const std::string& root) {
  const std::string dev = root + "/dev";
  DORMOUSE_TRY(MakeDirectories(dev + "/net"));
  // Documentation/admin-guide/devices.txt. Opening one loads its driver, where the image has it.
  DORMOUSE_TRY(MakeNode(dev + "/net/tun", 10, 200));
  DORMOUSE_TRY(MakeNode(dev + "/fuse", 10, 229));
  struct Link {
    const char* to;
    const char* name;
  };
  for (const Link& link : {Link{"/proc/self/fd", "/fd"}, Link{"/proc/self/fd/0", "/stdin"},
                           Link{"/proc/self/fd/1", "/stdout"}, Link{"/proc/self/fd/2", "/stderr"},
                           Link{"/proc/kcore", "/core"}}) {
    if (::symlink(link.to, (dev + link.name).c_str()) != 0 && errno != EEXIST)
      return FailErrno("make " + dev + link.name);
  }
  return {};
}

}  // namespace dormouse::guest
