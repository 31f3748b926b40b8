// How the drop-in directories of a distribution are read: sysctl.d(5), tmpfiles.d(5) and their
// like. Thread-safe.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace dormouse::guest {

/// The *.conf of <root>/etc/<name>, /usr/local/lib/<name>, /usr/lib/<name> and /lib/<name>, in the
/// order of their names; of files of one name, the one of the first directory. A link to /dev/null
/// masks a file, as it reads as nothing.
[[nodiscard]] std::vector<std::string> ConfigurationFiles(const std::string& root,
                                                          const std::string& name);

/// Each line that is neither blank nor a comment (#), without blanks before it. A file that cannot
/// be read has none; at most 1 MiB is.
void ForEachLine(const std::string& file, const std::function<void(std::string_view)>& take);

/// The blank-separated words of a line.
[[nodiscard]] std::vector<std::string> Words(std::string_view line);

}  // namespace dormouse::guest
