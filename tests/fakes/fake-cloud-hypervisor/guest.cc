#include "tests/fakes/fake-cloud-hypervisor/guest.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "src/common/guest/frame.h"
#include "tests/fakes/vsock_front.h"

namespace dormouse::fake_vmm {
namespace {

using std::chrono::milliseconds;

// What the guest keeps in its RAM, at gpa 0, so that a snapshot carries it.
struct GuestPage {
  char magic[8];
  char boot_id[40];
  uint64_t dialled;  // counts the host's connections: a page that diverges in a clone
  uint64_t thawed;   // counts the thaws that the host asked for
  uint8_t configured;
  uint8_t frozen;
  uint8_t workload_state;
  char workload_id[guest::kMaxId + 1];
  guest::ExitStatus exit;
  int64_t started_at_ms;
  int64_t finished_at_ms;
  char hostname[guest::kMaxHostname + 1];
  char machine_id[guest::kMachineIdDigits + 1];
};
static_assert(sizeof(GuestPage) <= 4096);
constexpr char kMagic[8] = {'D', 'O', 'R', 'M', 'F', 'A', 'K', 'E'};

std::string RandomBootId() {
  std::array<unsigned char, 16> r{};
  (void)!::getrandom(r.data(), r.size(), 0);
  std::array<char, 40> text{};
  (void)std::snprintf(text.data(), text.size(),
                      "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0],
                      r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12],
                      r[13], r[14], r[15]);
  return text.data();
}

template <size_t kSize>
void Put(char (&field)[kSize], const std::string& text) {
  std::memset(field, 0, kSize);
  text.copy(field, kSize - 1);
}

// RAM comes from a file that a test may have spoilt: nothing in it is believed to end.
template <size_t kSize>
std::string Get(const char (&field)[kSize]) {
  return {field, ::strnlen(field, kSize)};
}

bool IsWhole(const GuestPage& page) {
  return std::memcmp(page.magic, kMagic, sizeof(kMagic)) == 0;
}

guest::ServerState ReadState(const GuestPage& page) {
  guest::ServerState state;
  state.configured = page.configured != 0;
  state.frozen = page.frozen != 0;
  state.workload.state = page.workload_state == 1   ? guest::WorkloadState::kRunning
                         : page.workload_state == 2 ? guest::WorkloadState::kExited
                                                    : guest::WorkloadState::kNone;
  state.workload.id = Get(page.workload_id);
  state.workload.exit = page.exit;
  state.workload.started_at_ms = page.started_at_ms;
  state.workload.finished_at_ms = page.finished_at_ms;
  return state;
}

}  // namespace

// The guest's kernel, as its agent sees it. Calls of the agent's thread wait while the guest is
// frozen.
class Guest::Agent : public guest::Machine {
 public:
  Agent(GuestPage* page, SerialPort* serial, std::function<void(GuestWish)> wish)
      : page_(page), serial_(serial), wish_(std::move(wish)) {}

  Result<void> SetHostname(const std::string& name) override {
    Put(page_->hostname, name);
    return {};
  }
  Result<void> SetWallTime(int64_t) override { return {}; }
  Result<void> AddEntropy(std::string_view) override { return {}; }
  Result<void> TakeIdentity(const guest::Identity& identity) override {
    Put(page_->machine_id, identity.machine_id);
    return SetHostname(identity.hostname);
  }
  void Remember(const guest::ServerState& state) override {
    if (page_->frozen != 0 && !state.frozen) ++page_->thawed;
    page_->configured = state.configured ? 1 : 0;
    page_->frozen = state.frozen ? 1 : 0;
    page_->workload_state = state.workload.state == guest::WorkloadState::kRunning  ? 1
                            : state.workload.state == guest::WorkloadState::kExited ? 2
                                                                                    : 0;
    Put(page_->workload_id, state.workload.id);
    page_->exit = state.workload.exit;
    page_->started_at_ms = state.workload.started_at_ms;
    page_->finished_at_ms = state.workload.finished_at_ms;
  }
  guest::ServerState Recall() override {
    return IsWhole(*page_) ? ReadState(*page_) : guest::ServerState{};
  }
  std::vector<std::string> Warnings() override {
    if (page_->thawed == 0) return {};
    return {"fake guest: thawed " + std::to_string(page_->thawed) + " times, hostname " +
            Get(page_->hostname) + ", machine-id " + Get(page_->machine_id)};
  }
  void PowerOff(bool reboot) override { wish_(reboot ? GuestWish::kReboot : GuestWish::kPoweroff); }
  std::string BootId() override {
    std::unique_lock lock(mutex_);
    while (frozen_) {
      stopped_ = true;
      changed_.notify_all();
      changed_.wait(lock);
    }
    stopped_ = false;
    return page_->boot_id;
  }
  uint64_t UptimeMs() override {
    return static_cast<uint64_t>(
        std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - started_)
            .count());
  }
  // Launched as a VMM is, it can become nobody else: the users of the tests' images are all itself.
  guest::IdentityFiles Users() override {
    if (::geteuid() == 0) return guest::Machine::Users();
    guest::IdentityFiles files;
    const std::string self =
        ":x:" + std::to_string(::geteuid()) + ":" + std::to_string(::getegid()) + "::/:/bin/sh\n";
    for (const char* name : {"0", "root", "user"}) files.passwd += name + self;
    return files;
  }
  void WriteConsole(std::string_view bytes) override {
    if (serial_ != nullptr) serial_->Write(bytes);
  }

  void SetFrozen(bool frozen) {
    const std::lock_guard lock(mutex_);
    frozen_ = frozen;
    changed_.notify_all();
  }
  // Until the agent's thread stands in BootId; a thread that is busy for so long is left alone.
  void AwaitStopped() {
    std::unique_lock lock(mutex_);
    (void)changed_.wait_for(lock, std::chrono::seconds(5), [this] { return stopped_; });
  }

 private:
  GuestPage* const page_;
  SerialPort* const serial_;
  const std::function<void(GuestWish)> wish_;
  const Instant started_ = std::chrono::steady_clock::now();
  std::mutex mutex_;
  std::condition_variable changed_;
  bool frozen_ = false;
  bool stopped_ = false;
};

Guest::Guest(Parts parts, bool booted) : parts_(std::move(parts)) {
  auto* page = reinterpret_cast<GuestPage*>(parts_.memory->first_page());
  if (booted) {
    *page = {};
    std::memcpy(page->magic, kMagic, sizeof(kMagic));
    const std::string boot_id = RandomBootId();
    std::memcpy(page->boot_id, boot_id.c_str(), boot_id.size() + 1);
    uint64_t word = 0;
    std::memcpy(&word, page->boot_id, sizeof(word));
    parts_.memory->Touch(parts_.knobs.touch_mib << 20, word);
  }
  // RAM without a guest in it: it would triple-fault.
  if (!IsWhole(*page)) parts_.knobs.reboot_ms = 0;

  machine_ = std::make_unique<Agent>(page, parts_.serial, parts_.wish);
  guest::ServerOptions options;
  options.agent_version = "fake";
  if (auto server = guest::Server::Create(UniqueFd(), *machine_, options))
    server_ = std::move(*server);
  wake_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (server_) server_thread_ = std::thread([this] { server_->Run(); });
  thread_ = std::thread([this] { Run(); });
}

Guest::~Guest() {
  machine_->SetFrozen(false);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  Wake();
  thread_.join();
  for (auto& [thread, fd] : hostile_) {
    (void)::shutdown(fd, SHUT_RDWR);
    thread.join();
    ::close(fd);
  }
  if (server_) {
    server_->Stop();
    server_thread_.join();
  }
}

void Guest::Wake() const {
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));
}

void Guest::Print(const std::string& line) const {
  if (parts_.serial != nullptr) parts_.serial->Write(line + "\r\n");
}

void Guest::Freeze() {
  {
    const std::lock_guard lock(mutex_);
    if (frozen_) return;
    frozen_ = true;
    ran_before_ += std::chrono::steady_clock::now() - ran_since_;
  }
  Wake();
  if (parts_.serial != nullptr) parts_.serial->Flood(false);
  if (!server_) return;
  machine_->SetFrozen(true);
  // The agent's loop has no stop of its own, so it is asked something whose answer waits for the
  // thaw.
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) != 0)
    return;
  UniqueFd ours(ends[0]);
  server_->Adopt(UniqueFd(ends[1]));
  const std::string frame = guest::EncodeFrame(guest::FrameType::kHealth, "{}");
  (void)!::send(ours.get(), frame.data(), frame.size(), MSG_NOSIGNAL);
  machine_->AwaitStopped();
}

void Guest::Thaw() {
  machine_->SetFrozen(false);
  if (parts_.serial != nullptr && parts_.knobs.serial_flood) parts_.serial->Flood(true);
  {
    const std::lock_guard lock(mutex_);
    if (!frozen_) return;
    frozen_ = false;
    ran_since_ = std::chrono::steady_clock::now();
  }
  Wake();
}

int Guest::Timeout(Instant now) const {
  if (frozen_) return -1;
  if (parts_.knobs.event_flood) return 1;
  const auto lived = ran_before_ + (now - ran_since_);
  int timeout = -1;
  const auto consider = [&](bool done, std::optional<uint64_t> at) {
    if (done || !at) return;
    const auto left = std::chrono::ceil<milliseconds>(milliseconds(*at) - lived).count();
    const int bounded = static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
    timeout = timeout < 0 ? bounded : std::min(timeout, bounded);
  };
  consider(announced_, parts_.knobs.boot_ms);
  consider(crashed_, parts_.knobs.crash_ms);
  consider(powered_off_, parts_.knobs.poweroff_ms);
  consider(rebooted_, parts_.knobs.reboot_ms);
  consider(panicked_, parts_.knobs.panic_ms);
  return timeout;
}

void Guest::RunTimers(Instant now) {
  const auto lived = ran_before_ + (now - ran_since_);
  const auto due = [&](bool* done, std::optional<uint64_t> at) {
    if (*done || !at || lived < milliseconds(*at)) return false;
    *done = true;
    return true;
  };
  if (due(&announced_, parts_.knobs.boot_ms)) {
    Print(parts_.knobs.hang ? "fake guest: init hangs" : "fake guest: agent is listening");
  }
  if (due(&crashed_, parts_.knobs.crash_ms)) ::raise(SIGKILL);
  if (due(&powered_off_, parts_.knobs.poweroff_ms)) parts_.wish(GuestWish::kPoweroff);
  if (due(&rebooted_, parts_.knobs.reboot_ms)) parts_.wish(GuestWish::kReboot);
  if (due(&panicked_, parts_.knobs.panic_ms)) {
    Print("Kernel panic - not syncing: fake");
    parts_.events->Tell("guest", "panic");
  }
  if (parts_.knobs.event_flood) {
    for (int i = 0; i < 50; ++i)
      parts_.events->TellDevice(i % 2 == 0 ? "reset" : "activated", "net0");
  }
}

void Guest::Run() {
  for (;;) {
    int timeout = -1;
    bool frozen = false;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      frozen = frozen_;
      const auto now = std::chrono::steady_clock::now();
      if (!frozen_) RunTimers(now);
      timeout = Timeout(std::chrono::steady_clock::now());
    }
    // Who dials a paused VM waits in the backlog, as for a guest whose vCPUs stand still.
    std::array<pollfd, 2> fds = {pollfd{wake_.get(), POLLIN, 0},
                                 pollfd{frozen ? -1 : parts_.vsock.get(), POLLIN, 0}};
    (void)::poll(fds.data(), fds.size(), timeout);
    uint64_t count = 0;
    if ((fds[0].revents & POLLIN) != 0) (void)!::read(wake_.get(), &count, sizeof(count));
    if ((fds[1].revents & POLLIN) == 0) continue;
    {
      const std::lock_guard lock(mutex_);
      if (frozen_ || stopping_) continue;
    }
    OnConnect();
  }
}

void Guest::OnConnect() {
  UniqueFd peer(::accept4(parts_.vsock.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!peer) return;
  const uint32_t port = fakes::ReadConnect(peer.get());
  const bool listening = announced_ && !parts_.knobs.hang && port == guest::kVsockPort;
  // Nobody listens: a guest's reset is, to the host, an end of stream without an OK.
  if (!listening) return;
  if (parts_.knobs.vsock == Hostility::kEndless) {
    BeHostile(std::move(peer));
    return;
  }
  if (!fakes::AnswerConnect(peer.get(), port)) return;
  auto* page = reinterpret_cast<GuestPage*>(parts_.memory->first_page());
  ++page->dialled;
  if (parts_.knobs.vsock != Hostility::kNone) {
    BeHostile(std::move(peer));
  } else if (server_) {
    server_->Adopt(std::move(peer));
  }
}

void Guest::BeHostile(UniqueFd peer) {
  const int fd = peer.Release();
  const Hostility how = parts_.knobs.vsock;
  hostile_.emplace_back(
      [fd, how] {
        std::string block;
        switch (how) {
          case Hostility::kEndless:
            block = std::string(4096, 'O');
            break;
          case Hostility::kGarbage:
            for (int i = 0; i < 4096; ++i) block += static_cast<char>(i * 37 + (i >> 5));
            break;
          case Hostility::kLengths:
            // A reply of 4 GiB, then what never ends.
            block = guest::EncodeFrame(guest::FrameType::kReply, "{}");
            block.replace(4, 4, "\xff\xff\xff\xff");
            block += std::string(4096, '{');
            break;
          case Hostility::kSilent:
          case Hostility::kNone:
            break;
        }
        std::array<char, 4096> heard;
        for (;;) {
          if (block.empty() ? ::read(fd, heard.data(), heard.size()) <= 0
                            : ::send(fd, block.data(), block.size(), MSG_NOSIGNAL) < 0) {
            return;
          }
        }
      },
      fd);
}

}  // namespace dormouse::fake_vmm
