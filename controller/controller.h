// The controller put together: caches that are always warm, and workers that run while it leads.
//
// Construct, StartCaches, wait for Synced, StartWorking, StopWorking, destroy: all on the owner's
// thread. Synced may be asked on any.
#pragma once

#include <cstdint>
#include <memory>

#include "controller/options.h"
#include "src/common/kube/events.h"
#include "src/common/kube/http_transport.h"

namespace dormouse::controller {

class Controller {
 public:
  /// `events` must outlive it.
  Controller(std::shared_ptr<kube::HttpTransport> transport, const Options& options,
             kube::EventRecorder& events);
  ~Controller();
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  void StartCaches();
  /// True once every cache holds a whole first listing; the name of one that does not otherwise.
  [[nodiscard]] bool Synced(std::string* missing = nullptr) const;
  /// How many sandboxes were reconciled so far.
  [[nodiscard]] uint64_t Reconciles() const;
  /// After Synced, and as the leader.
  void StartWorking();
  /// Lets what is being reconciled finish, for up to 20 s.
  void StopWorking();

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace dormouse::controller
