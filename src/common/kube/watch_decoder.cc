#include "src/common/kube/watch_decoder.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace dormouse::kube {
namespace {

using nlohmann::json;

/// Deeper than any object of the API (a CRD's schema may reach 60), and shallow enough for any
/// stack.
constexpr int kMaxDepth = 256;

/// Refuses what nests too deep before a parser sees it: its document would be freed recursively.
bool TooDeep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  bool escaped = false;
  for (char c : text) {
    if (in_string) {
      if (escaped) {
        escaped = false;
      } else if (c == '\\') {
        escaped = true;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

Result<json> Parse(std::string_view text, const char* what) {
  if (TooDeep(text)) return Fail(ErrorCode::kCorrupt, std::string(what) + ": nested too deep");
  json parsed = json::parse(text, nullptr, false);
  if (parsed.is_discarded()) return Fail(ErrorCode::kCorrupt, std::string(what) + ": not JSON");
  return parsed;
}

std::optional<WatchEventType> TypeOf(std::string_view text) {
  static constexpr std::pair<std::string_view, WatchEventType> kTypes[] = {
      {"ADDED", WatchEventType::kAdded},     {"MODIFIED", WatchEventType::kModified},
      {"DELETED", WatchEventType::kDeleted}, {"BOOKMARK", WatchEventType::kBookmark},
      {"ERROR", WatchEventType::kError},
  };
  for (const auto& [name, type] : kTypes) {
    if (name == text) return type;
  }
  return std::nullopt;
}

bool IsSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

}  // namespace

WatchDecoder::WatchDecoder(Sink sink, std::size_t max_object_bytes)
    : sink_(std::move(sink)), max_object_bytes_(max_object_bytes) {}

Result<> WatchDecoder::Feed(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    if (line_.size() + part.size() > max_object_bytes_) {
      return Fail(ErrorCode::kCorrupt,
                  "watch event: larger than " + std::to_string(max_object_bytes_) + " bytes");
    }
    if (end == std::string_view::npos) {
      line_.append(part);
      return {};
    }
    if (line_.empty()) {
      DORMOUSE_TRY(DecodeLine(part));
    } else {
      line_.append(part);
      const std::string line = std::exchange(line_, {});
      DORMOUSE_TRY(DecodeLine(line));
    }
    bytes.remove_prefix(end + 1);
  }
  return {};
}

Result<> WatchDecoder::DecodeLine(std::string_view line) {
  if (line.find_first_not_of(" \t\r") == std::string_view::npos) return {};
  DORMOUSE_ASSIGN(const json event, Parse(line, "watch event"));
  const auto type = event.is_object() ? event.find("type") : event.end();
  const auto object = event.is_object() ? event.find("object") : event.end();
  if (type == event.end() || !type->is_string() || object == event.end() || !object->is_object()) {
    return Fail(ErrorCode::kCorrupt, "watch event: without type or object");
  }
  const auto known = TypeOf(type->get_ref<const std::string&>());
  if (!known) return {};
  return sink_(*known, *object);
}

ListDecoder::ListDecoder(Sink sink, std::size_t max_object_bytes)
    : sink_(std::move(sink)), max_object_bytes_(max_object_bytes) {}

Result<> ListDecoder::Feed(std::string_view bytes) {
  for (char c : bytes) DORMOUSE_TRY(Step(c));
  return {};
}

Result<> ListDecoder::Step(char c) {
  const auto unexpected = [c] {
    return Fail(ErrorCode::kCorrupt, std::string("list: unexpected '") + c + "'");
  };
  switch (state_) {
    case State::kKey:
      if (in_string_) return Capture(c);
      break;
    case State::kValue:
    case State::kItem:
      if (!capture_.empty()) return Capture(c);
      break;
    default:
      break;
  }
  if (IsSpace(c)) return {};
  switch (state_) {
    case State::kStart:
      if (c != '{') return unexpected();
      state_ = State::kKeyOrEnd;
      return {};
    case State::kKeyOrEnd:
      if (c == '}') {
        state_ = State::kDone;
        return {};
      }
      [[fallthrough]];
    case State::kKey:
      if (c != '"') return unexpected();
      state_ = State::kKey;
      return Capture(c);
    case State::kColon:
      if (c != ':') return unexpected();
      state_ = State::kValue;
      return {};
    case State::kValue:
      if (c == ',' || c == '}' || c == ']') return unexpected();
      if (key_ == "items" && c == '[') {
        state_ = State::kItemOrEnd;
        return {};
      }
      return Capture(c);
    case State::kItemOrEnd:
      if (c == ']') {
        state_ = State::kAfterValue;
        return {};
      }
      [[fallthrough]];
    case State::kItem:
      if (c != '{') return unexpected();
      state_ = State::kItem;
      return Capture(c);
    case State::kAfterItem:
      if (c == ',') {
        state_ = State::kItem;
      } else if (c == ']') {
        state_ = State::kAfterValue;
      } else {
        return unexpected();
      }
      return {};
    case State::kAfterValue:
      if (c == ',') {
        state_ = State::kKey;
      } else if (c == '}') {
        state_ = State::kDone;
      } else {
        return unexpected();
      }
      return {};
    case State::kDone:
      return unexpected();
  }
  return unexpected();
}

Result<> ListDecoder::Capture(char c) {
  // A bare number or literal ends before the character that follows it.
  const bool scalar = !capture_.empty() && depth_ == 0 && !in_string_;
  if (scalar && (c == ',' || c == '}' || IsSpace(c))) {
    DORMOUSE_TRY(FinishCapture());
    return Step(c);
  }
  if (capture_.size() >= max_object_bytes_) {
    return Fail(ErrorCode::kCorrupt,
                "list item: larger than " + std::to_string(max_object_bytes_) + " bytes");
  }
  capture_ += c;
  bool ended = false;
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
      ended = depth_ == 0;
    }
  } else if (c == '"') {
    in_string_ = true;
  } else if (c == '{' || c == '[') {
    if (++depth_ > kMaxDepth) return Fail(ErrorCode::kCorrupt, "list item: nested too deep");
  } else if (c == '}' || c == ']') {
    ended = --depth_ == 0;
  }
  return ended ? FinishCapture() : Result<>();
}

Result<> ListDecoder::FinishCapture() {
  DORMOUSE_ASSIGN(const json value, Parse(capture_, "list"));
  // clear() keeps the memory for the next item; it is as large as the largest one was.
  capture_.clear();
  depth_ = 0;
  if (state_ == State::kKey) {
    key_ = value.get<std::string>();
    state_ = State::kColon;
    return {};
  }
  if (state_ == State::kItem) {
    state_ = State::kAfterItem;
    return sink_(value);
  }
  if (key_ == "metadata" && value.is_object()) {
    const auto text = [&value](const char* name) -> std::string {
      const auto found = value.find(name);
      return found != value.end() && found->is_string() ? found->get<std::string>() : "";
    };
    resource_version_ = ResourceVersion(text("resourceVersion"));
    continue_ = text("continue");
  }
  state_ = State::kAfterValue;
  return {};
}

}  // namespace dormouse::kube
