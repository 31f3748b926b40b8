// What the parsers and encoders of messages.h share: a strict reader of one JSON object, and frames
// around JSON. For the .cc files of this room only. Pure; not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"
#include "src/common/guest/messages.h"

namespace dormouse::guest {

inline constexpr size_t kMaxArgs = 4096;
inline constexpr size_t kMaxListItems = 64;
inline constexpr size_t kMinEntropy = 16;
inline constexpr size_t kMaxEntropy = 512;
/// What a string may hold where nothing narrower is said; the frame is the outer bound.
inline constexpr size_t kMaxString = kMaxPayloadBytes;

/// Reads the fields of one object and keeps the first thing that was wrong.
class Reader {
 public:
  explicit Reader(std::string_view text);
  Reader(const nlohmann::json& json, std::string name);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  /// Null when it is absent or JSON's null.
  [[nodiscard]] const nlohmann::json* Find(const char* key) const;
  std::string String(const char* key, size_t max, bool required = false);
  uint64_t Unsigned(const char* key, uint64_t max, uint64_t otherwise);
  int64_t Signed(const char* key);
  bool Bool(const char* key, bool otherwise);
  std::vector<std::string> Strings(const char* key, size_t max_items, size_t max_length);
  /// A list of [name, value] pairs: an order that later values can win by.
  std::vector<EnvVar> Env(const char* key);
  /// None, or kMinEntropy to kMaxEntropy bytes in lower-case hexadecimal.
  std::string Entropy(const char* key);

  void Reject(std::string why);
  void Absorb(const Reader& other);

  template <typename T>
  [[nodiscard]] Result<T> Finish(T value) const {
    if (error_) return Fail(*error_);
    return value;
  }

 private:
  std::string Text(const nlohmann::json& field, const char* key, size_t max);

  std::unique_ptr<nlohmann::json> json_;
  std::string name_;
  std::optional<Error> error_;
};

/// For payloads whose size our own caps bound.
[[nodiscard]] std::string Framed(FrameType type, const nlohmann::json& json);
/// kInvalid when it exceeds a frame.
[[nodiscard]] Result<std::string> FramedIfFits(FrameType type, const nlohmann::json& json,
                                               std::string_view what);

/// As machine-id(5) has it: 32 lower-case hexadecimal digits, not all of them zero.
[[nodiscard]] bool IsMachineId(std::string_view text);

[[nodiscard]] std::string HexEncode(std::string_view bytes);
[[nodiscard]] std::optional<std::string> HexDecode(std::string_view text);

}  // namespace dormouse::guest
