// The few words every Kubernetes client needs: which kind of resource, which object, in which
// version.
//
// Plain values, no threading rules.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "src/common/base/result.h"
#include "src/common/kube/object_meta.h"

namespace dormouse::kube {

/// A kind of resource as the API server's paths name it.
struct ResourceType {
  std::string group{};  ///< "" = core
  std::string version;
  std::string plural;
  bool namespaced = true;

  /// "group/version", or "version" for core: the object's apiVersion.
  [[nodiscard]] std::string ApiVersion() const;
  /// "/apis/g/v/namespaces/ns/plural/name/subresource", each part percent-encoded; empty parts are
  /// left out, and an empty namespace of a namespaced type means all of them.
  [[nodiscard]] std::string Path(std::string_view ns, std::string_view name = {},
                                 std::string_view subresource = {}) const;
};

/// One object in one version: what a guarded write needs.
struct ObjectRef {
  ObjectKey key;
  std::string uid;
  ResourceVersion resource_version;
};

/// What `metadata` says. kCorrupt when it has no name.
[[nodiscard]] Result<ObjectRef> RefOf(const nlohmann::json& object);
/// The same from an answer's text.
[[nodiscard]] Result<ObjectRef> RefOfText(std::string_view object);

/// Percent-encodes all but RFC 3986's unreserved characters.
[[nodiscard]] std::string PercentEncode(std::string_view text);

namespace types {
inline const ResourceType kLeases{"coordination.k8s.io", "v1", "leases", true};
inline const ResourceType kEvents{"events.k8s.io", "v1", "events", true};
inline const ResourceType kNodes{"", "v1", "nodes", false};
}  // namespace types

}  // namespace dormouse::kube
