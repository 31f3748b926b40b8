#include "guest-agent/init/configuration_files.h"

#include <dirent.h>
#include <sys/stat.h>

#include <map>
#include <sstream>

#include "guest-agent/init/files.h"

namespace dormouse::guest {

std::vector<std::string> ConfigurationFiles(const std::string& root, const std::string& name) {
  std::map<std::string, std::string> by_name;
  for (const char* above : {"/etc/", "/usr/local/lib/", "/usr/lib/", "/lib/"}) {
    const std::string directory = root + above + name;
    DIR* const dir = ::opendir(directory.c_str());
    if (dir == nullptr) continue;
    while (const dirent* entry = ::readdir(dir)) {
      const std::string file(entry->d_name);
      if (file.ends_with(".conf")) by_name.try_emplace(file, directory + "/" + file);
    }
    ::closedir(dir);
  }
  std::vector<std::string> files;
  for (auto& [file, path] : by_name) files.push_back(std::move(path));
  return files;
}

void ForEachLine(const std::string& file, const std::function<void(std::string_view)>& take) {
  struct stat info {};
  // A pipe in its place would be a wait for ever.
  if (::stat(file.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return;
  const auto text = ReadSmallFile(file);
  if (!text) return;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string::npos || line[begin] == '#') continue;
    take(std::string_view(line).substr(begin));
  }
}

std::vector<std::string> Words(std::string_view line) {
  std::istringstream fields{std::string(line)};
  std::vector<std::string> words;
  for (std::string word; fields >> word;) words.push_back(std::move(word));
  return words;
}

}  // namespace dormouse::guest
