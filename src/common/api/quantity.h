// Kubernetes quantities ("512Mi", "1.5Gi", "2", "500m"). Pure; thread-safe.
// Source: k8s.io/apimachinery/pkg/api/resource/quantity.go (grammar of <decimalSI>, <binarySI>,
// <exponent>).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dormouse::api {

struct Quantity {
  int64_t bytes = 0;        ///< rounded up
  bool rounded_up = false;  ///< it was less than that
};
/// Nothing for negative, malformed, or more than 2^62.
[[nodiscard]] std::optional<Quantity> ParseQuantity(std::string_view text);
/// Its bytes.
[[nodiscard]] std::optional<int64_t> ParseBytes(std::string_view text);
/// The shortest exact binary form: 536870912 -> "512Mi", 1000 -> "1000".
[[nodiscard]] std::string FormatBytes(int64_t bytes);

}  // namespace dormouse::api
