#include "node-agent/vmm/api_client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "node-agent/vmm/api_error.h"
#include "src/common/base/files.h"
#include "src/common/base/json_text.h"
#include "src/common/base/unique_fd.h"
#include "src/common/http/unix_client.h"

namespace dormouse::vmm {
namespace {

using nlohmann::json;

constexpr const char* kGet = "GET";
constexpr const char* kPut = "PUT";
constexpr int kKnockMs = 2;

std::string FileUrl(const std::string& directory) {
  return "file://" + directory;
}

tl::unexpected<Error> NotAsPromised(std::string_view call) {
  return Fail(ErrorCode::kCorrupt, std::string(call) + ": the answer is not what v53.0's API says");
}

const json* Member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

// Whether the config still has what ToJson puts into each.
bool IsWhole(const std::string& config_json) {
  const json config = json::parse(config_json, nullptr, false);
  for (const char* key : {"disks", "net", "vsock"}) {
    if (Member(config, key) == nullptr) return false;
  }
  return true;
}

}  // namespace

std::string_view VmStateName(VmState state) {
  switch (state) {
    case VmState::kCreated:
      return "Created";
    case VmState::kRunning:
      return "Running";
    case VmState::kShutdown:
      return "Shutdown";
    case VmState::kPaused:
      return "Paused";
    case VmState::kBreakPoint:
      return "BreakPoint";
  }
  return "?";
}

Result<PingReply> ParsePing(std::string_view body) {
  const json reply = json::parse(body, nullptr, false);
  const json* build = Member(reply, "build_version");
  const json* version = Member(reply, "version");
  const json* pid = Member(reply, "pid");
  if (build == nullptr || version == nullptr || !build->is_string() || !version->is_string()) {
    return NotAsPromised("vmm.ping");
  }
  PingReply ping;
  DORMOUSE_ASSIGN(ping.version, VersionFromPing(build->get_ref<const std::string&>(),
                                                version->get_ref<const std::string&>()));
  if (pid != nullptr && pid->is_number_unsigned()) ping.pid = pid->get<int64_t>();
  return ping;
}

Result<VmInfo> ParseVmInfo(std::string_view body) {
  const json reply = json::parse(body, nullptr, false);
  const json* config = Member(reply, "config");
  const json* state = Member(reply, "state");
  const json* memory = Member(reply, "memory_actual_size");
  if (config == nullptr || !config->is_object() || state == nullptr || !state->is_string()) {
    return NotAsPromised("vm.info");
  }
  VmInfo info;
  const auto& name = state->get_ref<const std::string&>();
  bool known = false;
  for (const VmState candidate : {VmState::kCreated, VmState::kRunning, VmState::kShutdown,
                                  VmState::kPaused, VmState::kBreakPoint}) {
    if (name == VmStateName(candidate)) {
      info.state = candidate;
      known = true;
    }
  }
  if (!known) return NotAsPromised("vm.info");
  if (memory != nullptr && memory->is_number_unsigned())
    info.memory_actual_bytes = memory->get<uint64_t>();
  info.config_json = JsonText(*config);
  return info;
}

ApiClient::ApiClient(host::VmmSocket socket, ApiTimeouts timeouts)
    : socket_(std::move(socket)), timeouts_(timeouts) {}

Result<ApiClient::Reply> ApiClient::Exchange(const char* method, const char* endpoint,
                                             const std::string& body,
                                             std::chrono::milliseconds timeout) const {
  // Not there (yet, or any more) is kUnavailable: a VMM that does not answer, never "no VM".
  auto client = host::ConnectVmm(socket_, timeout).and_then([](UniqueFd connected) {
    return http::UnixClient::Adopt(std::move(connected));
  });
  if (!client) return Fail(client.error().Wrap(endpoint));
  auto response = client->Request(method, std::string("/api/v1/") + endpoint, body, timeout);
  if (!response) {
    // Not HTTP, but perhaps the 503 of the eleventh connection, whose status line lacks a space
    // (micro_http of v53.0: VmmParityTest.TheEleventhConnectionIsTurnedAway): worth another try.
    const Error error = response.error().Wrap(endpoint);
    return Fail(error.code() == ErrorCode::kCorrupt ? error.WithCode(ErrorCode::kUnavailable)
                                                    : error);
  }
  return Reply{response->status, std::move(response->body)};
}

Result<std::string> ApiClient::Call(const char* method, const char* endpoint,
                                    const std::string& body,
                                    std::chrono::milliseconds timeout) const {
  DORMOUSE_ASSIGN(Reply reply, Exchange(method, endpoint, body, timeout));
  if (reply.status == 200 || reply.status == 204) return std::move(reply.body);
  return Fail(ErrorFromResponse(endpoint, reply.status, reply.body));
}

Result<PingReply> ApiClient::AwaitReady(std::chrono::milliseconds limit, int pidfd) const {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  // The directory tells when the socket is made: to knock all the time would take from the VMM's
  // start what it waits for. Where it cannot be watched, there is knocking.
  const UniqueFd made(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  const std::string directory = socket_.path.substr(0, socket_.path.rfind('/'));
  const bool told = made && ::inotify_add_watch(made.get(), directory.c_str(), IN_CREATE) >= 0;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      return Fail(ErrorCode::kDeadline,
                  "vmm.ping: no answer within " + std::to_string(limit.count()) + " ms");
    }
    auto reply = Call(kGet, "vmm.ping", "", left);
    if (reply) return ParsePing(*reply);
    if (reply.error().code() != ErrorCode::kUnavailable) return Fail(reply.error());
    // A negative fd is ignored. Between its making and its listening there is a moment to knock in.
    const bool absent = told && !PathExists(socket_.path);
    pollfd both[] = {{pidfd, POLLIN, 0}, {absent ? made.get() : -1, POLLIN, 0}};
    (void)::poll(both, 2, absent ? static_cast<int>(left.count()) : kKnockMs);
    if (both[0].revents != 0) {
      return Fail(ErrorCode::kUnavailable, "vmm.ping: the VMM exited before it answered");
    }
    char events[4096];
    while (both[1].revents != 0 && ::read(made.get(), events, sizeof(events)) > 0) {
    }
  }
}

Result<PingReply> ApiClient::Ping() const {
  DORMOUSE_ASSIGN(const std::string body, Call(kGet, "vmm.ping", "", timeouts_.query));
  return ParsePing(body);
}

Result<> ApiClient::Create(const VmConfig& config) const {
  DORMOUSE_ASSIGN(const std::string body, ToJson(config));
  DORMOUSE_ASSIGN(const Reply reply, Exchange(kPut, "vm.create", body, timeouts_.change));
  if (reply.status == 204) return {};
  const std::vector<std::string> chain = ParseErrorChain(reply.body);
  const bool was_there = !chain.empty() && chain.back() == "VM is already created";
  if (!was_there) (void)Delete();
  return Fail(ErrorFromResponse("vm.create", reply.status, reply.body));
}

Result<> ApiClient::Boot() const {
  DORMOUSE_ASSIGN(const VmInfo before, Info());
  if (before.state == VmState::kCreated && !IsWhole(before.config_json)) {
    DORMOUSE_TRY(Delete());
    return Fail(ErrorCode::kUnavailable,
                "vm.boot: an earlier boot failed and lost a device of the config");
  }
  DORMOUSE_ASSIGN(const Reply reply, Exchange(kPut, "vm.boot", "", timeouts_.boot));
  if (reply.status == 204) return {};
  // DeviceManager takes disks, net and vsock out of the config while it opens them, and what fails
  // is not put back (device_manager.rs, v53.0:
  // VmmParityTest.ADiskThatIsNotThereIsNamedAndAFailedBootLosesIt).
  if (before.state == VmState::kCreated) (void)Delete();
  return Fail(ErrorFromResponse("vm.boot", reply.status, reply.body));
}

Result<> ApiClient::Pause() const {
  DORMOUSE_TRY(Call(kPut, "vm.pause", "", timeouts_.pause));
  return {};
}

Result<> ApiClient::Resume() const {
  DORMOUSE_TRY(Call(kPut, "vm.resume", "", timeouts_.change));
  return {};
}

Result<> ApiClient::Delete() const {
  DORMOUSE_TRY(Call(kPut, "vm.delete", "", timeouts_.change));
  return {};
}

Result<VmInfo> ApiClient::Info() const {
  DORMOUSE_ASSIGN(const std::string body, Call(kGet, "vm.info", "", timeouts_.query));
  return ParseVmInfo(body);
}

Result<> ApiClient::Snapshot(const std::string& directory) const {
  const json body = {{"destination_url", FileUrl(directory)}};
  DORMOUSE_TRY(Call(kPut, "vm.snapshot", JsonText(body), timeouts_.snapshot));
  return {};
}

Result<> ApiClient::SnapshotStateOnly(const std::string& directory,
                                      const host::Directory& host_directory) const {
  DORMOUSE_TRY(host::MakeBeneath(host_directory, "memory-ranges", "", 0600, ::geteuid()));
  const json body = {{"destination_url", FileUrl(directory)}};
  DORMOUSE_ASSIGN(const Reply reply,
                  Exchange(kPut, "vm.snapshot", JsonText(body), timeouts_.snapshot));
  // Vm::send (vmm/src/vm.rs, v53.0) writes config.json, state.json, then asks the memory manager,
  // which makes its file with create_new. ApiParityTest.StateOnlySnapshotStopsAtTheMemoryFile.
  const std::vector<std::string> chain = ParseErrorChain(reply.body);
  const bool as_expected =
      reply.status == 500 && chain.size() >= 2 && chain.back() == "File exists (os error 17)" &&
      chain[chain.size() - 2].starts_with("Error creating memory snapshot file");
  if (as_expected) return {};
  if (reply.status < 300)
    return Fail(ErrorCode::kUnsupported,
                "vm.snapshot: memory was written over a file that was there");
  Error refused = ErrorFromResponse("vm.snapshot", reply.status, reply.body);
  // A whole snapshot would need the same room, and RAM's size more.
  if (refused.code() != ErrorCode::kNoSpace) refused = refused.WithCode(ErrorCode::kUnsupported);
  return Fail(std::move(refused));
}

Result<> ApiClient::Restore(const RestoreRequest& request) const {
  const json body = {{"source_url", FileUrl(request.source_directory)},
                     {"memory_restore_mode", "Copy"},
                     {"resume", request.resume}};
  DORMOUSE_TRY(Call(kPut, "vm.restore", JsonText(body), timeouts_.restore));
  return {};
}

}  // namespace dormouse::vmm
