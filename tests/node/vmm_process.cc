#include "tests/node/vmm_process.h"

#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "node-agent/host/test_support.h"
#include "node-agent/vmm/artifact_store.h"
#include "node-agent/vmm/command_line.h"
#include "src/common/base/unix_socket.h"

namespace dormouse::test {

using std::chrono::milliseconds;

std::string VmmBinary() {
  const auto variable = [](const char* name) {
    return std::string(std::getenv(name) != nullptr ? std::getenv(name) : "");
  };
  return vmm::FindVmmBinary(variable("CLOUD_HYPERVISOR"), variable("PATH")).value_or("");
}

VmmProcess::VmmProcess(std::string directory, pid_t pid)
    : directory_(std::move(directory)),
      pid_(pid),
      pidfd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))),
      process_(host::IdentityOf(pid).and_then([](const host::ProcessIdentity& identity) {
        return host::Process::Open(identity, host::OwnJail());
      })),
      api_(host::OwnSocket(directory_ + "/api-1.sock")) {}

std::unique_ptr<VmmProcess> VmmProcess::Spawn(const std::string& directory) {
  const auto command = vmm::BuildCommandLine({VmmBinary(), directory + "/" + vmm::ApiSocketName(1),
                                              directory + "/events", directory + "/vmm.log"});
  if (!command) return nullptr;
  std::vector<char*> argv;
  for (const std::string& word : *command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  char* environment[] = {nullptr};
  pid_t pid = -1;
  if (::posix_spawn(&pid, argv[0], nullptr, nullptr, argv.data(), environment) != 0) return nullptr;
  return std::unique_ptr<VmmProcess>(new VmmProcess(directory, pid));
}

std::unique_ptr<VmmProcess> VmmProcess::Start(const std::string& directory) {
  auto process = Spawn(directory);
  if (process == nullptr) return nullptr;
  if (!process->api_.AwaitReady(std::chrono::seconds(20), process->pidfd_.get())) return nullptr;
  auto tail = vmm::EventTail::Open(directory + "/events", ::geteuid());
  if (!tail) return nullptr;
  process->tail_ = std::make_unique<vmm::EventTail>(std::move(*tail));
  return process;
}

VmmProcess::~VmmProcess() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
}

bool VmmProcess::alive() const {
  pollfd ended{pidfd_.get(), POLLIN, 0};
  return ::poll(&ended, 1, 0) == 0;
}

void VmmProcess::Signal(int number) const {
  ::kill(pid_, number);
}

int VmmProcess::Wait() {
  pollfd ended{pidfd_.get(), POLLIN, 0};
  if (::poll(&ended, 1, 20'000) != 1) return -1;
  int status = -1;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  return status;
}

size_t VmmProcess::CountEvents(vmm::EventKind kind) {
  if (auto more = tail_->Read()) events_.insert(events_.end(), more->begin(), more->end());
  size_t count = 0;
  for (const vmm::Event& event : events_) count += event.kind == kind ? 1 : 0;
  return count;
}

bool VmmProcess::Saw(vmm::EventKind kind) {
  for (int tries = 0; tries < 4000; ++tries) {
    if (CountEvents(kind) > 0) return true;
    (void)::poll(nullptr, 0, 5);
  }
  return false;
}

bool GuestAnswers(const GuestClient& guest) {
  for (int tries = 0; tries < 600; ++tries) {
    if (guest.Health(milliseconds(2500))) return true;
    (void)::poll(nullptr, 0, 100);
  }
  return false;
}

std::string Exchange(const std::string& socket, std::string_view bytes) {
  const auto connected = ConnectUnix(socket);
  if (!connected) return "no connection";
  const UniqueFd& fd = *connected;
  (void)!::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  std::string answer;
  for (;;) {
    pollfd ready{fd.get(), POLLIN, 0};
    // One answer is whole when its head and body are; 300 ms is for answers that are meant not to
    // come.
    if (::poll(&ready, 1, answer.empty() ? 5000 : 300) <= 0) return answer;
    char block[4096];
    const ssize_t got = ::read(fd.get(), block, sizeof(block));
    if (got <= 0) return answer;
    answer.append(block, static_cast<size_t>(got));
    const auto head = answer.find("\r\n\r\n");
    if (head == std::string::npos) continue;
    const auto length = answer.find("Content-Length: ");
    const size_t body = length < head ? std::strtoul(answer.c_str() + length + 16, nullptr, 10) : 0;
    if (answer.size() >= head + 4 + body) return answer;
  }
}

}  // namespace dormouse::test
