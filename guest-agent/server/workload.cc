#include "guest-agent/server/workload.h"

#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

namespace dormouse::guest {
namespace {

int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool IsNoProgram(const Error& error) {
  return error.code() == ErrorCode::kNotFound || error.code() == ErrorCode::kPermission ||
         error.code() == ErrorCode::kUnsupported;
}

}  // namespace

Workload::Workload(EventLoop& loop, ProcessTable& processes, Machine& machine, Cgroup cgroup,
                   size_t log_bytes, WorkloadStatus known)
    : loop_(loop),
      processes_(processes),
      machine_(machine),
      cgroup_(std::move(cgroup)),
      log_(log_bytes),
      status_(std::move(known)) {}

Workload::~Workload() {
  loop_.Cancel(kill_timer_);
  if (out_) loop_.Forget(out_.get());
  if (pid_ > 0) processes_.Abandon(pid_);
}

Result<void> Workload::Start(const StartWorkloadRequest& request,
                             const ConfigureRequest& defaults) {
  if (status_.state != WorkloadState::kNone && request.id == status_.id) return {};
  if (status_.state == WorkloadState::kRunning) {
    return Fail(ErrorCode::kBusy, "workload " + status_.id + " is running");
  }
  auto resolved = MakePlan(request.process, defaults, machine_.Users());
  if (!resolved) return Fail(resolved.error().Wrap("user").WithCode(ErrorCode::kInvalid));
  LaunchPlan plan = *std::move(resolved);
  plan.cgroup_procs_fd = cgroup_.procs_fd();
  plan.merge_output = true;
  auto launched = Launch(plan);
  if (!launched && !IsNoProgram(launched.error())) return Fail(launched.error());
  // What outlived the main process of the one before was killed with it; its pipe may still be
  // open.
  if (out_) loop_.Forget(out_.get());
  out_.Reset();
  console_ = request.console;
  status_ = {};
  status_.state = WorkloadState::kRunning;
  status_.id = request.id;
  status_.started_at_ms = NowMs();
  if (!launched) {
    NoteNotRun(launched.error());
    return {};
  }
  Child child = *std::move(launched);
  pid_ = child.pid;
  out_ = std::move(child.out);
  DORMOUSE_TRY(
      processes_.Add(pid_, std::move(child.pidfd), [this](ExitStatus status) { OnExit(status); }));
  DORMOUSE_TRY(loop_.Watch(out_.get(), EPOLLIN, [this](uint32_t) { ReadOutput(); }));
  Notify();
  return {};
}

void Workload::NoteNotRun(const Error& error) {
  const std::string line = error.message() + "\n";
  log_.Append(line);
  if (console_) machine_.WriteConsole(line);
  status_.state = WorkloadState::kExited;
  status_.exit = {error.code() == ErrorCode::kNotFound ? 127U : 126U, 0};
  status_.finished_at_ms = NowMs();
  status_.detail = error.message();
  Notify();
}

void Workload::ReadOutput() {
  char buffer[16 * 1024];
  const ssize_t got = ::read(out_.get(), buffer, sizeof(buffer));
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    loop_.Forget(out_.get());
    out_.Reset();
    return;
  }
  const std::string_view bytes(buffer, static_cast<size_t>(got));
  log_.Append(bytes);
  if (console_) machine_.WriteConsole(bytes);
  Notify();
}

void Workload::OnExit(ExitStatus status) {
  loop_.Cancel(kill_timer_);
  kill_timer_ = 0;
  pid_ = -1;
  cgroup_.KillAll();  // a workload is its cgroup: nothing of it stays behind
  // What it wrote before it ended is in the pipe already, and belongs before the end in the log. A
  // pipe holds 64 KiB (1 MiB if it was enlarged): the bound matters only if something else still
  // writes.
  const uint64_t limit = log_.end() + 1024 * 1024;
  for (uint64_t before = UINT64_MAX; out_ && log_.end() != before && log_.end() < limit;) {
    before = log_.end();
    ReadOutput();
  }
  status_.state = WorkloadState::kExited;
  status_.exit = status;
  status_.finished_at_ms = NowMs();
  Notify();
}

void Workload::Stop(std::chrono::milliseconds grace) {
  if (pid_ < 0) {
    if (status_.state == WorkloadState::kRunning) OnExit({0, SIGTERM});  // a stand-in's
    return;
  }
  processes_.Signal(pid_, SIGTERM);
  loop_.Cancel(kill_timer_);
  kill_timer_ = loop_.After(grace, [this] {
    kill_timer_ = 0;
    cgroup_.KillAll();
    processes_.Signal(pid_, SIGKILL);
  });
}

Workload::ObserverId Workload::Observe(std::function<void()> observer) {
  observers_.emplace(next_observer_, std::move(observer));
  return next_observer_++;
}

void Workload::Notify() {
  // An observer may forget itself or another while it is told.
  std::vector<ObserverId> ids;
  for (const auto& [id, observer] : observers_) ids.push_back(id);
  for (const ObserverId id : ids) {
    const auto found = observers_.find(id);
    if (found == observers_.end()) continue;
    const auto observer = found->second;
    observer();
  }
}

}  // namespace dormouse::guest
