#include "node-agent/launch/step.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "node-agent/launch/spec.h"

namespace dormouse::launch {

void DieWithoutErrno(const std::string& step) {
  const std::string message = (kMessageError + step).substr(0, kLargestMessage);
  // Nobody to tell when the agent has gone: the exit says it.
  (void)::send(kControlFd, message.data(), message.size(), MSG_NOSIGNAL);
  ::_exit(1);
}

void Die(const std::string& step) {
  const int error = errno;
  const char* name = ::strerrorname_np(error);
  DieWithoutErrno(step + ": " + (name == nullptr ? std::to_string(error) : std::string(name)));
}

}  // namespace dormouse::launch
