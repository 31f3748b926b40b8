// The workload's output, from the ring to the host: the past, and with `follow` what comes until
// the workload ends. A host that reads slowly loses the oldest bytes (kFlagLost), never holds up
// the workload.
#pragma once

#include "guest-agent/server/connection.h"
#include "guest-agent/server/context.h"

namespace dormouse::guest {

class LogSession : public FrameHandler {
 public:
  /// The caller has answered kReply and switches the connection to it, then calls Pump.
  LogSession(Context& context, Connection& connection, const LogsRequest& request);
  ~LogSession() override;

  [[nodiscard]] Result<void> OnFrame(const Frame& frame) override;
  void OnWritable() override { Pump(); }
  void Pump();

 private:
  Context& context_;
  Connection& connection_;
  const bool follow_;
  bool finished_ = false;
  uint64_t position_;
  uint64_t until_;  ///< where a reader that does not follow stops
  Window window_;
  Workload::ObserverId observer_;
};

}  // namespace dormouse::guest
