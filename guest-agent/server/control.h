// Requests of the host, one at a time per connection: what each frame type of frame.h asks for.
#pragma once

#include "guest-agent/server/connection.h"
#include "guest-agent/server/context.h"

namespace dormouse::guest {

class ControlHandler : public FrameHandler {
 public:
  ControlHandler(Context& context, Connection& connection)
      : context_(context), connection_(connection) {}
  ~ControlHandler() override;

  [[nodiscard]] Result<void> OnFrame(const Frame& frame) override;

 private:
  [[nodiscard]] Result<void> Health();
  [[nodiscard]] Result<void> Configure(std::string_view json);
  [[nodiscard]] Result<void> StartWorkload(std::string_view json);
  [[nodiscard]] Result<void> WorkloadStatus(std::string_view json);
  [[nodiscard]] Result<void> StopWorkload(std::string_view json);
  [[nodiscard]] Result<void> Exec(std::string_view json);
  [[nodiscard]] Result<void> Logs(std::string_view json);
  [[nodiscard]] Result<void> PowerOff(std::string_view json);
  [[nodiscard]] Result<void> Freeze(std::string_view json);
  [[nodiscard]] Result<void> Thaw(std::string_view json);
  /// kUnavailable while the sandbox is frozen: its cgroups would swallow what is started.
  [[nodiscard]] Result<void> MayStart() const;
  /// Answers with the workload's status once it is not running; at the latest after `limit`.
  void AnswerAtEnd(std::chrono::milliseconds limit);
  void AnswerNow();
  /// No idle limit, and no further request, until Answer.
  void Defer();
  void Answer(std::string_view frame);

  Context& context_;
  Connection& connection_;
  bool waiting_ = false;
  Workload::ObserverId observer_ = 0;
  EventLoop::TimerId timer_ = 0;
  Freezer::WaiterId freeze_waiter_ = 0;
  Thawer::WaiterId thaw_waiter_ = 0;
};

}  // namespace dormouse::guest
