// Freeze and thaw as the host sees them. With a real cgroup v2 tree where the machine lets us have
// one; what needs none runs everywhere.
#include <fstream>

#include "guest-agent/server/clone_hooks.h"
#include "guest-agent/server/server_test_parts.h"

namespace dormouse::guest {
namespace {

namespace fs = std::filesystem;

constexpr char kMachineId[] = "0123456789abcdef0123456789abcdef";

class SleepTest : public ServerTest {
 protected:
  void TearDown() override {
    ServerTest::TearDown();
    for (const char* name : {"/workload", "/exec", "/hooks", ""}) RemoveCgroup(cgroup_ + name);
  }
  /// A cgroup of our own, or none.
  bool MakeCgroup() {
    for (const std::string mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      std::string path = mount + "/dormouse-sleep-test-" + std::to_string(::getpid());
      std::error_code failed;
      if (!fs::exists(mount + "/cgroup.procs") || !fs::create_directory(path, failed)) continue;
      cgroup_ = std::move(path);
      if (fs::exists(cgroup_ + "/cgroup.freeze") && fs::exists(cgroup_ + "/cgroup.kill")) {
        return true;
      }
    }
    return false;
  }
  void RemoveCgroup(const std::string& path) const {
    if (cgroup_.empty()) return;
    // What was killed leaves in its own time.
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (::rmdir(path.c_str()) != 0 && errno == EBUSY &&
           std::chrono::steady_clock::now() < limit) {
    }
  }
  void ServeWithCgroup(ServerOptions options = {}) {
    options.cgroup_dir = cgroup_;
    Serve(std::move(options));
  }
  /// Files that look like cgroups and never say that anything stands still.
  std::string MakeStubbornCgroup() {
    MakeDirectory();
    for (const std::string name : {"workload", "exec", "hooks"}) {
      const std::string path = directory_ + "/cgroup/" + name;
      fs::create_directories(path);
      for (const char* file : {"/cgroup.procs", "/cgroup.freeze", "/cgroup.kill"}) {
        std::ofstream(path + file).put('0');
      }
      std::ofstream(path + "/cgroup.events") << "populated 1\nfrozen 0\n";
    }
    return directory_ + "/cgroup";
  }
  std::string Hook(const std::string& name, const std::string& script, mode_t mode = 0755) {
    MakeDirectory();
    const std::string dir = directory_ + "/clone.d";
    fs::create_directories(dir);
    std::ofstream(dir + "/" + name) << "#!/bin/sh\n" << script << "\n";
    (void)::chmod((dir + "/" + name).c_str(), mode);
    return dir;
  }
  static std::string ReadFile(const std::string& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  FreezeReply Freeze(milliseconds limit = milliseconds(10'000)) {
    const auto got = Dial().Ask(Encode(FreezeRequest{static_cast<uint32_t>(limit.count())}));
    EXPECT_EQ(got.type, FrameType::kReply) << got.payload;
    return ParseFreezeReply(got.payload).value_or(FreezeReply{false, "no reply", 0});
  }
  Result<void> Thaw(const ThawRequest& request) {
    const auto got = Dial().Ask(Encode(request).value());
    if (got.type == FrameType::kReply) return {};
    return Fail(ParseError(got.payload));
  }
  static ThawRequest InPlace() { return {}; }
  static ThawRequest Resumed() {
    return {1'700'000'000'000'000'000, std::string(32, 'e'), {}, true};
  }
  static ThawRequest Cloned() {
    ThawRequest request = Resumed();
    request.new_identity = Identity{"clone-1", kMachineId};
    return request;
  }
  HealthReply Health() {
    return ParseHealthReply(Dial().Ask(EncodeHealthRequest()).payload).value();
  }
  std::optional<ErrorCode> WhyNoExec() {
    const auto got = Dial().Ask(Encode(Shell("true")).value());
    if (got.type == FrameType::kReply) return std::nullopt;
    return ParseError(got.payload).code();
  }
  /// A workload that writes to a file for ever.
  void StartWriter() {
    StartWorkloadRequest start;
    start.id = "writer";
    start.process.argv = {"/bin/sh", "-c", "while :; do echo x >> " + written() + "; done"};
    ASSERT_EQ(Dial().Ask(Encode(start).value()).type, FrameType::kReply);
    EXPECT_TRUE(Grows());
  }
  [[nodiscard]] std::string written() const { return directory_ + "/written"; }
  [[nodiscard]] uintmax_t Written() const {
    std::error_code absent;
    const auto size = fs::file_size(written(), absent);
    return absent ? 0 : size;
  }
  [[nodiscard]] bool Grows() const {
    const auto before = Written();
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (Written() == before) {
      if (std::chrono::steady_clock::now() > limit) return false;
    }
    return true;
  }
  /// Long enough for the writer to be seen, if it ran.
  [[nodiscard]] bool StandsStill() {
    const auto before = Written();
    for (int i = 0; i < 50; ++i) (void)Health();
    return Written() == before;
  }

  std::string cgroup_;
};

class CgroupSleepTest : public SleepTest {
 protected:
  void SetUp() override {
    if (!MakeCgroup()) GTEST_SKIP() << "no cgroup v2 tree to write to";
  }
};

TEST_F(CgroupSleepTest, AFrozenWorkloadStandsStillUntilItIsThawed) {
  ServeWithCgroup();
  StartWriter();
  const FreezeReply reply = Freeze();
  EXPECT_EQ(reply.agent_version, ServerOptions().agent_version);
  EXPECT_TRUE(reply.frozen) << reply.detail;
  EXPECT_EQ(reply.detail, "");
  EXPECT_TRUE(StandsStill());
  EXPECT_TRUE(Health().frozen);
  EXPECT_EQ(Health().workload.state, WorkloadState::kRunning);
  ASSERT_TRUE(Thaw(InPlace()));
  EXPECT_FALSE(Health().frozen);
  EXPECT_TRUE(Grows());
}

TEST_F(CgroupSleepTest, WhatIsStartedWhileFrozenIsRefusedAtOnce) {
  ServeWithCgroup();
  ASSERT_TRUE(Freeze().frozen);
  const auto before = std::chrono::steady_clock::now();
  EXPECT_EQ(WhyNoExec(), ErrorCode::kUnavailable);
  StartWorkloadRequest start;
  start.id = "a";
  start.process.argv = {"/bin/true"};
  const auto got = Dial().Ask(Encode(start).value());
  ASSERT_EQ(got.type, FrameType::kError);
  EXPECT_EQ(ParseError(got.payload).code(), ErrorCode::kUnavailable);
  EXPECT_NE(ParseError(got.payload).message().find("frozen"), std::string::npos);
  EXPECT_LT(std::chrono::steady_clock::now() - before, milliseconds(5'000));
  ASSERT_TRUE(Thaw(InPlace()));
  EXPECT_EQ(WhyNoExec(), std::nullopt);
}

TEST_F(CgroupSleepTest, ACommandOfTheHostIsFrozenTooAndGoesOnInPlace) {
  ServeWithCgroup();
  ExecRequest request = Shell("while read x; do echo got $x; done");
  request.stdin_open = true;
  Peer peer = Exec(request);
  ASSERT_TRUE(Freeze().frozen);
  peer.Send(EncodeFrame(FrameType::kStdin, "one\n", kFlagEnd));
  for (int i = 0; i < 20; ++i) (void)Health();
  ASSERT_TRUE(Thaw(InPlace()));
  EXPECT_EQ(peer.Finish().out, "got one\n");
}

TEST_F(CgroupSleepTest, AfterAResumeTheConnectionsOfBeforeAreGoneAndTheirCommandsHungUp) {
  ServeWithCgroup();
  Peer control = Dial();
  EXPECT_EQ(control.Ask(EncodeHealthRequest()).type, FrameType::kReply);
  Peer peer = Exec(Shell("echo ready; tail -f /dev/null"));
  EXPECT_EQ(peer.Next()->payload, "ready\n");
  ASSERT_TRUE(Freeze().frozen);
  ASSERT_TRUE(Thaw(Resumed()));
  EXPECT_TRUE(peer.Closed());
  EXPECT_TRUE(control.Closed());
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!ReadFile(cgroup_ + "/exec/cgroup.procs").empty() &&
         std::chrono::steady_clock::now() < limit) {
  }
  EXPECT_EQ(ReadFile(cgroup_ + "/exec/cgroup.procs"), "");
}

TEST_F(CgroupSleepTest, AResetConnectionEndsItsCommandAlsoWhileFrozen) {
  ServeWithCgroup();
  {
    Peer peer = Exec(Shell("echo ready; tail -f /dev/null"));
    EXPECT_EQ(peer.Next()->payload, "ready\n");
    ASSERT_TRUE(Freeze().frozen);
  }
  ASSERT_TRUE(Thaw(Resumed()));
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!ReadFile(cgroup_ + "/exec/cgroup.procs").empty() &&
         std::chrono::steady_clock::now() < limit) {
  }
  EXPECT_EQ(ReadFile(cgroup_ + "/exec/cgroup.procs"), "");
}

TEST_F(CgroupSleepTest, WithoutNewRandomNumbersNothingIsThawed) {
  ServeWithCgroup();
  StartWriter();
  ASSERT_TRUE(Freeze().frozen);
  machine_.entropy_fails = true;
  EXPECT_EQ(Thaw(Cloned()).error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(machine_.calls, std::vector<std::string>{"entropy"});
  EXPECT_TRUE(StandsStill());
  EXPECT_EQ(WhyNoExec(), ErrorCode::kUnavailable);
  machine_.entropy_fails = false;
  ASSERT_TRUE(Thaw(Cloned()));
  EXPECT_TRUE(Grows());
}

TEST_F(CgroupSleepTest, ACloneIsSomebodyElseBeforeItsProgramsGoOn) {
  const std::string out = "/tmp/dormouse-sleep-test-" + std::to_string(::getpid());
  const std::string dir =
      Hook("10-tell", "grep frozen " + cgroup_ + "/workload/cgroup.events > " + out + "\necho " +
                          "$DORMOUSE_HOSTNAME $DORMOUSE_MACHINE_ID >> " + out);
  ServeWithCgroup({.hook_dir = dir});
  StartWriter();
  ASSERT_TRUE(Freeze().frozen);
  ASSERT_TRUE(Thaw(Cloned()));
  EXPECT_EQ(machine_.calls, (std::vector<std::string>{"entropy", "clock", "identity"}));
  EXPECT_EQ(machine_.wall_time_ns, Cloned().wall_time_ns);
  EXPECT_EQ(machine_.entropy, Cloned().entropy);
  EXPECT_EQ(machine_.identity.hostname, "clone-1");
  EXPECT_EQ(machine_.identity.machine_id, kMachineId);
  EXPECT_EQ(ReadFile(out), std::string("frozen 1\nclone-1 ") + kMachineId + "\n");
  EXPECT_TRUE(Grows());
  EXPECT_TRUE(Health().warnings.empty());
  fs::remove(out);
}

TEST_F(CgroupSleepTest, AHookThatHangsIsKilledWithAllItStarted) {
  const std::string dir = Hook("10-hang", "tail -f /dev/null & tail -f /dev/null");
  Hook("20-leaves", "tail -f /dev/null > /dev/null 2>&1 &");
  ServeWithCgroup({.hook_dir = dir, .hook_limit = milliseconds(100)});
  ASSERT_TRUE(Freeze().frozen);
  ASSERT_TRUE(Thaw(Cloned()));
  const auto warnings = Health().warnings;
  ASSERT_GE(warnings.size(), 1U);
  EXPECT_NE(warnings[0].find("10-hang: did not end"), std::string::npos) << warnings[0];
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!ReadFile(cgroup_ + "/hooks/cgroup.procs").empty() &&
         std::chrono::steady_clock::now() < limit) {
  }
  EXPECT_EQ(ReadFile(cgroup_ + "/hooks/cgroup.procs"), "");
}

TEST_F(SleepTest, HooksRunByNameAndWhatFailsIsOnlyTold) {
  MakeDirectory();
  const std::string log = directory_ + "/log";
  const std::string dir = Hook("20-b", "echo b >> " + log);
  Hook("10-a", "echo a >> " + log + "; exit 3");
  Hook("30-no-program", "");
  std::ofstream(dir + "/30-no-program") << "#!/no/such/interpreter\n";
  Hook("40-not-executable", "echo no >> " + log, 0644);
  Hook(".hidden", "echo no >> " + log);
  EXPECT_EQ(ListHooks(dir), (std::vector<std::string>{"10-a", "20-b", "30-no-program"}));
  Serve({.hook_dir = dir});
  ASSERT_TRUE(Freeze().frozen);
  ASSERT_TRUE(Thaw(Cloned()));
  EXPECT_EQ(ReadFile(log), "a\nb\n");
  const auto warnings = Health().warnings;
  ASSERT_EQ(warnings.size(), 2U);
  EXPECT_EQ(warnings[0], "clone hook 10-a: ended with code 3");
  EXPECT_NE(warnings[1].find("30-no-program"), std::string::npos);
}

TEST_F(SleepTest, AResumeRunsNoHooksAndKeepsItsIdentity) {
  MakeDirectory();
  const std::string log = directory_ + "/log";
  Serve({.hook_dir = Hook("10-a", "echo a >> " + log)});
  ASSERT_TRUE(Freeze().frozen);
  ASSERT_TRUE(Thaw(Resumed()));
  EXPECT_EQ(machine_.calls, (std::vector<std::string>{"entropy", "clock"}));
  EXPECT_FALSE(fs::exists(log));
}

TEST_F(SleepTest, BothCanBeAskedAgain) {
  MakeDirectory();
  const std::string log = directory_ + "/log";
  Serve({.hook_dir = Hook("10-a", "echo a >> " + log)});
  EXPECT_TRUE(Freeze().frozen);
  EXPECT_TRUE(Freeze().frozen);
  EXPECT_TRUE(Thaw(Cloned()));
  EXPECT_TRUE(Thaw(Cloned())) << "the answer may have been lost";
  EXPECT_EQ(ReadFile(log), "a\n");
  EXPECT_TRUE(Thaw(InPlace()));
  ThawRequest other = Cloned();
  other.new_identity->hostname = "clone-2";
  EXPECT_EQ(Thaw(other).error().code(), ErrorCode::kConflict);
  // A clone of the clone.
  ASSERT_TRUE(Freeze().frozen);
  EXPECT_TRUE(Thaw(other));
  EXPECT_EQ(machine_.identity.hostname, "clone-2");
  EXPECT_EQ(ReadFile(log), "a\na\n");
}

TEST_F(SleepTest, AnIdentityThatCannotBeTakenStopsTheThaw) {
  Serve();
  ASSERT_TRUE(Freeze().frozen);
  machine_.identity_fails = true;
  EXPECT_EQ(Thaw(Cloned()).error().code(), ErrorCode::kNoSpace);
  EXPECT_TRUE(Health().frozen);
  machine_.identity_fails = false;
  EXPECT_TRUE(Thaw(Cloned()));
  EXPECT_FALSE(Health().frozen);
}

TEST_F(SleepTest, WhatDoesNotStandStillIsToldInTimeAndNothingNewIsStarted) {
  const std::string cgroup = MakeStubbornCgroup();
  Serve({.cgroup_dir = cgroup});
  const auto before = std::chrono::steady_clock::now();
  const FreezeReply reply = Freeze(milliseconds(100));
  EXPECT_LT(std::chrono::steady_clock::now() - before, milliseconds(5'000));
  EXPECT_FALSE(reply.frozen);
  EXPECT_NE(reply.detail.find("do not stand still"), std::string::npos) << reply.detail;
  EXPECT_EQ(ReadFile(cgroup + "/workload/cgroup.freeze"), "1");
  EXPECT_TRUE(Health().frozen);
  EXPECT_EQ(WhyNoExec(), ErrorCode::kUnavailable);
  // Asked again, it looks again.
  for (const char* name : {"/workload", "/exec"}) {
    std::ofstream(cgroup + name + "/cgroup.events") << "populated 1\nfrozen 1\n";
  }
  EXPECT_TRUE(Freeze().frozen);
  ASSERT_TRUE(Thaw(InPlace()));
  EXPECT_EQ(ReadFile(cgroup + "/workload/cgroup.freeze"), "0");
  EXPECT_EQ(ReadFile(cgroup + "/exec/cgroup.freeze"), "0");
}

TEST_F(SleepTest, ASyncThatHangsHoldsUpNobodyAndIsTold) {
  machine_.sync_hangs = true;
  Serve();
  Peer freezing = Dial();
  freezing.Send(Encode(FreezeRequest{300}));
  while (!Health().frozen) {  // the server answers others meanwhile
  }
  const auto got = freezing.Next();
  ASSERT_TRUE(got);
  const auto reply = ParseFreezeReply(got->payload);
  ASSERT_TRUE(reply);
  EXPECT_TRUE(reply->frozen);
  EXPECT_NE(reply->detail.find("sync did not finish"), std::string::npos);
  EXPECT_GE(reply->took_ms, 250U);
  EXPECT_TRUE(Thaw(InPlace()));
  EXPECT_EQ(WhyNoExec(), std::nullopt);
}

TEST_F(SleepTest, WhoeverAsksMeanwhileGetsTheSameAnswer) {
  machine_.sync_hangs = true;
  Serve();
  Peer first = Dial();
  Peer second = Dial();
  {
    Peer gone = Dial();
    gone.Send(Encode(FreezeRequest{300}));
  }
  first.Send(Encode(FreezeRequest{300}));
  second.Send(Encode(FreezeRequest{60'000}));
  EXPECT_TRUE(ParseFreezeReply(first.Next()->payload)->frozen);
  EXPECT_TRUE(ParseFreezeReply(second.Next()->payload)->frozen);
}

TEST_F(SleepTest, AThawEndsAFreezeThatIsUnderWay) {
  machine_.sync_hangs = true;
  Serve();
  Peer freezing = Dial();
  freezing.Send(Encode(FreezeRequest{60'000}));
  while (!Health().frozen) {
  }
  ASSERT_TRUE(Thaw(InPlace()));
  const auto reply = ParseFreezeReply(freezing.Next()->payload);
  ASSERT_TRUE(reply);
  EXPECT_FALSE(reply->frozen);
  EXPECT_FALSE(Health().frozen);
}

TEST_F(SleepTest, AGuestThatWasNeverConfiguredSleepsAndIsConfiguredAfterwards) {
  Serve();
  ASSERT_TRUE(Freeze().frozen);
  ASSERT_TRUE(Thaw(Cloned()));
  ConfigureRequest configure;
  configure.env = {{"WHO", "clone"}};
  ASSERT_EQ(Dial().Ask(Encode(configure).value()).type, FrameType::kReply);
  EXPECT_EQ(Exec(Shell("echo $WHO")).Finish().out, "clone\n");
}

TEST_F(SleepTest, AStandInWakesAsItWasRemembered) {
  Serve();
  StartWorkloadRequest start;
  start.id = "w";
  start.process.argv = {"/bin/sh", "-c", "tail -f /dev/null"};
  ASSERT_EQ(Dial().Ask(Encode(ConfigureRequest{}).value()).type, FrameType::kReply);
  ASSERT_EQ(Dial().Ask(Encode(start).value()).type, FrameType::kReply);
  ASSERT_TRUE(Freeze().frozen);
  EXPECT_TRUE(machine_.remembered.frozen);
  server_->Stop();
  thread_.join();
  server_.reset();
  machine_.recalls = true;
  Serve();
  HealthReply health = Health();
  EXPECT_TRUE(health.frozen);
  EXPECT_TRUE(health.configured);
  EXPECT_EQ(health.workload.id, "w");
  EXPECT_EQ(health.workload.state, WorkloadState::kRunning);
  EXPECT_EQ(WhyNoExec(), ErrorCode::kUnavailable);
  ASSERT_TRUE(Thaw(Resumed()));
  EXPECT_FALSE(machine_.remembered.frozen);
  const auto stopped = ParseWorkloadStatus(Dial().Ask(Encode(StopWorkloadRequest{5'000})).payload);
  ASSERT_TRUE(stopped);
  EXPECT_EQ(stopped->state, WorkloadState::kExited);
}

TEST_F(SleepTest, WrongRequestsAreAnsweredAndChangeNothing) {
  Serve();
  Peer peer = Dial();
  for (const char* json : {"]", "{\"limitMs\":-1}", "{\"limitMs\":99999999}"}) {
    EXPECT_EQ(peer.Ask(EncodeFrame(FrameType::kFreeze, json)).type, FrameType::kError);
  }
  for (const char* json : {"]", "{\"isResume\":true}", "{\"identity\":{}}"}) {
    EXPECT_EQ(peer.Ask(EncodeFrame(FrameType::kThaw, json)).type, FrameType::kError);
  }
  EXPECT_FALSE(Health().frozen);
  EXPECT_TRUE(machine_.calls.empty());
}

}  // namespace
}  // namespace dormouse::guest
