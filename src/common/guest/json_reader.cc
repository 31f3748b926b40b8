#include "src/common/guest/json_reader.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "src/common/base/json_text.h"

namespace dormouse::guest {
namespace {

using Json = nlohmann::json;

}  // namespace

Reader::Reader(std::string_view text)
    : json_(std::make_unique<Json>(Json::parse(text, nullptr, /*allow_exceptions=*/false))) {
  if (!json_->is_object()) Reject("payload is not a JSON object");
}

Reader::Reader(const Json& json, std::string name)
    : json_(std::make_unique<Json>(json)), name_(std::move(name)) {
  if (!json_->is_object()) Reject("is not an object");
}

Reader::~Reader() = default;

const Json* Reader::Find(const char* key) const {
  if (!json_->is_object()) return nullptr;
  const auto found = json_->find(key);
  return found == json_->end() || found->is_null() ? nullptr : &*found;
}

std::string Reader::String(const char* key, size_t max, bool required) {
  const Json* field = Find(key);
  if (field == nullptr) {
    if (required) Reject(std::string(key) + " is missing");
    return {};
  }
  return Text(*field, key, max);
}

uint64_t Reader::Unsigned(const char* key, uint64_t max, uint64_t otherwise) {
  const Json* field = Find(key);
  if (field == nullptr) return otherwise;
  if (!field->is_number_unsigned() || field->get<uint64_t>() > max) {
    Reject(std::string(key) + " is not a number from 0 to " + std::to_string(max));
    return otherwise;
  }
  return field->get<uint64_t>();
}

int64_t Reader::Signed(const char* key) {
  const Json* field = Find(key);
  if (field == nullptr) return 0;
  if (!field->is_number_integer() ||
      (field->is_number_unsigned() &&
       field->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()})) {
    Reject(std::string(key) + " is not a whole number");
    return 0;
  }
  return field->get<int64_t>();
}

bool Reader::Bool(const char* key, bool otherwise) {
  const Json* field = Find(key);
  if (field == nullptr) return otherwise;
  if (!field->is_boolean()) {
    Reject(std::string(key) + " is neither true nor false");
    return otherwise;
  }
  return field->get<bool>();
}

std::vector<std::string> Reader::Strings(const char* key, size_t max_items, size_t max_length) {
  std::vector<std::string> out;
  const Json* field = Find(key);
  if (field == nullptr) return out;
  if (!field->is_array() || field->size() > max_items) {
    Reject(std::string(key) + " is not a list of at most " + std::to_string(max_items));
    return out;
  }
  out.reserve(field->size());
  for (const Json& item : *field) out.push_back(Text(item, key, max_length));
  return out;
}

std::vector<EnvVar> Reader::Env(const char* key) {
  std::vector<EnvVar> out;
  const Json* field = Find(key);
  if (field == nullptr) return out;
  if (!field->is_array() || field->size() > kMaxArgs) {
    Reject(std::string(key) + " is not a list of at most " + std::to_string(kMaxArgs));
    return out;
  }
  for (const Json& item : *field) {
    if (!item.is_array() || item.size() != 2) {
      Reject(std::string(key) + " holds something that is not [name, value]");
      return out;
    }
    std::string name = Text(item[0], key, kMaxString);
    if (name.empty() || name.find('=') != std::string::npos) {
      Reject(std::string(key) + " holds a name that is empty or has a '='");
      return out;
    }
    out.emplace_back(std::move(name), Text(item[1], key, kMaxString));
  }
  return out;
}

std::string Reader::Entropy(const char* key) {
  const auto entropy = HexDecode(String(key, 2 * kMaxEntropy));
  if (entropy && (entropy->empty() || entropy->size() >= kMinEntropy)) return *entropy;
  Reject(std::string(key) + " is not 16 to 512 bytes in lower-case hexadecimal");
  return {};
}

void Reader::Reject(std::string why) {
  if (!error_) error_ = Error(ErrorCode::kInvalid, name_.empty() ? why : name_ + ": " + why);
}

void Reader::Absorb(const Reader& other) {
  if (other.error_ && !error_) error_ = other.error_;
}

// NUL would end the string early wherever it reaches the kernel.
std::string Reader::Text(const Json& field, const char* key, size_t max) {
  const auto* text = field.get_ptr<const std::string*>();
  if (text == nullptr || text->size() > max || text->find('\0') != std::string::npos) {
    Reject(std::string(key) + " is not a string of at most " + std::to_string(max) + " bytes");
    return {};
  }
  return *text;
}

std::string Framed(FrameType type, const Json& json) {
  return EncodeFrame(type, JsonText(json));
}

Result<std::string> FramedIfFits(FrameType type, const Json& json, std::string_view what) {
  std::string text = JsonText(json);
  if (text.size() > kMaxPayloadBytes) {
    return Fail(ErrorCode::kInvalid,
                std::string(what) + " of " + std::to_string(text.size()) +
                    " bytes: arguments and environment together must stay below " +
                    std::to_string(kMaxPayloadBytes));
  }
  return EncodeFrame(type, text);
}

bool IsMachineId(std::string_view text) {
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return text.size() == kMachineIdDigits && std::all_of(text.begin(), text.end(), is_digit) &&
         text.find_first_not_of('0') != std::string_view::npos;
}

std::string HexEncode(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char c : bytes) {
    out.push_back(kDigits[static_cast<uint8_t>(c) >> 4]);
    out.push_back(kDigits[static_cast<uint8_t>(c) & 15]);
  }
  return out;
}

std::optional<std::string> HexDecode(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  if (text.size() % 2 != 0) return std::nullopt;
  std::string out;
  for (size_t at = 0; at < text.size(); at += 2) {
    const int high = digit(text[at]);
    const int low = digit(text[at + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<char>(high << 4 | low));
  }
  return out;
}

}  // namespace dormouse::guest
