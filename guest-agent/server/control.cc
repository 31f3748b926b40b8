#include "guest-agent/server/control.h"

#include <sys/stat.h>

#include "guest-agent/server/exec_session.h"
#include "guest-agent/server/log_session.h"
#include "guest-agent/server/power_off.h"

namespace dormouse::guest {
namespace {
constexpr size_t kMaxWarnings = 64;  // what the host reads (messages.cc)

Result<void> CheckDirectory(const std::string& path) {
  struct stat info {};
  if (path.empty() || (::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode))) return {};
  return Fail(ErrorCode::kInvalid, "workingDir: " + path + " is no directory of this machine");
}

}  // namespace

ControlHandler::~ControlHandler() {
  context_.loop.Cancel(timer_);
  context_.workload.Forget(observer_);
  context_.freezer.Forget(freeze_waiter_);
  context_.thawer.Forget(thaw_waiter_);
}

Result<void> ControlHandler::OnFrame(const Frame& frame) {
  if (waiting_) return Fail(ErrorCode::kInvalid, "a request before the answer to the one before");
  if (frame.flags != 0) return Fail(ErrorCode::kInvalid, "a request with flags");
  connection_.SetIdleLimit(context_.options.idle_limit);
  Result<void> handled;
  switch (frame.type) {
    case FrameType::kHealth:
      handled = Health();
      break;
    case FrameType::kConfigure:
      handled = Configure(frame.payload);
      break;
    case FrameType::kStartWorkload:
      handled = StartWorkload(frame.payload);
      break;
    case FrameType::kWorkloadStatus:
      handled = WorkloadStatus(frame.payload);
      break;
    case FrameType::kStopWorkload:
      handled = StopWorkload(frame.payload);
      break;
    case FrameType::kExec:
      handled = Exec(frame.payload);
      break;
    case FrameType::kLogs:
      handled = Logs(frame.payload);
      break;
    case FrameType::kPowerOff:
      handled = PowerOff(frame.payload);
      break;
    case FrameType::kFreeze:
      handled = Freeze(frame.payload);
      break;
    case FrameType::kThaw:
      handled = Thaw(frame.payload);
      break;
    default:
      handled = Fail(ErrorCode::kUnsupported,
                     "request " + std::to_string(static_cast<int>(frame.type)) + " is not known");
  }
  // A request that failed is answered, and the connection may go on; only broken frames end it.
  if (!handled) connection_.Send(EncodeError(handled.error()));
  return {};
}

Result<void> ControlHandler::Health() {
  HealthReply reply;
  reply.agent_version = context_.options.agent_version;
  reply.boot_id = context_.machine.BootId();
  reply.uptime_ms = context_.machine.UptimeMs();
  reply.configured = context_.configured;
  reply.frozen = context_.freezer.holding();
  reply.features = {"freeze"};
  reply.warnings = context_.machine.Warnings();
  for (const std::string& note : context_.thawer.notes()) {
    if (reply.warnings.size() < kMaxWarnings) reply.warnings.push_back(note);
  }
  reply.workload = context_.workload.status();
  connection_.Send(EncodeReply(reply));
  return {};
}

Result<void> ControlHandler::Configure(std::string_view json) {
  DORMOUSE_ASSIGN(ConfigureRequest request, ParseConfigure(json));
  if (request.wall_time_ns) DORMOUSE_TRY(context_.machine.SetWallTime(*request.wall_time_ns));
  if (!request.entropy.empty()) DORMOUSE_TRY(context_.machine.AddEntropy(request.entropy));
  if (request.hostname) DORMOUSE_TRY(context_.machine.SetHostname(*request.hostname));
  if (!request.machine_id.empty()) DORMOUSE_TRY(context_.machine.SetMachineId(request.machine_id));
  if (request.fresh_disk) DORMOUSE_TRY(context_.machine.RemoveHostKeys());
  DORMOUSE_TRY(context_.machine.SetDns(request.dns, request.resolvers));
  // The disk must have user and directory: said now, not at the first exec.
  if (const auto user = ResolveUser(request.user, context_.machine.Users()); !user)
    return Fail(user.error().Wrap("user").WithCode(ErrorCode::kInvalid));
  DORMOUSE_TRY(CheckDirectory(request.working_dir));
  request.entropy.clear();
  context_.defaults = std::move(request);
  context_.configured = true;
  context_.changed();
  connection_.Send(EncodeEmptyReply());
  return {};
}

Result<void> ControlHandler::StartWorkload(std::string_view json) {
  DORMOUSE_ASSIGN(const StartWorkloadRequest request, ParseStartWorkload(json));
  DORMOUSE_TRY(MayStart());
  DORMOUSE_TRY(context_.workload.Start(request, context_.defaults));
  AnswerNow();
  return {};
}

Result<void> ControlHandler::WorkloadStatus(std::string_view json) {
  DORMOUSE_ASSIGN(const WorkloadStatusRequest request, ParseWorkloadStatusRequest(json));
  if (request.wait_ms == 0) {
    AnswerNow();
  } else {
    AnswerAtEnd(std::chrono::milliseconds(request.wait_ms));
  }
  return {};
}

Result<void> ControlHandler::StopWorkload(std::string_view json) {
  DORMOUSE_ASSIGN(const StopWorkloadRequest request, ParseStopWorkload(json));
  const std::chrono::milliseconds grace(request.grace_ms);
  context_.workload.Stop(grace);
  AnswerAtEnd(grace + kKillMargin);
  return {};
}

Result<void> ControlHandler::Exec(std::string_view json) {
  DORMOUSE_ASSIGN(const ExecRequest request, ParseExec(json));
  DORMOUSE_TRY(MayStart());
  DORMOUSE_ASSIGN(auto session, ExecSession::Start(context_, connection_, request));
  connection_.SetIdleLimit(std::chrono::milliseconds(0));
  connection_.Send(EncodeEmptyReply());
  connection_.SwitchTo(std::move(session));
  return {};
}

Result<void> ControlHandler::Logs(std::string_view json) {
  DORMOUSE_ASSIGN(const LogsRequest request, ParseLogs(json));
  auto session = std::make_unique<LogSession>(context_, connection_, request);
  connection_.SetIdleLimit(std::chrono::milliseconds(0));
  connection_.Send(EncodeEmptyReply());
  LogSession& started = *session;
  connection_.SwitchTo(std::move(session));
  started.Pump();
  return {};
}

Result<void> ControlHandler::PowerOff(std::string_view json) {
  DORMOUSE_ASSIGN(const PowerOffRequest request, ParsePowerOff(json));
  connection_.Send(EncodeEmptyReply());
  PowerOffMachine(context_, std::chrono::milliseconds(request.grace_ms), request.reboot);
  return {};
}

Result<void> ControlHandler::Freeze(std::string_view json) {
  DORMOUSE_ASSIGN(const FreezeRequest request, ParseFreeze(json));
  Defer();
  freeze_waiter_ = context_.freezer.Freeze(std::chrono::milliseconds(request.limit_ms),
                                           [this](FreezeReply reply) {
                                             reply.agent_version = context_.options.agent_version;
                                             Answer(EncodeReply(reply));
                                           });
  return {};
}

Result<void> ControlHandler::Thaw(std::string_view json) {
  DORMOUSE_ASSIGN(const ThawRequest request, ParseThaw(json));
  Defer();
  thaw_waiter_ = context_.thawer.Thaw(request, [this](const Result<void>& thawed) {
    Answer(thawed ? EncodeEmptyReply() : EncodeError(thawed.error()));
  });
  return {};
}

Result<void> ControlHandler::MayStart() const {
  if (!context_.freezer.holding()) return {};
  return Fail(ErrorCode::kUnavailable, "frozen: nothing is started before the thaw");
}

void ControlHandler::AnswerAtEnd(std::chrono::milliseconds limit) {
  if (context_.workload.status().state != WorkloadState::kRunning) {
    AnswerNow();
    return;
  }
  Defer();
  observer_ = context_.workload.Observe([this] {
    if (context_.workload.status().state != WorkloadState::kRunning) AnswerNow();
  });
  timer_ = context_.loop.After(limit, [this] {
    timer_ = 0;
    AnswerNow();
  });
}

void ControlHandler::AnswerNow() {
  context_.workload.Forget(observer_);
  context_.loop.Cancel(timer_);
  observer_ = 0;
  timer_ = 0;
  Answer(EncodeReply(context_.workload.status()));
}

void ControlHandler::Defer() {
  waiting_ = true;
  connection_.SetIdleLimit(std::chrono::milliseconds(0));
}

void ControlHandler::Answer(std::string_view frame) {
  waiting_ = false;
  connection_.SetIdleLimit(context_.options.idle_limit);
  connection_.Send(frame);
}

}  // namespace dormouse::guest
