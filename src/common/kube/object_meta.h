// What every Kubernetes object carries, as far as Dormouse reads it, and how it is read.
//
// Plain values. managedFields are dropped on entry: they are half of an object's bytes and nobody
// here reads them.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/clock.h"
#include "src/common/base/result.h"

namespace dormouse::kube {

/// "namespace/name", or "name" for what lives in no namespace. The key of stores and queues.
struct ObjectKey {
  std::string ns;
  std::string name;
  auto operator<=>(const ObjectKey&) const = default;
  [[nodiscard]] std::string ToString() const { return ns.empty() ? name : ns + "/" + name; }
  [[nodiscard]] static ObjectKey Parse(std::string_view text);
};

/// The server's version of an object or a collection. Opaque but for equality; that it is a decimal
/// number which grows per resource is a promise since Kubernetes 1.35 (KEP-5504), and was always so
/// in practice.
class ResourceVersion {
 public:
  ResourceVersion() = default;
  explicit ResourceVersion(std::string text) : text_(std::move(text)) {}
  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] bool empty() const { return text_.empty(); }
  /// True when this is `other` or newer. Where either is not a number: only when they are equal.
  [[nodiscard]] bool IsAtLeast(const ResourceVersion& other) const;
  bool operator==(const ResourceVersion&) const = default;

 private:
  std::string text_;
};

struct OwnerReference {
  std::string api_version, kind, name, uid;
};

struct ObjectMeta {
  std::string ns, name, uid;
  ResourceVersion resource_version;
  int64_t generation = 0;
  WallTime creation_time{};
  std::optional<WallTime> deletion_time;  ///< set: being deleted, waits for its finalizers
  std::vector<std::string> finalizers;
  std::map<std::string, std::string> labels, annotations;
  std::vector<OwnerReference> owners;

  [[nodiscard]] ObjectKey key() const { return {ns, name}; }
  [[nodiscard]] bool HasFinalizer(const std::string& finalizer) const;
};

/// Reads `.metadata` of `object`; kCorrupt when name, uid or resourceVersion is missing.
Result<ObjectMeta> ParseObjectMeta(const nlohmann::json& object);

}  // namespace dormouse::kube

template <>
struct std::hash<dormouse::kube::ObjectKey> {
  std::size_t operator()(const dormouse::kube::ObjectKey& key) const noexcept {
    const std::size_t first = std::hash<std::string>()(key.ns);
    return first ^ (std::hash<std::string>()(key.name) + 0x9e3779b97f4a7c15ULL + (first << 6));
  }
};
