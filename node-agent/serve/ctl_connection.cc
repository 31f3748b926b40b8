#include "node-agent/serve/ctl_connection.h"

#include <algorithm>

#include "node-agent/guest/guest_client.h"
#include "node-agent/serve/console_file.h"
#include "node-agent/serve/ctl_json.h"
#include "node-agent/serve/ctl_protocol.h"
#include "node-agent/serve/relay.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

using guest::FrameType;

constexpr size_t kNamesInError = 20;
constexpr uint64_t kMostTailLines = 1000;
constexpr size_t kMostLogBytes = 1 << 20;
constexpr uint32_t kNotFoundExit = 127;  // what a shell answers for a command that is not there
constexpr uint32_t kNotRunnableExit = 126;

class Connection {
 public:
  Connection(const CtlContext& context, StreamSocket& client, std::atomic<bool>& asked)
      : context_(context), client_(client), asked_(asked) {}

  Result<> Run() {
    DORMOUSE_ASSIGN(const std::string line,
                    client_.ReadLine(kMaxRequestLine, Soon(), context_.stop_fd));
    if (asked_.exchange(true)) return Fail(ErrorCode::kCancelled, "made room for another client");
    DORMOUSE_ASSIGN(const CtlRequest request, ParseCtlRequest(line));
    switch (request.verb) {
      case CtlVerb::kList:
        return AnswerText(SummariesToJson(context_.view.List()));
      case CtlVerb::kShow: {
        DORMOUSE_ASSIGN(const std::string text,
                        Named(request, context_.view.Show(request.sandbox)));
        return AnswerText(text);
      }
      case CtlVerb::kSweep: {
        DORMOUSE_ASSIGN(const auto leaks, context_.view.Sweep(request.remove));
        return AnswerText(LeaksToJson(leaks));
      }
      case CtlVerb::kConsole:
        return Console(request);
      case CtlVerb::kLogs:
        return Logs(request);
      case CtlVerb::kExec:
        break;
    }
    return Exec(request);
  }

 private:
  [[nodiscard]] StreamSocket::Time Soon() const {
    return std::chrono::steady_clock::now() + context_.request_time;
  }

  /// The error of a sandbox that is not here, with those that are.
  template <typename T>
  Result<T> Named(const CtlRequest& request, Result<T> result) const {
    if (result || result.error().code() != ErrorCode::kNotFound) return result;
    return Fail(ErrorCode::kNotFound, NoSuchSandbox(request.sandbox, context_.view.List()));
  }

  Result<> AnswerText(std::string_view text) {
    client_.Queue(guest::EncodeEmptyReply());
    DORMOUSE_TRY(SendOutput(text));
    client_.Queue(guest::EncodeExit({}));
    return client_.FlushAll(Soon(), context_.stop_fd);
  }

  /// In pieces, each with its own time.
  Result<> SendOutput(std::string_view text, FrameType type = FrameType::kStdout) {
    while (!text.empty()) {
      const std::string_view piece = text.substr(0, guest::kMaxPayloadBytes);
      client_.Queue(guest::EncodeFrame(type, piece));
      DORMOUSE_TRY(client_.FlushAll(Soon(), context_.stop_fd));
      text.remove_prefix(piece.size());
    }
    return {};
  }

  Result<> Console(const CtlRequest& request) {
    DORMOUSE_ASSIGN(const std::string path, ConsolePath(request.sandbox));
    // Placed at the file's end before the tail is taken: nothing is missed.
    ConsoleFollower follower(request.follow ? path : std::string());
    std::string tail = LastConsoleLines(path, request.lines);
    if (tail.empty() && request.lines > 0) {  // no file: what the agent itself remembers
      DORMOUSE_ASSIGN(tail,
                      context_.view.ConsoleTail(request.sandbox,
                                                std::min<uint64_t>(request.lines, kMostTailLines)));
      if (!tail.empty() && tail.back() != '\n') tail.push_back('\n');
    }
    if (!request.follow) return AnswerText(tail);
    client_.Queue(guest::EncodeEmptyReply());
    DORMOUSE_TRY(SendOutput(tail));
    return follower.Run(client_, context_.stop_fd);
  }

  Result<std::string> ConsolePath(const kube::ObjectKey& key) const {
    const std::vector<SandboxSummary> all = context_.view.List();
    const auto found = std::find_if(all.begin(), all.end(), [&key](const SandboxSummary& sandbox) {
      return sandbox.ns == key.ns && sandbox.name == key.name;
    });
    if (found == all.end()) return Fail(ErrorCode::kNotFound, NoSuchSandbox(key, all));
    DORMOUSE_ASSIGN(const api::SandboxUid uid, api::SandboxUid::Parse(found->uid));
    return context_.paths.Console(uid);
  }

  Result<> Logs(const CtlRequest& request) {
    DORMOUSE_ASSIGN(const GuestAccess access, Named(request, context_.view.Guest(request.sandbox)));
    const GuestClient guest(access.vsock);
    guest::LogsRequest logs{UINT64_MAX, request.follow};
    if (request.lines != kAllLines) {
      DORMOUSE_ASSIGN(logs.tail_bytes, BytesOfLastLines(guest, request.lines));
    }
    DORMOUSE_ASSIGN(const auto session, guest.OpenLogs(logs, context_.guest_time));
    client_.Queue(guest::EncodeEmptyReply());
    return Relay(client_, *session, context_.stop_fd);
  }

  /// How much of the log's end holds its last `lines` lines. The guest counts in bytes only.
  Result<uint64_t> BytesOfLastLines(const GuestClient& guest, uint64_t lines) const {
    const auto deadline = std::chrono::steady_clock::now() + context_.guest_time;
    DORMOUSE_ASSIGN(const auto session, guest.OpenLogs({UINT64_MAX, false}, context_.guest_time));
    std::string text;
    for (;;) {
      DORMOUSE_ASSIGN(const auto event, session->Next(deadline));
      if (!event) return Fail(ErrorCode::kDeadline, "the guest does not send its log");
      if (event->kind == GuestEvent::Kind::kExit) break;
      text += event->data;
      if (text.size() > kMostLogBytes)
        return Fail(ErrorCode::kCorrupt, "the guest's log has no end");
    }
    return LengthOfLastLines(text, lines);
  }

  Result<> Exec(const CtlRequest& request) {
    DORMOUSE_ASSIGN(const GuestAccess access, Named(request, context_.view.Guest(request.sandbox)));
    auto session = GuestClient(access.vsock).OpenExec(*request.exec, context_.guest_time);
    if (session) {
      client_.Queue(guest::EncodeEmptyReply());
      return Relay(client_, **session, context_.stop_fd);
    }
    const ErrorCode code = session.error().code();
    if (code != ErrorCode::kNotFound && code != ErrorCode::kPermission)
      return Fail(session.error());
    // The guest's word that the command cannot be run: answered as a shell would.
    client_.Queue(guest::EncodeEmptyReply());
    DORMOUSE_TRY(SendOutput("dormouse: " + session.error().message() + "\n", FrameType::kStderr));
    client_.Queue(
        guest::EncodeExit({code == ErrorCode::kNotFound ? kNotFoundExit : kNotRunnableExit, 0}));
    return client_.FlushAll(Soon(), context_.stop_fd);
  }

  const CtlContext& context_;
  StreamSocket& client_;
  std::atomic<bool>& asked_;
};

}  // namespace

std::string NoSuchSandbox(const kube::ObjectKey& key, const std::vector<SandboxSummary>& present) {
  std::string message = "no sandbox " + key.ToString() + " on this node; it has ";
  if (present.empty()) return message + "none";
  for (size_t i = 0; i < present.size() && i < kNamesInError; ++i) {
    message += (i == 0 ? "" : ", ") + present[i].ns + "/" + present[i].name;
  }
  if (present.size() > kNamesInError)
    message += " and " + std::to_string(present.size() - kNamesInError) + " more";
  return message;
}

void ServeCtlClient(const CtlContext& context, StreamSocket& client, std::atomic<bool>& asked) {
  if (const Result<> done = Connection(context, client, asked).Run(); !done) {
    log::Debug("ctl request failed", {{"error", done.error().message()}});
    client.Queue(guest::EncodeError(done.error()));
    (void)client.FlushAll(std::chrono::steady_clock::now() + std::chrono::seconds(1),
                          context.stop_fd);
  }
  client.Abort();
}

}  // namespace dormouse
