#include "src/common/kube/exec_plugin.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <vector>

#include "src/common/base/json_text.h"
#include "src/common/base/log.h"
#include "src/common/base/time.h"
#include "src/common/base/unique_fd.h"

extern char** environ;  // NOLINT: POSIX names it so

namespace dormouse::kube {
namespace {

using nlohmann::json;
using Deadline = std::chrono::steady_clock::time_point;

constexpr std::size_t kMaxOutputBytes = 1024 * 1024;
/// A credential is renewed so long before it ends.
constexpr auto kLeeway = std::chrono::seconds(10);

/// Ours alone: a plugin that speaks TLS itself would trust nobody.
bool HidesRoots(std::string_view entry) {
  return entry == std::string("SSL_CERT_FILE=") + kNoCertFile ||
         entry == std::string("SSL_CERT_DIR=") + kNoCertDirectory;
}

/// The process's environment with `extra` on top, as execve wants it.
class PluginEnvironment {
 public:
  explicit PluginEnvironment(const std::vector<std::pair<std::string, std::string>>& extra) {
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
      const std::string_view text(*entry);
      const std::string_view name = text.substr(0, text.find('='));
      const bool replaced = std::any_of(extra.begin(), extra.end(),
                                        [name](const auto& pair) { return pair.first == name; });
      if (!replaced && !HidesRoots(text)) texts_.emplace_back(text);
    }
    for (const auto& [name, value] : extra) texts_.push_back(name + "=" + value);
    for (std::string& text : texts_) pointers_.push_back(text.data());
    pointers_.push_back(nullptr);
  }
  char** get() { return pointers_.data(); }

 private:
  std::vector<std::string> texts_;
  std::vector<char*> pointers_;
};

Result<std::string> ReadUntilClosed(int fd, Deadline deadline, const std::string& what) {
  std::string text;
  std::array<char, 4096> block;
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return Fail(ErrorCode::kDeadline, what + ": did not end in time");
    pollfd entry{fd, POLLIN, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::min<int64_t>(left.count(), 60'000)));
    if (ready < 0 && errno != EINTR) return FailErrno(what);
    if (ready <= 0) continue;
    const ssize_t got = ::read(fd, block.data(), block.size());
    if (got == 0) return text;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno(what);
    if (text.size() + static_cast<std::size_t>(got) > kMaxOutputBytes) {
      return Fail(ErrorCode::kCorrupt, what + ": printed more than 1 MiB");
    }
    text.append(block.data(), static_cast<std::size_t>(got));
  }
}

/// A child that is killed and reaped unless it was waited for.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  Result<int> Wait(Deadline deadline, const std::string& what) {
    // A pidfd becomes readable when the process ends: no polling of waitpid, no SIGCHLD.
    UniqueFd ended(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    if (!ended) return FailErrno(what + ": pidfd_open");
    while (true) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) return Fail(ErrorCode::kDeadline, what + ": did not end in time");
      pollfd entry{ended.get(), POLLIN, 0};
      if (::poll(&entry, 1, static_cast<int>(std::min<int64_t>(left.count(), 60'000))) > 0) break;
    }
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0) {
      if (errno != EINTR) return FailErrno(what + ": waitpid");
    }
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_;
};

Result<std::string> RunProgram(const ExecConfig& config, const std::string& exec_info,
                               std::chrono::seconds time_limit) {
  const std::string what = "exec plugin " + config.command;
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return FailErrno(what + ": pipe");
  UniqueFd reader(pipe_fds[0]);
  UniqueFd writer(pipe_fds[1]);

  auto env = config.env;
  env.emplace_back("KUBERNETES_EXEC_INFO", exec_info);
  PluginEnvironment environment(env);
  std::vector<std::string> words{config.command};
  words.insert(words.end(), config.args.begin(), config.args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, writer.get(), STDOUT_FILENO);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, config.command.c_str(), &actions, nullptr, argv.data(),
                                   environment.get());
  posix_spawn_file_actions_destroy(&actions);
  writer.Reset();
  if (error != 0) {
    Error failure = Error::FromErrno(what, error);
    if (!config.install_hint.empty())
      return Fail(failure.code(), failure.message() + " (" + config.install_hint + ")");
    return Fail(failure);
  }
  Child child(pid);
  const Deadline deadline = std::chrono::steady_clock::now() + time_limit;
  DORMOUSE_ASSIGN(std::string output, ReadUntilClosed(reader.get(), deadline, what));
  DORMOUSE_ASSIGN(const int status, child.Wait(deadline, what));
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    const std::string how = WIFEXITED(status) ? "exit code " + std::to_string(WEXITSTATUS(status))
                                              : "signal " + std::to_string(WTERMSIG(status));
    return Fail(ErrorCode::kUnavailable, what + ": failed with " + how);
  }
  return output;
}

class ExecPlugin : public TokenSource {
 public:
  ExecPlugin(ExecConfig config, std::chrono::seconds time_limit, const Clock& clock)
      : config_(std::move(config)), time_limit_(time_limit), clock_(clock) {}

  Result<ClientIdentity> Get() override {
    std::lock_guard lock(mutex_);
    if (held_ && (!held_->expiry || clock_.WallNow() + kLeeway < *held_->expiry)) {
      return held_->identity;
    }
    const json info{{"apiVersion", config_.api_version},
                    {"kind", "ExecCredential"},
                    {"spec", {{"interactive", false}}}};
    DORMOUSE_ASSIGN(const std::string output, RunProgram(config_, JsonText(info), time_limit_));
    DORMOUSE_ASSIGN(held_, ParseExecCredential(output, config_.api_version));
    return held_->identity;
  }

  void Drop(const ClientIdentity& used) override {
    std::lock_guard lock(mutex_);
    if (held_ && held_->identity == used) held_.reset();
  }

 private:
  const ExecConfig config_;
  const std::chrono::seconds time_limit_;
  const Clock& clock_;
  std::mutex mutex_;  ///< held while the program runs: one run at a time
  std::optional<ExecCredential> held_;
};

}  // namespace

Result<ExecCredential> ParseExecCredential(std::string_view text, const std::string& api_version) {
  const auto wrong = [](const std::string& why) {
    return Fail(ErrorCode::kCorrupt, "exec plugin: " + why);
  };
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object()) return wrong("printed no JSON object");
  const auto string = [](const json& from, const char* key) -> std::string {
    const auto it = from.find(key);
    return it != from.end() && it->is_string() ? it->get<std::string>() : "";
  };
  if (string(object, "kind") != "ExecCredential") return wrong("printed no ExecCredential");
  if (string(object, "apiVersion") != api_version) {
    return wrong("answered in '" + string(object, "apiVersion") + "', not in '" + api_version +
                 "'");
  }
  const auto status = object.find("status");
  if (status == object.end() || !status->is_object()) return wrong("printed no status");
  ExecCredential credential;
  credential.identity.token = string(*status, "token");
  credential.identity.certificate_pem = string(*status, "clientCertificateData");
  credential.identity.key_pem = string(*status, "clientKeyData");
  if (credential.identity.certificate_pem.empty() != credential.identity.key_pem.empty()) {
    return wrong("gave a certificate without its key, or a key without its certificate");
  }
  if (credential.identity.token.empty() && credential.identity.key_pem.empty()) {
    return wrong("gave neither a token nor a certificate");
  }
  if (credential.identity.token.find_first_of("\r\n") != std::string::npos) {
    return wrong("gave a token with a line break");
  }
  const std::string expiry = string(*status, "expirationTimestamp");
  if (!expiry.empty()) {
    credential.expiry = ParseTime(expiry);
    if (!credential.expiry) return wrong("gave an expirationTimestamp that is no time: " + expiry);
  }
  return credential;
}

std::unique_ptr<TokenSource> MakeExecPlugin(ExecConfig config, std::chrono::seconds time_limit,
                                            const Clock& clock) {
  return std::make_unique<ExecPlugin>(std::move(config), time_limit, clock);
}

}  // namespace dormouse::kube
