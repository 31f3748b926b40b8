#include "src/common/guest/messages.h"

#include <nlohmann/json.hpp>

#include "src/common/guest/json_reader.h"

namespace dormouse::guest {
namespace {

using Json = nlohmann::json;

Json EnvJson(const std::vector<EnvVar>& env) {
  Json list = Json::array();
  for (const auto& [name, value] : env) list.push_back(Json::array({name, value}));
  return list;
}

Json ProcessJson(const ProcessSpec& process) {
  return {{"argv", process.argv},
          {"env", EnvJson(process.env)},
          {"workingDir", process.working_dir},
          {"user", process.user}};
}

ProcessSpec ReadProcess(Reader& outer) {
  const Json* field = outer.Find("process");
  if (field == nullptr) {
    outer.Reject("process is missing");
    return {};
  }
  Reader reader(*field, "process");
  ProcessSpec process;
  process.argv = reader.Strings("argv", kMaxArgs, kMaxString);
  if (process.argv.empty() || process.argv.front().empty()) reader.Reject("argv is empty");
  process.env = reader.Env("env");
  process.working_dir = reader.String("workingDir", 4096);
  process.user = reader.String("user", 256);
  outer.Absorb(reader);
  return process;
}

constexpr std::pair<WorkloadState, const char*> kStates[] = {
    {WorkloadState::kNone, "none"},
    {WorkloadState::kRunning, "running"},
    {WorkloadState::kExited, "exited"},
};

Json StatusJson(const WorkloadStatus& status) {
  Json json = {{"id", status.id},
               {"startedAtMs", status.started_at_ms},
               {"finishedAtMs", status.finished_at_ms}};
  for (const auto& [state, name] : kStates) {
    if (state == status.state) json["state"] = name;
  }
  if (status.state == WorkloadState::kExited) {
    json["exitCode"] = status.exit.code;
    json["signal"] = status.exit.signal;
  }
  if (!status.detail.empty()) json["detail"] = status.detail.substr(0, kMaxErrorText);
  return json;
}

WorkloadStatus ReadStatus(Reader& reader) {
  WorkloadStatus status;
  const std::string state = reader.String("state", 16, true);
  bool known = false;
  for (const auto& [value, name] : kStates) {
    if (state != name) continue;
    status.state = value;
    known = true;
  }
  if (!known) reader.Reject("state is none of none, running, exited");
  status.id = reader.String("id", kMaxId);
  status.exit.code = static_cast<uint32_t>(reader.Unsigned("exitCode", 255, 0));
  status.exit.signal = static_cast<uint32_t>(reader.Unsigned("signal", 127, 0));
  status.started_at_ms = reader.Signed("startedAtMs");
  status.finished_at_ms = reader.Signed("finishedAtMs");
  status.detail = reader.String("detail", 4 * kMaxErrorText).substr(0, kMaxErrorText);
  return status;
}

}  // namespace

std::string EncodeHealthRequest() {
  return EncodeFrame(FrameType::kHealth, "{}");
}

Result<std::string> Encode(const ConfigureRequest& request) {
  Json json = {{"env", EnvJson(request.env)},
               {"workingDir", request.working_dir},
               {"user", request.user},
               {"entropy", HexEncode(request.entropy)},
               {"machineId", request.machine_id},
               {"freshDisk", request.fresh_disk},
               {"resolvers", request.resolvers},
               {"nameservers", request.dns.nameservers},
               {"searches", request.dns.searches},
               {"dnsOptions", request.dns.options}};
  if (request.hostname) json["hostname"] = *request.hostname;
  if (request.wall_time_ns) json["wallTimeNs"] = *request.wall_time_ns;
  return FramedIfFits(FrameType::kConfigure, json, "configure request");
}

Result<ConfigureRequest> ParseConfigure(std::string_view json) {
  Reader reader(json);
  ConfigureRequest request;
  if (reader.Find("hostname") != nullptr) {
    request.hostname = reader.String("hostname", kMaxHostname);
    if (request.hostname->empty()) reader.Reject("hostname is empty");
  }
  if (reader.Find("wallTimeNs") != nullptr) {
    request.wall_time_ns = reader.Signed("wallTimeNs");
    if (*request.wall_time_ns < 0) reader.Reject("wallTimeNs is before 1970");
  }
  request.entropy = reader.Entropy("entropy");
  request.machine_id = reader.String("machineId", kMachineIdDigits);
  if (!request.machine_id.empty() && !IsMachineId(request.machine_id))
    reader.Reject("machineId is not 32 hexadecimal digits");
  request.fresh_disk = reader.Bool("freshDisk", false);
  request.resolvers = reader.Strings("resolvers", kMaxListItems, kMaxDnsWord);
  request.dns.nameservers = reader.Strings("nameservers", kMaxListItems, kMaxDnsWord);
  request.dns.searches = reader.Strings("searches", kMaxListItems, kMaxDnsWord);
  request.dns.options = reader.Strings("dnsOptions", kMaxListItems, kMaxDnsWord);
  request.env = reader.Env("env");
  request.working_dir = reader.String("workingDir", 4096);
  request.user = reader.String("user", 256);
  return reader.Finish(std::move(request));
}

Result<std::string> Encode(const StartWorkloadRequest& request) {
  return FramedIfFits(
      FrameType::kStartWorkload,
      {{"id", request.id}, {"process", ProcessJson(request.process)}, {"console", request.console}},
      "workload");
}

Result<StartWorkloadRequest> ParseStartWorkload(std::string_view json) {
  Reader reader(json);
  StartWorkloadRequest request;
  request.id = reader.String("id", kMaxId, true);
  request.process = ReadProcess(reader);
  request.console = reader.Bool("console", false);
  return reader.Finish(std::move(request));
}

Result<std::string> Encode(const ExecRequest& request) {
  return FramedIfFits(FrameType::kExec,
                      {{"process", ProcessJson(request.process)},
                       {"tty", request.tty},
                       {"stdin", request.stdin_open},
                       {"rows", request.size.rows},
                       {"columns", request.size.columns}},
                      "command");
}

Result<ExecRequest> ParseExec(std::string_view json) {
  Reader reader(json);
  ExecRequest request;
  request.process = ReadProcess(reader);
  request.tty = reader.Bool("tty", false);
  request.stdin_open = reader.Bool("stdin", false);
  request.size.rows = static_cast<uint16_t>(reader.Unsigned("rows", 65535, 24));
  request.size.columns = static_cast<uint16_t>(reader.Unsigned("columns", 65535, 80));
  return reader.Finish(std::move(request));
}

std::string Encode(const WorkloadStatusRequest& request) {
  return Framed(FrameType::kWorkloadStatus, {{"waitMs", request.wait_ms}});
}

Result<WorkloadStatusRequest> ParseWorkloadStatusRequest(std::string_view json) {
  Reader reader(json);
  WorkloadStatusRequest request;
  request.wait_ms = static_cast<uint32_t>(reader.Unsigned("waitMs", kMaxWaitMs, 0));
  return reader.Finish(request);
}

std::string Encode(const StopWorkloadRequest& request) {
  return Framed(FrameType::kStopWorkload, {{"graceMs", request.grace_ms}});
}

Result<StopWorkloadRequest> ParseStopWorkload(std::string_view json) {
  Reader reader(json);
  StopWorkloadRequest request;
  request.grace_ms = static_cast<uint32_t>(reader.Unsigned("graceMs", kMaxWaitMs, 10'000));
  return reader.Finish(request);
}

std::string Encode(const LogsRequest& request) {
  return Framed(FrameType::kLogs, {{"tailBytes", request.tail_bytes}, {"follow", request.follow}});
}

Result<LogsRequest> ParseLogs(std::string_view json) {
  Reader reader(json);
  LogsRequest request;
  request.tail_bytes = reader.Unsigned("tailBytes", UINT64_MAX, UINT64_MAX);
  request.follow = reader.Bool("follow", false);
  return reader.Finish(request);
}

std::string Encode(const PowerOffRequest& request) {
  return Framed(FrameType::kPowerOff, {{"reboot", request.reboot}, {"graceMs", request.grace_ms}});
}

Result<PowerOffRequest> ParsePowerOff(std::string_view json) {
  Reader reader(json);
  PowerOffRequest request;
  request.reboot = reader.Bool("reboot", false);
  request.grace_ms = static_cast<uint32_t>(reader.Unsigned("graceMs", kMaxGraceMs, 2'000));
  return reader.Finish(request);
}

std::string EncodeReply(const HealthReply& reply) {
  return Framed(FrameType::kReply, {{"agentVersion", reply.agent_version},
                                    {"bootId", reply.boot_id},
                                    {"uptimeMs", reply.uptime_ms},
                                    {"configured", reply.configured},
                                    {"frozen", reply.frozen},
                                    {"features", reply.features},
                                    {"warnings", reply.warnings},
                                    {"workload", StatusJson(reply.workload)}});
}

Result<HealthReply> ParseHealthReply(std::string_view json) {
  Reader reader(json);
  HealthReply reply;
  reply.agent_version = reader.String("agentVersion", 64, true);
  reply.boot_id = reader.String("bootId", 64, true);
  reply.uptime_ms = reader.Unsigned("uptimeMs", UINT64_MAX, 0);
  reply.configured = reader.Bool("configured", false);
  reply.frozen = reader.Bool("frozen", false);
  reply.features = reader.Strings("features", kMaxListItems, 64);
  reply.warnings = reader.Strings("warnings", kMaxListItems, kMaxErrorText);
  const Json* workload = reader.Find("workload");
  Reader inner(workload != nullptr ? *workload : Json(), "workload");
  reply.workload = ReadStatus(inner);
  reader.Absorb(inner);
  return reader.Finish(std::move(reply));
}

std::string EncodeReply(const WorkloadStatus& reply) {
  return Framed(FrameType::kReply, StatusJson(reply));
}

Result<WorkloadStatus> ParseWorkloadStatus(std::string_view json) {
  Reader reader(json);
  WorkloadStatus status = ReadStatus(reader);
  return reader.Finish(std::move(status));
}

std::string EncodeEmptyReply() {
  return EncodeFrame(FrameType::kReply, "{}");
}

std::string EncodeError(const Error& error) {
  return Framed(FrameType::kError, {{"code", ErrorCodeName(error.code())},
                                    {"message", error.message().substr(0, kMaxErrorText)}});
}

Error ParseError(std::string_view json) {
  Reader reader(json);
  const std::string name = reader.String("code", 32, true);
  const std::string message = reader.String("message", 4 * kMaxErrorText);
  if (const auto whole = reader.Finish(true); !whole) {
    return {ErrorCode::kCorrupt, "error answer that cannot be read: " + whole.error().message()};
  }
  ErrorCode code = ErrorCode::kInternal;
  // A guest must not make us call its data corrupt (quarantine) or cancel what we do.
  for (const ErrorCode known :
       {ErrorCode::kUnavailable, ErrorCode::kDeadline, ErrorCode::kConflict, ErrorCode::kNotFound,
        ErrorCode::kAlreadyExists, ErrorCode::kBusy, ErrorCode::kNoSpace, ErrorCode::kInvalid,
        ErrorCode::kPermission, ErrorCode::kUnsupported}) {
    if (ErrorCodeName(known) == name) code = known;
  }
  return {code, message.substr(0, kMaxErrorText)};
}

}  // namespace dormouse::guest
