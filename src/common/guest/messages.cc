#include "src/common/guest/messages.h"

#include <limits>
#include <nlohmann/json.hpp>

namespace dormouse::guest {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxArgs = 4096;
constexpr size_t kMaxListItems = 64;
constexpr size_t kMinEntropy = 16;
constexpr size_t kMaxEntropy = 512;
/// What a string may hold where nothing narrower is said; the frame is the outer bound.
constexpr size_t kMaxString = kMaxPayloadBytes;

/// Reads the fields of one object and keeps the first thing that was wrong.
class Reader {
 public:
  explicit Reader(std::string_view text) {
    json_ = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!json_.is_object()) Reject("payload is not a JSON object");
  }
  explicit Reader(const Json& json, std::string name) : json_(json), name_(std::move(name)) {
    if (!json_.is_object()) Reject("is not an object");
  }

  [[nodiscard]] const Json* Find(const char* key) const {
    if (!json_.is_object()) return nullptr;
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  std::string String(const char* key, size_t max, bool required = false) {
    const Json* field = Find(key);
    if (field == nullptr) {
      if (required) Reject(std::string(key) + " is missing");
      return {};
    }
    return Text(*field, key, max);
  }

  uint64_t Unsigned(const char* key, uint64_t max, uint64_t otherwise) {
    const Json* field = Find(key);
    if (field == nullptr) return otherwise;
    if (!field->is_number_unsigned() || field->get<uint64_t>() > max) {
      Reject(std::string(key) + " is not a number from 0 to " + std::to_string(max));
      return otherwise;
    }
    return field->get<uint64_t>();
  }

  int64_t Signed(const char* key) {
    const Json* field = Find(key);
    if (field == nullptr) return 0;
    if (!field->is_number_integer() ||
        (field->is_number_unsigned() &&
         field->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()})) {
      Reject(std::string(key) + " is not a whole number");
      return 0;
    }
    return field->get<int64_t>();
  }

  bool Bool(const char* key, bool otherwise) {
    const Json* field = Find(key);
    if (field == nullptr) return otherwise;
    if (!field->is_boolean()) {
      Reject(std::string(key) + " is neither true nor false");
      return otherwise;
    }
    return field->get<bool>();
  }

  std::vector<std::string> Strings(const char* key, size_t max_items, size_t max_length) {
    std::vector<std::string> out;
    const Json* field = Find(key);
    if (field == nullptr) return out;
    if (!field->is_array() || field->size() > max_items) {
      Reject(std::string(key) + " is not a list of at most " + std::to_string(max_items));
      return out;
    }
    out.reserve(field->size());
    for (const Json& item : *field) out.push_back(Text(item, key, max_length));
    return out;
  }

  /// A list of [name, value] pairs: an order that later values can win by.
  std::vector<EnvVar> Env(const char* key) {
    std::vector<EnvVar> out;
    const Json* field = Find(key);
    if (field == nullptr) return out;
    if (!field->is_array() || field->size() > kMaxArgs) {
      Reject(std::string(key) + " is not a list of at most " + std::to_string(kMaxArgs));
      return out;
    }
    for (const Json& item : *field) {
      if (!item.is_array() || item.size() != 2) {
        Reject(std::string(key) + " holds something that is not [name, value]");
        return out;
      }
      std::string name = Text(item[0], key, kMaxString);
      if (name.empty() || name.find('=') != std::string::npos) {
        Reject(std::string(key) + " holds a name that is empty or has a '='");
        return out;
      }
      out.emplace_back(std::move(name), Text(item[1], key, kMaxString));
    }
    return out;
  }

  void Reject(std::string why) {
    if (!error_) error_ = Error(ErrorCode::kInvalid, name_.empty() ? why : name_ + ": " + why);
  }
  void Absorb(const Reader& other) {
    if (other.error_ && !error_) error_ = other.error_;
  }

  template <typename T>
  [[nodiscard]] Result<T> Finish(T value) const {
    if (error_) return Fail(*error_);
    return value;
  }

 private:
  /// NUL would end the string early wherever it reaches the kernel.
  std::string Text(const Json& field, const char* key, size_t max) {
    const auto* text = field.get_ptr<const std::string*>();
    if (text == nullptr || text->size() > max || text->find('\0') != std::string::npos) {
      Reject(std::string(key) + " is not a string of at most " + std::to_string(max) + " bytes");
      return {};
    }
    return *text;
  }

  Json json_;
  std::string name_;
  std::optional<Error> error_;
};

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// For payloads whose size our own caps bound.
std::string Framed(FrameType type, const Json& json) {
  return EncodeFrame(type, Dump(json));
}

Result<std::string> FramedIfFits(FrameType type, const Json& json, std::string_view what) {
  std::string text = Dump(json);
  if (text.size() > kMaxPayloadBytes) {
    return Fail(ErrorCode::kInvalid,
                std::string(what) + " of " + std::to_string(text.size()) +
                    " bytes: arguments and environment together must stay below " +
                    std::to_string(kMaxPayloadBytes));
  }
  return EncodeFrame(type, text);
}

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

std::string HexEncode(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char c : bytes) {
    out.push_back(kDigits[static_cast<uint8_t>(c) >> 4]);
    out.push_back(kDigits[static_cast<uint8_t>(c) & 15]);
  }
  return out;
}

std::optional<std::string> HexDecode(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  if (text.size() % 2 != 0) return std::nullopt;
  std::string out;
  for (size_t at = 0; at < text.size(); at += 2) {
    const int high = digit(text[at]);
    const int low = digit(text[at + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<char>(high << 4 | low));
  }
  return out;
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
               {"entropy", HexEncode(request.entropy)}};
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
  const auto entropy = HexDecode(reader.String("entropy", 2 * kMaxEntropy));
  if (!entropy || (!entropy->empty() && entropy->size() < kMinEntropy)) {
    reader.Reject("entropy is not 16 to 512 bytes in lower-case hexadecimal");
  } else {
    request.entropy = *entropy;
  }
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
  request.grace_ms = static_cast<uint32_t>(reader.Unsigned("graceMs", kMaxWaitMs, 2'000));
  return reader.Finish(request);
}

std::string EncodeReply(const HealthReply& reply) {
  return Framed(FrameType::kReply, {{"agentVersion", reply.agent_version},
                                    {"bootId", reply.boot_id},
                                    {"uptimeMs", reply.uptime_ms},
                                    {"configured", reply.configured},
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
