// Leases (coordination.k8s.io/v1): who leads among replicas, and whether a node is alive.
//
// The rules are client-go's tools/leaderelection: expiry is judged by when *we* saw the record
// change, never by another machine's clock; each call has a time limit so that one that hangs
// cannot cost the lease.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "src/common/base/clock.h"
#include "src/common/base/metrics.h"
#include "src/common/base/result.h"
#include "src/common/kube/client.h"
#include "src/common/kube/types.h"
#include "src/common/kube/waiter.h"

namespace dormouse::kube {

/// What a Lease says; fields that are not set are empty.
struct LeaseRecord {
  ObjectRef ref{};
  std::string holder{};
  std::chrono::seconds duration{0};
  std::optional<WallTime> acquired{};
  std::optional<WallTime> renewed{};
  int transitions = 0;
};
[[nodiscard]] Result<LeaseRecord> ParseLease(std::string_view text);
/// As JSON, with `owner_json` (an ownerReference object, or empty) and a resourceVersion where the
/// ref has one.
[[nodiscard]] std::string FormatLease(const LeaseRecord& lease, std::string_view owner_json = {});

/// "<hostname>_<uuid>": differs for each process that ever ran.
[[nodiscard]] std::string UniqueIdentity();

struct LeaderElectionOptions {
  ObjectKey lease{};
  std::string identity = UniqueIdentity();
  std::chrono::milliseconds lease_duration{15'000};
  std::chrono::milliseconds renew_deadline{10'000};
  std::chrono::milliseconds retry_period{2'000};
  uint64_t seed = std::random_device{}();
  const Clock* clock = &Clock::System();
  metrics::Registry* metrics = &metrics::Registry::Default();
};

/// One candidate. Thread-safe are IsLeader and Leader; the rest belongs to one thread.
class LeaderElector {
 public:
  LeaderElector(std::shared_ptr<HttpTransport> transport, LeaderElectionOptions options);

  /// Tries to take or to renew the lease once; returns the time until the next try.
  [[nodiscard]] std::chrono::nanoseconds Tick();
  /// Ticks until leading, calls `on_started` (which must return at once), then renews until `stop`:
  /// success, the caller then calls Release when its work has ended; or until the lease is lost: an
  /// error, after which the process must exit without touching anything.
  Result<> Run(const std::stop_token& stop, const std::function<void()>& on_started,
               Waiter& waiter = Waiter::System());
  /// Gives the lease up so that another need not wait for its end.
  void Release();

  /// Held, and renewed within the renew deadline.
  [[nodiscard]] bool IsLeader() const;
  /// Who we saw holding it last; may be ourselves, or empty.
  [[nodiscard]] std::string Leader() const;
  /// True once a lease that was held could not be renewed in time, or another holds it.
  [[nodiscard]] bool Lost() const;

 private:
  Result<> TryAcquireOrRenew();
  void Observe(LeaseRecord record, std::optional<MonotonicTime> written_from);

  Client client_;
  LeaderElectionOptions options_;
  std::mt19937_64 random_;
  metrics::Gauge status_;
  mutable std::mutex mutex_;
  std::optional<LeaseRecord> observed_;
  MonotonicTime observed_at_{};
  MonotonicTime renewed_at_{};
  bool leading_ = false;
  bool lost_ = false;
};

struct HeartbeatOptions {
  ObjectKey lease{};
  std::string holder{};
  std::chrono::milliseconds duration{40'000};
  std::chrono::milliseconds period{10'000};
  std::string owner_json{};  ///< an ownerReference, as JSON; empty = none
  const Clock* clock = &Clock::System();
};

/// Keeps one Lease fresh, as a kubelet does for its Node. Start once; the destructor stops it.
class Heartbeat {
 public:
  Heartbeat(std::shared_ptr<HttpTransport> transport, HeartbeatOptions options);
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  /// Writes once: creates, or renews with what the last write returned. For tests, and before
  /// Start.
  Result<> Beat();
  /// Beats each period, sooner (after 1 s) when one failed.
  void Start();
  void Stop();
  /// When the last beat began, whether or not the server took it; nothing before the first. Where
  /// this stands still, the thread does.
  [[nodiscard]] std::optional<MonotonicTime> last_attempt() const;
  /// How often it began: with its first beat that the server took, and with each that came so late
  /// that watchers may have called the holder dead before it (half the Lease's duration).
  [[nodiscard]] uint64_t beginnings() const;

 private:
  Client client_;
  HeartbeatOptions options_;
  mutable std::mutex mutex_;
  std::optional<LeaseRecord> lease_;
  std::optional<MonotonicTime> last_attempt_, last_taken_;
  uint64_t beginnings_ = 0;
  std::jthread thread_;
};

/// Whether a Lease was renewed lately, judged by our own clock from when its record last changed
/// before our eyes: for a watcher of other nodes' leases. Not thread-safe.
class LeaseObserver {
 public:
  explicit LeaseObserver(const Clock& clock = Clock::System()) : clock_(clock) {}
  void Observe(const LeaseRecord& lease);
  /// Nothing while no record was seen; else true when it changed within its duration.
  [[nodiscard]] std::optional<bool> Alive() const;
  /// When it will count as dead if nothing comes.
  [[nodiscard]] std::optional<MonotonicTime> Deadline() const;

 private:
  const Clock& clock_;
  std::optional<LeaseRecord> last_;
  MonotonicTime changed_at_{};
};

}  // namespace dormouse::kube
