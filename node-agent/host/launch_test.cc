#include "node-agent/host/launch.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node-agent/host/cgroup.h"
#include "node-agent/host/device_node.h"
#include "node-agent/host/netns.h"
#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"

namespace dormouse::host {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr uid_t kUid = 100017;

class LaunchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!IsRoot()) GTEST_SKIP() << "needs root";
    for (const std::string mount_point : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      // Not shared with a test beside this one, which would remove it.
      const std::string slice = "dormouse-test-" + name_ + ".slice";
      auto opened = Cgroups::Open({mount_point, slice, false});
      if (!opened || cgroups_) continue;
      slice_ = mount_point + "/" + slice;
      cgroups_.emplace(*std::move(opened));
    }
    if (!cgroups_) GTEST_SKIP() << "no cgroup2 file system that we may write to";
    host_.emplace(*HostNamespaces::Open("self"));
    ASSERT_OK(MakeDirectories(scratch_ / "root", 0755));
    ASSERT_OK(MakeDirectories(scratch_ / "run", 0700));
    ASSERT_EQ(::chown((scratch_ / "run").c_str(), kUid, kUid), 0);
    ASSERT_OK(CreateNetNs(*host_, scratch_ / "netns"));
    ASSERT_OK(cgroups_->Create(name_, {}));
    netns_ = OpenNetNs(*host_, scratch_ / "netns").value();
    group_ = cgroups_->OpenDirectory(name_).value();
    log_ = OpenFile(scratch_ / "log", O_CREAT | O_RDWR | O_APPEND).value();
  }
  void TearDown() override {
    if (!cgroups_ || !host_) return;
    EXPECT_OK(cgroups_->Kill(name_));
    EXPECT_OK(cgroups_->WaitEmpty(name_, milliseconds(5000)));
    EXPECT_OK(cgroups_->Remove(name_));
    ::rmdir(slice_.c_str());
    EXPECT_OK(DeleteNetNs(*host_, scratch_ / "netns"));
  }
  LaunchSpec Spec(std::vector<std::string> command) {
    LaunchSpec spec;
    spec.name = name_;
    spec.command = std::move(command);
    spec.uid = kUid;
    spec.gid = kUid;
    spec.binds = {{scratch_ / "run", "/run/vm", true, false}};
    spec.system_libraries = true;
    spec.cgroup = group_.get();
    spec.netns = netns_.get();
    spec.log = log_.get();
    return spec;
  }
  Result<LaunchedProcess> Start(const LaunchSpec& spec) {
    return Launch(*host_, {DORMOUSE_LAUNCH_PROGRAM, scratch_ / "root", milliseconds(5000)}, spec);
  }
  // What the command wrote, once it has ended.
  std::string OutputOf(std::vector<std::string> command) {
    auto launched = Start(Spec(std::move(command)));
    if (launched) {
      EXPECT_OK(cgroups_->WaitEmpty(name_, milliseconds(5000)));
    } else {
      // A short one may be over before it is looked at.
      EXPECT_THAT(launched.error().message(), HasSubstr("ended at once"));
    }
    return ReadFile(scratch_ / "log", 1 << 20).value_or("");
  }

  ScratchDirectory scratch_;
  const std::string name_ = "l" + std::to_string(::getpid());
  std::string slice_;
  std::optional<Cgroups> cgroups_;
  std::optional<HostNamespaces> host_;
  UniqueFd netns_;
  UniqueFd group_;
  UniqueFd log_;
};

TEST_F(LaunchTest, TheProcessIsInItsCgroupAndNotOurChild) {
  auto launched = Start(Spec({"/usr/bin/sleep", "60"}));
  ASSERT_OK(launched);
  EXPECT_THAT(cgroups_->Processes(name_).value(), ::testing::ElementsAre(launched->identity.pid));
  EXPECT_EQ(::waitpid(launched->identity.pid, nullptr, WNOHANG), -1) << "not our child";
  auto process = Process::Open(launched->identity, {kUid, cgroups_->MembershipOf(name_)});
  ASSERT_OK(process);
  ASSERT_OK(process->Signal(SIGKILL));
  EXPECT_OK(process->WaitExit(milliseconds(5000)));
}

TEST_F(LaunchTest, HasNothingButItsOwn) {
  const std::string seen = OutputOf(
      {"/usr/bin/find", "/", "-xdev", "-not", "-path", "/usr/*", "-printf", "%p %U %m\\n"});
  EXPECT_THAT(seen, HasSubstr("/run/vm 100017 700"));
  EXPECT_THAT(seen, HasSubstr("/dev/null 0 666"));
  EXPECT_THAT(seen, HasSubstr("/dev/kvm 100017 600"));
  for (const char* absent :
       {"/proc", "/sys", "/etc/passwd", "/home", "/root", "/tmp", "/dev/mem"}) {
    EXPECT_THAT(seen, ::testing::Not(HasSubstr(std::string("\n") + absent + " "))) << absent;
  }
  EXPECT_THAT(OutputOf({"/usr/bin/id"}), HasSubstr("uid=100017 gid=100017 groups=100017"));
}

TEST_F(LaunchTest, ItsRunDirectoryIsOurs) {
  (void)OutputOf({"/usr/bin/touch", "/run/vm/made-inside"});
  struct stat status {};
  ASSERT_EQ(::stat((scratch_ / "run/made-inside").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, kUid);
  EXPECT_THAT(OutputOf({"/usr/bin/touch", "/usr/x"}), HasSubstr("Read-only file system"));
  EXPECT_THAT(OutputOf({"/usr/bin/touch", "/x"}), HasSubstr("/x"));
}

TEST_F(LaunchTest, CapabilitiesDescriptorsAndLimitsAreGone) {
  auto launched = Start(Spec({"/usr/bin/sleep", "60"}));
  ASSERT_OK(launched);
  const std::string proc = "/proc/" + std::to_string(launched->identity.pid);
  const std::string status = ReadFile(proc + "/status", 1 << 16).value();
  EXPECT_THAT(
      status,
      HasSubstr("CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000"));
  EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1"));
  EXPECT_THAT(status, HasSubstr("Groups:\t \n"));
  EXPECT_THAT(status, HasSubstr("SigIgn:\t0000000000000000"));
  // The program itself opens its libraries, and closes them.
  EXPECT_TRUE(Eventually([&] {
    return ListDirectory(proc + "/fd").value() == std::vector<std::string>{"0", "1", "2"};
  }));
  EXPECT_THAT(ReadFile(proc + "/limits", 1 << 16).value(),
              HasSubstr("Max core file size        0"));
  struct stat ours {};
  struct stat theirs {};
  for (const std::string space : {"mnt", "net", "ipc", "uts"}) {
    ASSERT_EQ(::stat(("/proc/self/ns/" + space).c_str(), &ours), 0);
    ASSERT_EQ(::stat((proc + "/ns/" + space).c_str(), &theirs), 0);
    EXPECT_NE(ours.st_ino, theirs.st_ino) << space;
  }
}

TEST_F(LaunchTest, AFailingStepIsNamedAndLeavesNothing) {
  LaunchSpec spec = Spec({"/usr/bin/sleep", "60"});
  spec.binds.push_back({scratch_ / "missing", "/missing", false, false});
  auto launched = Start(spec);
  ASSERT_FALSE(launched);
  EXPECT_THAT(launched.error().message(), HasSubstr("open " + (scratch_ / "missing") + ": ENOENT"));
  EXPECT_OK(cgroups_->WaitEmpty(name_, milliseconds(5000)));

  launched = Start(Spec({"/no/such/program"}));
  ASSERT_FALSE(launched);
  EXPECT_THAT(launched.error().message(), HasSubstr("execute /no/such/program: ENOENT"));
  LaunchSpec root = Spec({"/usr/bin/sleep", "60"});
  root.uid = 0;
  EXPECT_EQ(Start(root).error().code(), ErrorCode::kInvalid);
}

// A process with a mount namespace of its own, in which a file is that nobody else sees: to the
// test, which plays an agent in a pod, it is the node.
class OtherMounts {
 public:
  explicit OtherMounts(const std::string& directory) {
    int ready[2];
    if (::pipe(ready) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      const std::string file = directory + "/only-there";
      const bool made = ::unshare(CLONE_NEWNS) == 0 &&
                        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                        ::mount("tmpfs", directory.c_str(), "tmpfs", 0, nullptr) == 0 &&
                        ::close(::open(file.c_str(), O_CREAT | O_WRONLY, 0644)) == 0;
      (void)!::write(ready[1], made ? "y" : "n", 1);
      for (;;) ::pause();
    }
    char answer = 'n';
    made_ = ::read(ready[0], &answer, 1) == 1 && answer == 'y';
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~OtherMounts() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  OtherMounts(const OtherMounts&) = delete;
  OtherMounts& operator=(const OtherMounts&) = delete;
  [[nodiscard]] bool made() const { return made_; }
  [[nodiscard]] std::string namespaces() const { return "/proc/" + std::to_string(pid_) + "/ns"; }

 private:
  pid_t pid_ = -1;
  bool made_ = false;
};

TEST_F(LaunchTest, FromAPodTheNodesMountsCount) {
  ASSERT_OK(MakeDirectories(scratch_ / "node", 0755));
  const OtherMounts node(scratch_ / "node");
  ASSERT_TRUE(node.made());
  auto pod_view = HostNamespaces::Open(node.namespaces());
  ASSERT_OK(pod_view);
  ASSERT_GE(pod_view->mount_namespace(), 0);
  ASSERT_FALSE(PathExists(scratch_ / "node/only-there"));

  LaunchSpec spec = Spec({"/usr/bin/sleep", "60"});
  spec.binds.push_back({scratch_ / "node/only-there", "/file", false, false});
  auto launched =
      Launch(*pod_view, {DORMOUSE_LAUNCH_PROGRAM, scratch_ / "root", milliseconds(5000)}, spec);
  ASSERT_OK(launched);
  EXPECT_TRUE(PathExists("/proc/" + std::to_string(launched->identity.pid) + "/root/file"));

  ASSERT_OK(CreateNetNs(*pod_view, scratch_ / "node/netns"));
  EXPECT_FALSE(PathExists(scratch_ / "node/netns")) << "mounted on the node, not in the pod";
  EXPECT_OK(OpenNetNs(*pod_view, scratch_ / "node/netns"));
  EXPECT_THAT(ListNetNs(*pod_view, scratch_ / "node").value(),
              ::testing::ElementsAre("netns", "only-there"));
  EXPECT_OK(DeleteNetNs(*pod_view, scratch_ / "node/netns"));
}

TEST_F(LaunchTest, APlantedLinkIsNotFollowed) {
  ASSERT_EQ(::symlink("/etc", (scratch_ / "run/link").c_str()), 0);
  LaunchSpec spec = Spec({"/usr/bin/sleep", "60"});
  spec.binds.push_back({scratch_ / "run/link", "/link", false, false});
  auto launched = Start(spec);
  ASSERT_FALSE(launched);
  EXPECT_THAT(launched.error().message(), HasSubstr("symbolic link"));
}

}  // namespace
}  // namespace dormouse::host
