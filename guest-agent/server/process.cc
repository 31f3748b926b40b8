#include "guest-agent/server/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace dormouse::guest {
namespace {

constexpr int kExecTimeoutMs = 10'000;
constexpr char kDefaultPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

void SetVar(std::vector<EnvVar>& env, std::string_view name, std::string_view value) {
  for (auto& [known, old] : env) {
    if (known == name) {
      old = value;
      return;
    }
  }
  env.emplace_back(name, value);
}

std::string_view GetVar(const std::vector<std::string>& env, std::string_view name) {
  for (const std::string& entry : env) {
    if (entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=') {
      return std::string_view(entry).substr(name.size() + 1);
    }
  }
  return {};
}

/// Every path that execvp would try. The child tries them, as only it has the user's permissions.
std::vector<std::string> Candidates(const LaunchPlan& plan) {
  const std::string& program = plan.argv.front();
  if (program.find('/') != std::string::npos) return {program};
  std::vector<std::string> out;
  std::string_view path = GetVar(plan.env, "PATH");
  while (!path.empty()) {
    const size_t end = path.find(':');
    const std::string_view dir = path.substr(0, end);
    out.push_back((dir.empty() ? "." : std::string(dir)) + "/" + program);
    path = end == std::string_view::npos ? std::string_view() : path.substr(end + 1);
  }
  return out;
}

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (const std::string& text : strings) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

Result<Pipe> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return FailErrno("pipe2");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

void SetNonBlocking(int fd) {
  (void)::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/// The child's end of its three streams, and ours.
struct Streams {
  UniqueFd child_in, child_out, child_err;
  UniqueFd in, out, err;
};

Result<Streams> OpenTerminal(const LaunchPlan& plan) {
  Streams streams;
  streams.out = UniqueFd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!streams.out) return FailErrno("open a terminal");
  const int unlock = 0;
  if (::ioctl(streams.out.get(), TIOCSPTLCK, &unlock) != 0) return FailErrno("unlock the terminal");
  // TIOCGPTPEER needs no path, so it works whatever is mounted at /dev/pts.
  streams.child_in =
      UniqueFd(::ioctl(streams.out.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!streams.child_in) return FailErrno("open the terminal's other side");
  winsize size{};
  size.ws_row = plan.size.rows;
  size.ws_col = plan.size.columns;
  (void)::ioctl(streams.out.get(), TIOCSWINSZ, &size);
  (void)!::fchown(streams.child_in.get(), plan.identity.uid, static_cast<gid_t>(-1));
  streams.in = UniqueFd(::fcntl(streams.out.get(), F_DUPFD_CLOEXEC, 3));
  SetNonBlocking(streams.out.get());
  return streams;
}

Result<Streams> OpenPipes(const LaunchPlan& plan) {
  Streams streams;
  if (plan.stdin_open) {
    DORMOUSE_ASSIGN(Pipe in, MakePipe());
    streams.child_in = std::move(in.read_end);
    streams.in = std::move(in.write_end);
    SetNonBlocking(streams.in.get());
  } else {
    streams.child_in = UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!streams.child_in) return FailErrno("open /dev/null");
  }
  DORMOUSE_ASSIGN(Pipe out, MakePipe());
  streams.child_out = std::move(out.write_end);
  streams.out = std::move(out.read_end);
  SetNonBlocking(streams.out.get());
  if (plan.merge_output) return streams;
  DORMOUSE_ASSIGN(Pipe err, MakePipe());
  streams.child_err = std::move(err.write_end);
  streams.err = std::move(err.read_end);
  SetNonBlocking(streams.err.get());
  return streams;
}

/// What the child tells before it gives up.
struct Failure {
  int step;
  int errnum;
};
constexpr const char* kSteps[] = {"enter the cgroup", "set up the terminal", "become the user",
                                  "change to the working directory", "run"};
enum Step { kCgroup, kTerminal, kUser, kDirectory, kRun };

Error ErrorOf(const Failure& failure, const LaunchPlan& plan) {
  std::string what = kSteps[failure.step];
  if (failure.step == kRun) what += " " + plan.argv.front();
  if (failure.step == kDirectory) what = "workingDir: change to " + plan.working_dir;
  const Error error = Error::FromErrno(what, failure.errnum);
  const ErrorCode code = error.code();
  if (failure.step == kDirectory) return error.WithCode(ErrorCode::kInvalid);
  if (failure.step != kRun) return error.WithCode(ErrorCode::kInternal);
  const bool passes = code == ErrorCode::kNoSpace || code == ErrorCode::kBusy;
  const bool is_told_apart = code == ErrorCode::kNotFound || code == ErrorCode::kPermission;
  return passes || is_told_apart ? error : error.WithCode(ErrorCode::kUnsupported);
}

/// Everything the child needs, laid out before the fork: it must not allocate.
struct ChildImage {
  std::vector<char*> argv;
  std::vector<char*> env;
  std::vector<std::string> candidates;
  const char* directory;  ///< must be there
  const char* home;       ///< or else: tried when `directory` is null
  const LaunchPlan* plan;
  int fds[3];
  int report;
};

[[noreturn]] void GiveUp(const ChildImage& image, Step step, int errnum) {
  const Failure failure{step, errnum};
  (void)!::write(image.report, &failure, sizeof(failure));
  ::_exit(127);
}

/// In the child. Raw system calls for the ids: glibc's would signal the other threads that the
/// parent had, and they are not here.
void BecomeUser(const ChildImage& image) {
  const UserIdentity& who = image.plan->identity;
  if (::geteuid() != 0 && who.uid == ::geteuid()) return;  // not root, and asked for nobody else
  if (::syscall(SYS_setgroups, who.groups.size(), who.groups.data()) != 0 ||
      ::syscall(SYS_setresgid, who.gid, who.gid, who.gid) != 0 ||
      ::syscall(SYS_setresuid, who.uid, who.uid, who.uid) != 0) {
    GiveUp(image, kUser, errno);
  }
}

[[noreturn]] void RunChild(const ChildImage& image) {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int number = 1; number <= 64; ++number) (void)::sigaction(number, &action, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
  (void)::setsid();
  const int cgroup = image.plan->cgroup_procs_fd;
  if (cgroup >= 0 && ::write(cgroup, "0", 1) != 1) GiveUp(image, kCgroup, errno);
  if (image.plan->tty && ::ioctl(image.fds[0], TIOCSCTTY, 0) != 0) GiveUp(image, kTerminal, errno);
  for (int i = 0; i < 3; ++i) {
    if (::dup2(image.fds[i], i) < 0) GiveUp(image, kTerminal, errno);
  }
  ::umask(022);
  BecomeUser(image);
  if (image.directory != nullptr) {
    if (::chdir(image.directory) != 0) GiveUp(image, kDirectory, errno);
  } else if (::chdir(image.home) != 0 && ::chdir("/") != 0) {
    GiveUp(image, kDirectory, errno);
  }
  int errnum = ENOENT;
  for (const std::string& path : image.candidates) {
    ::execve(path.c_str(), image.argv.data(), image.env.data());
    // As execvp: a permission problem is remembered, and the search goes on.
    if (errno == EACCES) {
      errnum = EACCES;
    } else if (errno != ENOENT && errno != ENOTDIR) {
      errnum = errno;
      break;
    }
  }
  GiveUp(image, kRun, errnum);
}

/// Duplicates that stand above the standard streams, so that dup2 onto 0, 1, 2 cannot clobber one.
Result<void> LiftAboveStdio(UniqueFd& fd) {
  if (!fd || fd.get() > 2) return {};
  UniqueFd higher(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  if (!higher) return FailErrno("duplicate a descriptor");
  fd = std::move(higher);
  return {};
}

}  // namespace

Result<LaunchPlan> MakePlan(const ProcessSpec& spec, const ConfigureRequest& defaults,
                            const IdentityFiles& files) {
  LaunchPlan plan;
  plan.argv = spec.argv;
  DORMOUSE_ASSIGN(plan.identity, ResolveUser(spec.user.empty() ? defaults.user : spec.user, files));
  plan.working_dir = spec.working_dir.empty() ? defaults.working_dir : spec.working_dir;
  std::vector<EnvVar> env{{"PATH", kDefaultPath}, {"HOME", plan.identity.home}};
  for (const auto& [name, value] : defaults.env) SetVar(env, name, value);
  for (const auto& [name, value] : spec.env) SetVar(env, name, value);
  for (const auto& [name, value] : env) plan.env.push_back(name + "=" + value);
  return plan;
}

Result<Child> Launch(const LaunchPlan& plan) {
  DORMOUSE_ASSIGN(Streams streams, plan.tty ? OpenTerminal(plan) : OpenPipes(plan));
  DORMOUSE_TRY(LiftAboveStdio(streams.child_in));
  DORMOUSE_TRY(LiftAboveStdio(streams.child_out));
  DORMOUSE_TRY(LiftAboveStdio(streams.child_err));
  DORMOUSE_ASSIGN(Pipe report, MakePipe());
  DORMOUSE_TRY(LiftAboveStdio(report.write_end));

  ChildImage image;
  image.argv = Pointers(plan.argv);
  std::vector<std::string> env = plan.env;
  if (plan.tty && GetVar(env, "TERM").empty()) env.emplace_back("TERM=xterm");
  image.env = Pointers(env);
  image.candidates = Candidates(plan);
  image.directory = plan.working_dir.empty() ? nullptr : plan.working_dir.c_str();
  image.home = plan.identity.home.c_str();
  image.plan = &plan;
  image.fds[0] = streams.child_in.get();
  image.fds[1] = plan.tty ? streams.child_in.get() : streams.child_out.get();
  image.fds[2] = streams.child_err ? streams.child_err.get() : image.fds[1];
  image.report = report.write_end.get();

  // All signals are held over the fork, so that no handler of ours runs in the child.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  (void)::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::fork();
  if (pid == 0) RunChild(image);
  const int fork_errno = errno;
  (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return FailErrno("fork", fork_errno);

  Child child;
  child.pid = pid;
  report.write_end.Reset();
  Failure failure{};
  // Bounded: a child that entered a frozen cgroup says nothing.
  pollfd readable{report.read_end.get(), POLLIN, 0};
  if (::poll(&readable, 1, kExecTimeoutMs) <= 0) {
    (void)::kill(pid, SIGKILL);
    (void)::waitpid(pid, nullptr, 0);
    return Fail(ErrorCode::kDeadline, "run " + plan.argv.front() + ": did not start");
  }
  const ssize_t got = ::read(report.read_end.get(), &failure, sizeof(failure));
  if (got == static_cast<ssize_t>(sizeof(failure))) {
    (void)::waitpid(pid, nullptr, 0);
    return Fail(ErrorOf(failure, plan));
  }
  child.pidfd = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!child.pidfd) {
    const int open_errno = errno;
    (void)::kill(pid, SIGKILL);
    (void)::waitpid(pid, nullptr, 0);
    return FailErrno("pidfd_open", open_errno);
  }
  child.in = std::move(streams.in);
  child.out = std::move(streams.out);
  child.err = std::move(streams.err);
  return child;
}

std::optional<ExitStatus> Reap(pid_t pid) {
  int status = 0;
  const pid_t got = ::waitpid(pid, &status, WNOHANG);
  if (got == 0) return std::nullopt;
  // ECHILD: somebody else collected it (SIGCHLD ignored); its end is certain, its code is not.
  if (got < 0) return ExitStatus{255, 0};
  if (WIFSIGNALED(status)) return ExitStatus{0, static_cast<uint32_t>(WTERMSIG(status))};
  return ExitStatus{static_cast<uint32_t>(WEXITSTATUS(status)), 0};
}

}  // namespace dormouse::guest
