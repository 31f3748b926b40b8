// The verbs a controller needs, over JSON text. Objects go in and come back as the API server's
// JSON.
//
// Thread-safe; each call blocks. Nothing is retried here: an Error says what a queue shall do, and
// carries the server's Retry-After. Codes: kNotFound 404; kConflict 409, and a `test` that failed;
// kAlreadyExists 409 on create; kInvalid 400, 413, 415, 422; kPermission 401, 403; kUnavailable
// 429, 5xx, no connection; kDeadline 504. Messages name verb, object and the server's own message.
//
// A write that must not reach a successor of the same name carries the resourceVersion of the
// object whose UID was checked (docs/structure.md, invariant 13): a UID alone is ignored on
// /status.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "src/common/base/clock.h"
#include "src/common/base/result.h"
#include "src/common/kube/http_transport.h"
#include "src/common/kube/token_bucket.h"
#include "src/common/kube/types.h"
#include "src/common/kube/waiter.h"

namespace dormouse::kube {

struct ClientOptions {
  std::string field_manager = "dormouse";
  double requests_per_second = 0;  ///< our own limit; 0 = none. Agents: 5
  double burst = 10;
  std::chrono::milliseconds timeout{30'000};  ///< of one call, without the wait for our own limit
  const Clock* clock = &Clock::System();
  Waiter* waiter = &Waiter::System();
};

struct ApplyOptions {
  std::string subresource{};           ///< "status", or empty
  bool force = true;                   ///< take fields over that another manager owns
  ResourceVersion resource_version{};  ///< precondition; empty = none
  std::string field_manager{};         ///< empty = the client's
};

struct PatchOptions {
  std::string subresource{};
  std::string field_manager{};
};

struct DeleteOptions {
  std::string uid{};                   ///< precondition; empty = none
  ResourceVersion resource_version{};  ///< precondition; empty = none
  std::string propagation{};  ///< "Background", "Foreground", "Orphan"; empty = the kind's default
};

class Client {
 public:
  explicit Client(std::shared_ptr<HttpTransport> transport, ClientOptions options = {});

  /// A live, consistent read.
  Result<std::string> Get(const ResourceType& type, const ObjectKey& key);
  /// Strict: unknown and doubled fields are refused.
  Result<std::string> Create(const ResourceType& type, const std::string& ns,
                             std::string_view object);
  /// PUT; a resourceVersion inside `object` is the precondition.
  Result<std::string> Update(const ResourceType& type, const ObjectKey& key,
                             std::string_view object, const std::string& subresource = {});
  /// Server-side apply of `object`, which holds apiVersion, kind, metadata.name and only the fields
  /// we own. Main resource: makes the object where it is missing, unless a resource_version is
  /// given.
  Result<std::string> Apply(const ResourceType& type, const ObjectKey& key, std::string_view object,
                            const ApplyOptions& options = {});
  /// RFC 6902. A failed `test` is kConflict.
  Result<std::string> JsonPatch(const ResourceType& type, const ObjectKey& key,
                                std::string_view patch, const PatchOptions& options = {});
  /// RFC 7386.
  Result<std::string> MergePatch(const ResourceType& type, const ObjectKey& key,
                                 std::string_view patch, const PatchOptions& options = {});
  /// Success when the server took it, also when finalizers hold the object. kNotFound when it is
  /// gone already, kConflict when a precondition failed.
  Result<> Delete(const ResourceType& type, const ObjectKey& key,
                  const DeleteOptions& options = {});

  [[nodiscard]] const std::string& field_manager() const { return options_.field_manager; }
  [[nodiscard]] HttpTransport& transport() { return *transport_; }

 private:
  Result<std::string> Call(const char* verb, const ResourceType& type, const ObjectKey& key,
                           HttpRequest request);
  std::shared_ptr<HttpTransport> transport_;
  ClientOptions options_;
  std::optional<TokenBucket> bucket_;
};

/// The Error for an answer of status >= 400: `what`, then the message of the metav1.Status in
/// `body`.
[[nodiscard]] Error ErrorOfAnswer(std::string_view what, const HttpResponse& answer);

}  // namespace dormouse::kube
