// How the launcher fails: the step in words and errno, to whoever started it, and out. There is
// nothing to undo: what was made lives in namespaces that go with the process.
//
// Single-threaded, as the launcher is.
#pragma once

#include <string>

namespace dormouse::launch {

/// Sends 'E' and "<step>: <errno's text>" over the control socket and exits with 1.
[[noreturn]] void Die(const std::string& step);
[[noreturn]] void DieWithoutErrno(const std::string& step);

/// Dies unless `result`, a system call's, is not negative.
inline long Check(long result, const std::string& step) {
  if (result < 0) Die(step);
  return result;
}

}  // namespace dormouse::launch
