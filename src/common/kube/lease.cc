#include "src/common/kube/lease.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "src/common/base/files.h"
#include "src/common/base/json_text.h"
#include "src/common/base/log.h"
#include "src/common/base/time.h"

namespace dormouse::kube {
namespace {

using nlohmann::json;
using std::chrono::nanoseconds;

/// client-go: candidates poll each 2 to 4.4 s, so that they do not come together.
constexpr double kAcquireJitter = 1.2;
constexpr auto kHeartbeatRetry = std::chrono::seconds(1);

ClientOptions LeaseClientOptions(std::chrono::milliseconds timeout, const Clock* clock) {
  ClientOptions options;
  options.timeout = std::max(timeout, std::chrono::milliseconds(1000));
  options.clock = clock;
  return options;
}

bool SameClaim(const LeaseRecord& a, const LeaseRecord& b) {
  return a.ref.uid == b.ref.uid && a.holder == b.holder && a.renewed == b.renewed &&
         a.acquired == b.acquired && a.transitions == b.transitions;
}

}  // namespace

Result<LeaseRecord> ParseLease(std::string_view text) {
  const json object = json::parse(text, nullptr, false);
  if (object.is_discarded()) return Fail(ErrorCode::kCorrupt, "lease: not JSON");
  LeaseRecord lease;
  DORMOUSE_ASSIGN(lease.ref, RefOf(object));
  const auto found = object.find("spec");
  if (found == object.end() || !found->is_object()) return lease;
  const json& spec = *found;
  const auto string = [&spec](const char* key) -> std::string {
    const auto it = spec.find(key);
    return it != spec.end() && it->is_string() ? it->get<std::string>() : "";
  };
  const auto number = [&spec](const char* key) -> int {
    const auto it = spec.find(key);
    return it != spec.end() && it->is_number_integer() ? it->get<int>() : 0;
  };
  lease.holder = string("holderIdentity");
  lease.duration = std::chrono::seconds(number("leaseDurationSeconds"));
  lease.acquired = ParseTime(string("acquireTime"));
  lease.renewed = ParseTime(string("renewTime"));
  lease.transitions = number("leaseTransitions");
  return lease;
}

std::string FormatLease(const LeaseRecord& lease, std::string_view owner_json) {
  json metadata{{"name", lease.ref.key.name}};
  if (!lease.ref.key.ns.empty()) metadata["namespace"] = lease.ref.key.ns;
  if (!lease.ref.resource_version.empty()) {
    metadata["resourceVersion"] = lease.ref.resource_version.text();
  }
  if (!owner_json.empty()) {
    json owner = json::parse(owner_json, nullptr, false);
    if (owner.is_object()) metadata["ownerReferences"] = json::array({std::move(owner)});
  }
  json spec{{"holderIdentity", lease.holder},
            {"leaseDurationSeconds", std::max<int64_t>(1, lease.duration.count())},
            {"leaseTransitions", lease.transitions}};
  if (lease.acquired) spec["acquireTime"] = FormatMicroTime(*lease.acquired);
  if (lease.renewed) spec["renewTime"] = FormatMicroTime(*lease.renewed);
  const json object{{"apiVersion", "coordination.k8s.io/v1"},
                    {"kind", "Lease"},
                    {"metadata", std::move(metadata)},
                    {"spec", std::move(spec)}};
  return JsonText(object);
}

std::string UniqueIdentity() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  auto uuid = ReadFile("/proc/sys/kernel/random/uuid", 64);
  std::string unique = uuid ? uuid->substr(0, 36) : std::to_string(::getpid());
  return std::string(host.data()) + "_" + unique;
}

LeaderElector::LeaderElector(std::shared_ptr<HttpTransport> transport,
                             LeaderElectionOptions options)
    : client_(std::move(transport), LeaseClientOptions(options.renew_deadline / 2, options.clock)),
      options_(std::move(options)),
      random_(options_.seed),
      status_(options_.metrics->MakeGauge(
          "leader_election_master_status",
          "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 "
          "indicates master.",
          {{"name", options_.lease.name}})) {
  const bool sane = options_.lease_duration > options_.renew_deadline &&
                    options_.renew_deadline > options_.retry_period * 6 / 5;
  if (!sane) log::Error("leader election: lease > renew deadline > 1.2 x retry does not hold");
}

nanoseconds LeaderElector::Tick() {
  const Result<> result = TryAcquireOrRenew();
  std::lock_guard lock(mutex_);
  const MonotonicTime now = options_.clock->Now();
  if (result) {
    if (!leading_) log::Info("leading", {{"lease", options_.lease.ToString()}});
    leading_ = true;
  } else if (leading_) {
    log::Warning("lease not renewed",
                 {{"lease", options_.lease.ToString()}, {"error", result.error().message()}});
    const bool taken =
        observed_ && !observed_->holder.empty() && observed_->holder != options_.identity;
    if (taken || now - renewed_at_ >= options_.renew_deadline) {
      leading_ = false;
      lost_ = true;
    }
  }
  status_.Set(leading_ ? 1 : 0);
  if (leading_) {
    // The last try before the deadline counts too.
    return std::clamp<nanoseconds>(renewed_at_ + options_.renew_deadline - now,
                                   std::chrono::milliseconds(1), options_.retry_period);
  }
  const double factor = 1 + std::uniform_real_distribution<double>(0, kAcquireJitter)(random_);
  return nanoseconds(static_cast<int64_t>(
      static_cast<double>(nanoseconds(options_.retry_period).count()) * factor));
}

Result<> LeaderElector::TryAcquireOrRenew() {
  const MonotonicTime started = options_.clock->Now();
  std::optional<LeaseRecord> observed;
  bool leading = false;
  {
    std::lock_guard lock(mutex_);
    observed = observed_;
    leading = leading_;
  }
  // A leader writes on what it wrote last; only a conflict makes it look.
  if (leading && observed && observed->holder == options_.identity) {
    LeaseRecord mine = *observed;
    mine.renewed = options_.clock->WallNow();
    if (auto text = client_.Update(types::kLeases, options_.lease, FormatLease(mine))) {
      DORMOUSE_ASSIGN(LeaseRecord record, ParseLease(*text));
      Observe(std::move(record), started);
      return {};
    } else if (text.error().code() != ErrorCode::kConflict &&
               text.error().code() != ErrorCode::kNotFound) {
      return Fail(std::move(text).error());
    }
  }

  auto text = client_.Get(types::kLeases, options_.lease);
  LeaseRecord next;
  next.ref.key = options_.lease;
  next.holder = options_.identity;
  next.duration = std::chrono::duration_cast<std::chrono::seconds>(options_.lease_duration);
  next.renewed = options_.clock->WallNow();
  next.acquired = next.renewed;
  if (!text && text.error().code() == ErrorCode::kNotFound) {
    DORMOUSE_ASSIGN(const std::string made,
                    client_.Create(types::kLeases, options_.lease.ns, FormatLease(next)));
    DORMOUSE_ASSIGN(LeaseRecord record, ParseLease(made));
    Observe(std::move(record), started);
    return {};
  }
  if (!text) return Fail(std::move(text).error());
  DORMOUSE_ASSIGN(LeaseRecord current, ParseLease(*text));
  Observe(current, std::nullopt);
  {
    std::lock_guard lock(mutex_);
    const bool free =
        current.holder.empty() || current.holder == options_.identity ||
        options_.clock->Now() >=
            observed_at_ + std::max<nanoseconds>(current.duration, std::chrono::seconds(1));
    if (!free) {
      return Fail(ErrorCode::kConflict,
                  "lease " + options_.lease.ToString() + " is held by " + current.holder);
    }
  }
  next.ref = current.ref;
  next.transitions = current.transitions + (current.holder == options_.identity ? 0 : 1);
  if (current.holder == options_.identity && current.acquired) next.acquired = current.acquired;
  DORMOUSE_ASSIGN(const std::string taken,
                  client_.Update(types::kLeases, options_.lease, FormatLease(next)));
  DORMOUSE_ASSIGN(LeaseRecord record, ParseLease(taken));
  Observe(std::move(record), started);
  return {};
}

void LeaderElector::Observe(LeaseRecord record, std::optional<MonotonicTime> written_from) {
  std::lock_guard lock(mutex_);
  // Of our own write the server's clock started no later than our request did.
  if (written_from) renewed_at_ = *written_from;
  if (!observed_ || !SameClaim(*observed_, record)) observed_at_ = options_.clock->Now();
  observed_ = std::move(record);
}

Result<> LeaderElector::Run(const std::stop_token& stop, const std::function<void()>& on_started,
                            Waiter& waiter) {
  bool started = false;
  while (!stop.stop_requested()) {
    const nanoseconds delay = Tick();
    if (Lost()) {
      return Fail(ErrorCode::kUnavailable, "lease " + options_.lease.ToString() + " was lost");
    }
    if (!started && IsLeader()) {
      started = true;
      on_started();
    }
    if (!waiter.Wait(delay, stop)) break;
  }
  return {};
}

void LeaderElector::Release() {
  LeaseRecord mine;
  {
    std::lock_guard lock(mutex_);
    if (!leading_ || !observed_) return;
    leading_ = false;
    mine = *observed_;
  }
  status_.Set(0);
  mine.holder.clear();
  mine.duration = std::chrono::seconds(1);
  mine.renewed = options_.clock->WallNow();
  auto result = client_.Update(types::kLeases, options_.lease, FormatLease(mine));
  if (!result) log::Info("lease not released", {{"error", result.error().message()}});
}

bool LeaderElector::IsLeader() const {
  std::lock_guard lock(mutex_);
  return leading_ && options_.clock->Now() - renewed_at_ < options_.renew_deadline;
}

std::string LeaderElector::Leader() const {
  std::lock_guard lock(mutex_);
  return observed_ ? observed_->holder : "";
}

bool LeaderElector::Lost() const {
  std::lock_guard lock(mutex_);
  return lost_;
}

Heartbeat::Heartbeat(std::shared_ptr<HttpTransport> transport, HeartbeatOptions options)
    : client_(std::move(transport), LeaseClientOptions(options.period, options.clock)),
      options_(std::move(options)) {}

Heartbeat::~Heartbeat() {
  Stop();
}

Result<> Heartbeat::Beat() {
  std::optional<LeaseRecord> last;
  {
    std::lock_guard lock(mutex_);
    last_attempt_ = options_.clock->Now();
    last = lease_;
  }
  if (!last) {
    auto text = client_.Get(types::kLeases, options_.lease);
    if (text) {
      DORMOUSE_ASSIGN(last, ParseLease(*text));
    } else if (text.error().code() != ErrorCode::kNotFound) {
      return Fail(std::move(text).error());
    }
  }
  LeaseRecord next;
  next.ref.key = options_.lease;
  if (last) next.ref = last->ref;
  next.holder = options_.holder;
  next.duration = std::chrono::duration_cast<std::chrono::seconds>(options_.duration);
  next.renewed = options_.clock->WallNow();
  const std::string body = FormatLease(next, options_.owner_json);
  auto text = last ? client_.Update(types::kLeases, options_.lease, body)
                   : client_.Create(types::kLeases, options_.lease.ns, body);
  std::lock_guard lock(mutex_);
  if (!text) {
    // Whatever it was: look at the Lease again before the next try.
    lease_.reset();
    return Fail(std::move(text).error());
  }
  const MonotonicTime now = options_.clock->Now();
  if (!last_taken_ || now - *last_taken_ >= options_.duration / 2) ++beginnings_;
  last_taken_ = now;
  DORMOUSE_ASSIGN(lease_, ParseLease(*text));
  return {};
}

void Heartbeat::Start() {
  thread_ = std::jthread([this](const std::stop_token& stop) {
    bool go_on = true;
    while (go_on) {
      const Result<> beat = Beat();
      if (!beat) {
        log::Warning("heartbeat failed",
                     {{"lease", options_.lease.ToString()}, {"error", beat.error().message()}});
      }
      go_on = Waiter::System().Wait(beat ? nanoseconds(options_.period) : kHeartbeatRetry, stop);
    }
  });
}

void Heartbeat::Stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

std::optional<MonotonicTime> Heartbeat::last_attempt() const {
  std::lock_guard lock(mutex_);
  return last_attempt_;
}

uint64_t Heartbeat::beginnings() const {
  std::lock_guard lock(mutex_);
  return beginnings_;
}

void LeaseObserver::Observe(const LeaseRecord& lease) {
  if (!last_ || !SameClaim(*last_, lease)) changed_at_ = clock_.Now();
  last_ = lease;
}

std::optional<bool> LeaseObserver::Alive() const {
  const auto deadline = Deadline();
  if (!deadline) return std::nullopt;
  return clock_.Now() < *deadline;
}

std::optional<MonotonicTime> LeaseObserver::Deadline() const {
  if (!last_) return std::nullopt;
  return changed_at_ + last_->duration;
}

}  // namespace dormouse::kube
