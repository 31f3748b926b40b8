// The two bodies a watching client reads, decoded as the bytes come: a watch (one JSON event a
// line) and a list, whose items are handed out one by one. Never more than one object is held as
// text and as JSON.
//
// No I/O, no threads: not thread-safe, one owner. Input is bounded per object and in nesting; what
// does not parse is kCorrupt and ends the decoder's life. What a callback refuses ends the Feed
// with its error.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "src/common/base/result.h"
#include "src/common/kube/types.h"

namespace dormouse::kube {

/// An object of etcd's 1.5 MiB may grow on the wire; client-go has no limit here, we have this.
inline constexpr std::size_t kMaxObjectBytes = 8 * 1024 * 1024;

enum class WatchEventType { kAdded, kModified, kDeleted, kBookmark, kError };

class WatchDecoder {
 public:
  /// `object` lives for the call only. For kError it is a metav1.Status.
  using Sink = std::function<Result<>(WatchEventType type, const nlohmann::json& object)>;

  explicit WatchDecoder(Sink sink, std::size_t max_object_bytes = kMaxObjectBytes);
  /// Decodes all events that are whole after `bytes`. Events of a type we do not know are left out.
  Result<> Feed(std::string_view bytes);
  /// True between two events: a stream that ends elsewhere was truncated.
  [[nodiscard]] bool AtBoundary() const { return line_.empty(); }

 private:
  Result<> DecodeLine(std::string_view line);
  Sink sink_;
  std::size_t max_object_bytes_;
  std::string line_;  ///< the start of an event whose end has not come
};

class ListDecoder {
 public:
  /// `item` lives for the call only, and has neither kind nor apiVersion: items of a list do not.
  using Sink = std::function<Result<>(const nlohmann::json& item)>;

  explicit ListDecoder(Sink sink, std::size_t max_object_bytes = kMaxObjectBytes);
  Result<> Feed(std::string_view bytes);
  /// True once the list's closing brace was read.
  [[nodiscard]] bool Done() const { return state_ == State::kDone; }
  /// Of the collection; valid when Done.
  [[nodiscard]] const ResourceVersion& resource_version() const { return resource_version_; }
  /// The token of the next page; empty on the last one. Valid when Done.
  [[nodiscard]] const std::string& continue_token() const { return continue_; }

 private:
  enum class State {
    kStart,
    kKeyOrEnd,
    kKey,
    kColon,
    kValue,
    kItemOrEnd,
    kItem,
    kAfterItem,
    kAfterValue,
    kDone
  };
  Result<> Step(char c);
  Result<> Capture(char c);
  Result<> FinishCapture();

  Sink sink_;
  std::size_t max_object_bytes_;
  State state_ = State::kStart;
  std::string key_;      ///< of the list's own member that is being read
  std::string capture_;  ///< the text of one item, or of one member
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  ResourceVersion resource_version_;
  std::string continue_;
};

}  // namespace dormouse::kube
