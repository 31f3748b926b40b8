#include "guest-agent/server/clone_hooks.h"

#include <dirent.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "guest-agent/server/process.h"

namespace dormouse::guest {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kMaxHooks = 16;
constexpr milliseconds kAllHooks{10'000};
/// What of a hook's output goes to the console; the rest is read and dropped.
constexpr size_t kConsoleBytes = 4096;
constexpr size_t kNoteBytes = 300;

}  // namespace

std::vector<std::string> ListHooks(const std::string& dir) {
  std::vector<std::string> names;
  DIR* const stream = dir.empty() ? nullptr : ::opendir(dir.c_str());
  if (stream == nullptr) return names;
  while (const dirent* entry = ::readdir(stream)) {
    struct stat info {};
    if (entry->d_name[0] == '.' || ::fstatat(::dirfd(stream), entry->d_name, &info, 0) != 0 ||
        !S_ISREG(info.st_mode) || (info.st_mode & S_IXUSR) == 0) {
      continue;
    }
    names.emplace_back(entry->d_name);
  }
  ::closedir(stream);
  std::sort(names.begin(), names.end());
  if (names.size() > kMaxHooks) names.resize(kMaxHooks);
  return names;
}

CloneHooks::CloneHooks(EventLoop& loop, ProcessTable& processes, Machine& machine, Cgroup cgroup,
                       HookOptions options)
    : loop_(loop),
      processes_(processes),
      machine_(machine),
      cgroup_(std::move(cgroup)),
      options_(std::move(options)) {}

CloneHooks::~CloneHooks() {
  loop_.Cancel(timer_);
  if (out_) loop_.Forget(out_.get());
  if (pid_ > 0) processes_.Abandon(pid_);
}

void CloneHooks::Run(const Identity& identity, OnDone on_done) {
  identity_ = identity;
  on_done_ = std::move(on_done);
  notes_.clear();
  const auto names = ListHooks(options_.dir);
  left_.assign(names.begin(), names.end());
  deadline_ = steady_clock::now() + kAllHooks;
  Next();
}

void CloneHooks::Next() {
  while (!left_.empty()) {
    current_ = std::move(left_.front());
    left_.pop_front();
    if (steady_clock::now() >= deadline_) {
      Leave("not run: the hooks before it took all the time");
      continue;
    }
    const auto started = Start(options_.dir + "/" + current_);
    if (started) return;
    Leave(started.error().message());
  }
  const OnDone on_done = std::move(on_done_);
  on_done_ = nullptr;
  if (on_done) on_done(std::move(notes_));
}

Result<void> CloneHooks::Start(const std::string& hook) {
  ProcessSpec spec;
  spec.argv = {hook};
  spec.env = {{"DORMOUSE_HOSTNAME", identity_.hostname},
              {"DORMOUSE_MACHINE_ID", identity_.machine_id}};
  spec.working_dir = "/";
  DORMOUSE_ASSIGN(LaunchPlan plan, MakePlan(spec, {}, machine_.Users()));
  plan.cgroup_procs_fd = cgroup_.procs_fd();
  plan.merge_output = true;
  DORMOUSE_ASSIGN(Child child, Launch(plan));
  pid_ = child.pid;
  out_ = std::move(child.out);
  console_left_ = kConsoleBytes;
  DORMOUSE_TRY(
      processes_.Add(pid_, std::move(child.pidfd), [this](ExitStatus status) { OnExit(status); }));
  DORMOUSE_TRY(loop_.Watch(out_.get(), EPOLLIN, [this](uint32_t) { ReadOutput(); }));
  allowed_ =
      std::min(options_.limit, std::chrono::ceil<milliseconds>(deadline_ - steady_clock::now()));
  timer_ = loop_.After(allowed_, [this] {
    timer_ = 0;
    OnLimit();
  });
  return {};
}

void CloneHooks::ReadOutput() {
  char buffer[4096];
  const ssize_t got = ::read(out_.get(), buffer, sizeof(buffer));
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    loop_.Forget(out_.get());
    out_.Reset();
    return;
  }
  const size_t shown = std::min(static_cast<size_t>(got), console_left_);
  console_left_ -= shown;
  if (shown > 0) machine_.WriteConsole({buffer, shown});
}

void CloneHooks::OnExit(ExitStatus status) {
  pid_ = -1;
  if (out_) ReadOutput();
  std::string complaint;
  if (status.signal != 0) complaint = "ended by signal " + std::to_string(status.signal);
  if (status.code != 0) complaint = "ended with code " + std::to_string(status.code);
  Leave(std::move(complaint));
  Next();
}

void CloneHooks::OnLimit() {
  processes_.Signal(pid_, SIGKILL);
  Leave("did not end within " + std::to_string(allowed_.count()) + " ms");
  Next();
}

// Also after a hook that could not be started. What it left running must not be there: no freeze
// would reach it.
void CloneHooks::Leave(std::string complaint) {
  loop_.Cancel(timer_);
  timer_ = 0;
  if (out_) loop_.Forget(out_.get());
  out_.Reset();
  cgroup_.KillAll();
  if (pid_ > 0) processes_.Abandon(pid_);
  pid_ = -1;
  if (complaint.empty()) return;
  notes_.push_back(("clone hook " + current_ + ": " + complaint).substr(0, kNoteBytes));
}

}  // namespace dormouse::guest
