// The node's name as the API server knows it. A type, as it goes into field selectors, object names
// and the Lease's name. Plain value; thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse {

class NodeName {
 public:
  /// A DNS-1123 subdomain, as Kubernetes has it, of at most 239 characters, so that the Lease's
  /// name fits too.
  static Result<NodeName> Parse(std::string_view text);
  [[nodiscard]] const std::string& text() const { return text_; }
  /// "dormouse-node-<name>": what the agent renews, and what the controller and the admission
  /// policy look for.
  [[nodiscard]] std::string LeaseName() const;
  bool operator==(const NodeName&) const = default;

 private:
  explicit NodeName(std::string_view text) : text_(text) {}
  std::string text_;
};

}  // namespace dormouse
