#include "guest-agent/init/modules.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "guest-agent/init/files.h"

namespace dormouse::guest {

Result<std::vector<std::pair<std::string, std::string>>> ParseModuleList(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> out;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.empty()) continue;
    const size_t space = line.find(' ');
    if (space == 0 || space == std::string_view::npos || space + 1 == line.size() ||
        line.find_first_of(" /", space + 1) != std::string_view::npos) {
      return Fail(ErrorCode::kInvalid, "module list: \"" + std::string(line) + "\"");
    }
    out.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return out;
}

Result<ModuleSet> ModuleSet::Open(const std::string& directory) {
  ModuleSet set;
  const auto text = ReadSmallFile(directory + "/list");
  if (!text) {
    if (text.error().code() == ErrorCode::kNotFound) return set;
    return Fail(text.error());
  }
  DORMOUSE_ASSIGN(auto entries, ParseModuleList(*text));
  for (auto& [stage, file] : entries) {
    UniqueFd fd(::open((directory + "/" + file).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return FailErrno("open module " + file);
    set.modules_.push_back({std::move(stage), std::move(file), std::move(fd)});
  }
  return set;
}

Result<void> ModuleSet::Load(std::string_view stage) {
  for (Module& module : modules_) {
    if (module.stage != stage || !module.fd) continue;
    if (::syscall(SYS_finit_module, module.fd.get(), "", 0) != 0 && errno != EEXIST) {
      return FailErrno("load module " + module.file);
    }
    module.fd.Reset();
  }
  return {};
}

}  // namespace dormouse::guest
